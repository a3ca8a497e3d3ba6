// Whether messages come as a stream. Who looks for each of them at once makes the cache lines that
// sender and receiver share fly to and fro; who leaves the sender alone for a moment finds a batch.
// And who falls asleep in a stream makes the sender pay for a wakeup: giving way once before it
// lets a sender that waits for this core go on. Neither is for a peer that waits for our answer.
//
// Who gives way finds out whether it shares its core. Then to spin is to keep others from what they
// are waited for, most often by us, and giving way at once is the faster way to wait.
#pragma once

#include "bus/base/clock.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <sched.h>

namespace bus {

class tide {
 public:
  // A turn took so many samples.
  void turned(std::size_t came) noexcept {
    if (came == 0) {
      ++idle_turns_;
      return;
    }
    came_ = idle_turns_ <= apart ? std::min(came_ + came, most) : 0;
    idle_turns_ = 0;
    if (!std::exchange(lingered_, false)) return;
    // One alone after a pause: somebody asks and waits for our answer. Be slower to believe again.
    needed_ = came > 1 ? stream : std::min(needed_ * 2, most);
    if (came == 1) came_ = 0;
  }
  void slept() noexcept { came_ /= 2; }
  // After an idle turn: waits a moment if that is worth it, and says whether to turn again.
  [[nodiscard]] bool linger(bool may_yield) noexcept {
    if (came_ < needed_ || idle_turns_ > 2) return false;
    if (idle_turns_ == 1) {
      lingered_ = true;
      for (unsigned i = 0; i < pauses; ++i) __builtin_ia32_pause();
      return true;
    }
    if (may_yield) give_way();
    return may_yield;
  }
  // Lets others run who wait for this core.
  void give_way() noexcept {
    const std::int64_t before_ns = steady_ns();
    ::sched_yield();
    shares_core_ = steady_ns() - before_ns > others_ran_ns;
  }
  // Whether others ran when we last gave way.
  [[nodiscard]] bool shares_core() const noexcept { return shares_core_; }

 private:
  // Guesses, which the benchmarks support. An answer takes more idle turns than `apart`, and a peer
  // that asks and waits makes one message a sleep, which halves to nothing.
  static constexpr std::size_t apart = 4;
  static constexpr std::size_t stream = 32;
  static constexpr std::size_t most = 1 << 14;
  static constexpr unsigned pauses = 64;  // about 1 us
  // To give way to nobody takes 0.3 to 0.5 us; two switches take 2 at least.
  static constexpr std::int64_t others_ran_ns = 1'500;

  std::size_t came_ = 0;  // samples of this stream, halved at each sleep
  std::size_t needed_ = stream;
  std::size_t idle_turns_ = 0;
  bool lingered_ = false;
  bool shares_core_ = false;
};

}  // namespace bus
