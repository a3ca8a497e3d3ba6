// The sentry stands in when nobody watches a node's descriptors: when its thread sleeps on a
// semaphore, or is busy elsewhere. It is one thread, asleep in poll(); when the node's descriptor
// becomes readable it raises a flag and rings the bell, and waits until the node has looked. It
// touches nothing else.
#pragma once

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

  // Node's thread: whether the descriptor was seen readable. One relaxed load: it is read on the
  // data path, and only says "go and look".
  [[nodiscard]] bool calls() const noexcept { return raised_.load(std::memory_order_relaxed) != 0; }
  // Node's thread: it is looking now; the sentry may go back to its post. Call before looking.
  void heard() noexcept;

 private:
  sentry(int descriptor, bell& doorbell) : descriptor_(descriptor), doorbell_(doorbell) {}
  void stand() noexcept;

  int descriptor_;
  bell& doorbell_;
  fd stop_;
  std::atomic<std::uint32_t> raised_{0};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace bus
