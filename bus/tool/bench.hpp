// `bus bench`: what the public API achieves, between real processes, beside what the machine can
// do.
//
// The parent is one party, children of it (the same program with `bench-peer`) are the others; all
// are ordinary nodes on a bus directory of their own. inproc puts the peers on threads. Ours and
// the limit are measured in turns, since a shared machine drifts by a factor of two within minutes;
// the figures printed are medians over the rounds.
#pragma once

#include <cstdint>
#include <string>

namespace bus::tool {

struct bench_options {
  std::string workload;           // latency, throughput or fanout
  std::string transport = "shm";  // inproc, shm or zmq
  std::string wait = "spin";      // spin, sleep, or spin_then_sleep
  std::string loop = "take";      // how a sleeper waits: take (semaphore), event, signal
  std::uint64_t size = 64;        // payload bytes, at least 8
  std::uint64_t count = 0;        // messages per round; 0: what fits a round of about a second
  std::uint64_t rounds = 5;
  std::uint64_t subscribers = 4;  // of fanout
  std::uint64_t depth = 1024;     // samples in flight per link
  std::uint32_t batch = 1;        // messages per publish call, of throughput and fanout
  bool untouched = false;         // hand payloads over without writing or reading them
  bool json = false;
  bool limits = true;  // measure the machine's own limit beside
};

// How a child is told its part; see bench.cpp.
struct bench_peer_options {
  std::string role;
  bench_options bench;
  std::string directory;
  std::string listen;
};

// Exit codes as for every verb: 0 done, 1 not so, 2 usage.
[[nodiscard]] int run_bench(const bench_options& options);
[[nodiscard]] int run_bench_peer(const bench_peer_options& options);

}  // namespace bus::tool
