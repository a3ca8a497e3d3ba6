// The limits beside which the prototypes are read: what a wakeup costs by each rung, what a cache
// line costs, what a bare ring does. Each function is one measurement between two processes.
#pragma once

#include "tests/bench/prototype_lanes.hpp"

#include <functional>
#include <string>

#include <sys/types.h>

namespace prototype {

// Forks; the child runs `work` and exits. The child dies with its parent.
pid_t spawn(const std::function<void()>& work);
// Waits for the child; requires that it ended as it should.
void join(pid_t child);
// -1: where the process was allowed to be when it began.
void stay_on(int cpu);

enum class rung { semaphore, signal, event };
struct rung_result {
  double round_trip_us = 0;  // median
  std::string remark;        // why the rung cannot be climbed here, or what was shown beside
};
rung_result measure_rung(rung kind, u32 rounds, bool pin);
double measure_cache_line_us(u32 rounds, bool pin);
// Messages per second through a bare single-producer single-consumer ring, published by the batch.
double measure_bare_ring(u32 payload, u32 batch, u64 messages, bool pin);

}  // namespace prototype
