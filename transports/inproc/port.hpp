// What a transport shows the other threads of its process: where new lanes are handed in, and its
// node's bell, for as long as there is one.
//
// The bell belongs to a node that may end while others are about to ring it. So they look at a flag
// here first, which lives as long as anybody refers to the port: unset, the node is awake, and
// nothing more happens. Set, the node sleeps or is about to; then, and only then, the mutex is
// taken, under which the bell cannot go away.
#pragma once

#include "bus/link/bell.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace transports {

class lane;

class port {
 public:
  explicit port(bus::bell& doorbell) noexcept : bell_(&doorbell) {}

  // --- any thread
  // Hands in a new lane and wakes the node. False: the port is closed.
  [[nodiscard]] bool admit(std::shared_ptr<lane> newcomer) {
    const std::lock_guard lock(control_);
    if (!bell_) return false;
    newcomers_.push_back(std::move(newcomer));
    // Pairs with: has_newcomers, seq_cst (the sleep).
    admitted_.fetch_add(1, std::memory_order_seq_cst);
    bell_->ring();
    return true;
  }
  // Rings if the node waits for arrivals. Publish first (seq_cst), then knock. Without a mutex and
  // without a system call while the node is awake.
  bus::rung knock() noexcept {
    // Pairs with: fall_asleep.
    return asleep_.load(std::memory_order_seq_cst) ? ring() : bus::rung::none;
  }
  // Rings if the node sleeps at all.
  bus::rung ring() noexcept {
    const std::lock_guard lock(control_);
    return bell_ ? bell_->ring() : bus::rung::none;
  }

  // --- the node's thread
  // To be said before the last look at the lanes.
  void fall_asleep() noexcept { asleep_.store(true, std::memory_order_seq_cst); }
  // Relaxed: a late knock costs one needless wakeup.
  void wake_up() noexcept { asleep_.store(false, std::memory_order_relaxed); }
  [[nodiscard]] bool has_newcomers() const noexcept {
    // Pairs with: admit.
    return admitted_.load(std::memory_order_seq_cst) != welcomed_;
  }
  [[nodiscard]] std::vector<std::shared_ptr<lane>> welcome() noexcept {
    const std::lock_guard lock(control_);
    welcomed_ = admitted_.load(std::memory_order_relaxed);  // written under the mutex
    return std::exchange(newcomers_, {});
  }
  // From now on nobody touches the bell. Returns the lanes that nobody will read.
  [[nodiscard]] std::vector<std::shared_ptr<lane>> close() noexcept {
    const std::lock_guard lock(control_);
    bell_ = nullptr;
    return std::exchange(newcomers_, {});
  }

 private:
  // Read by every sender after every batch, written only by a node that falls asleep.
  alignas(128) std::atomic<bool> asleep_{false};
  std::atomic<std::uint32_t> admitted_{0};
  std::uint32_t welcomed_ = 0;  // the node's own
  alignas(128) std::mutex control_;
  bus::bell* bell_;                               // guarded by control_; null: closed
  std::vector<std::shared_ptr<lane>> newcomers_;  // guarded by control_
};

}  // namespace transports
