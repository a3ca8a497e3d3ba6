// The sentry stands in when nobody watches a node's descriptors: when its thread sleeps on a
// semaphore, or is busy elsewhere. It is one thread, asleep in poll(); when the node's descriptor
// becomes readable it raises a flag and rings the bell, and waits until the node has looked. It
// touches nothing else.
//
// Each call costs it two switches, of the node's processor if that is all there is. A node that is
// called again and again while it is awake lets the sentry rest, and looks by itself, now and then,
// until it finds nothing or goes to sleep.
#pragma once

#include "bus/base/clock.hpp"
#include "bus/base/fd.hpp"
#include "bus/base/result.hpp"
#include "bus/link/bell.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

namespace bus {

class sentry {
 public:
  // Watches `descriptor` (level-triggered) until destroyed. Both arguments must outlive it. Errors:
  // no descriptor for the stop signal, or no thread.
  [[nodiscard]] static result<std::unique_ptr<sentry>> post(int descriptor, bell& doorbell);
  ~sentry();
  sentry(const sentry&) = delete;
  sentry& operator=(const sentry&) = delete;

  // The rest is for the node's thread.

  // Whether the descriptor was seen readable, or it is time to look since the sentry rests. One
  // relaxed load mostly: it is read on the data path, and only says "go and look".
  [[nodiscard]] bool calls() const noexcept {
    return raised_.load(std::memory_order_relaxed) != 0 &&
           (rests_until_ns_ == 0 || steady_ns() >= rests_until_ns_);
  }
  // The node has looked, and found something or not: the sentry rests, or goes back to its post.
  void looked(bool found) noexcept;
  // The node will not look by itself any more.
  void back_to_post() noexcept {
    rests_until_ns_ = 0;
    lower();
  }

 private:
  // Guesses: a pause that is long beside a look (1 us) and short for whoever wants something of the
  // node; and how soon after the last find another one is one of many.
  static constexpr std::int64_t rest_ns = 100'000;
  static constexpr std::int64_t soon_ns = 2 * rest_ns;

  sentry(int descriptor, bell& doorbell) : descriptor_(descriptor), doorbell_(doorbell) {}
  void stand() noexcept;
  void lower() noexcept;

  int descriptor_;
  bell& doorbell_;
  fd stop_;
  std::atomic<std::uint32_t> raised_{0};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
  // The node's.
  std::int64_t found_ns_ = 0;
  std::int64_t rests_until_ns_ = 0;  // 0: it does not
};

}  // namespace bus
