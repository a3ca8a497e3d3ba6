// Two clocks, never mixed. Deadlines and intervals use the steady one, which no administrator can
// move; stamps that travel between machines use the wall clock.
#pragma once

#include <chrono>
#include <cstdint>

namespace bus {

// CLOCK_MONOTONIC in nanoseconds. Does not block; a vDSO read of about 25 ns.
[[nodiscard]] std::int64_t steady_ns() noexcept;
// CLOCK_REALTIME in nanoseconds since 1970 UTC. Never used for a timeout.
[[nodiscard]] std::int64_t wall_ns() noexcept;

// The wall clock for stamping every message: it counts the processor's own ticks (about 8 ns to
// read) and sets itself by wall_ns() once a millisecond, by which time it is off by nanoseconds.
// Where the ticks are not known to be even, it is wall_ns(). Somebody who sets the wall clock is
// followed within that millisecond. For one thread.
class stamp_clock {
 public:
  stamp_clock() noexcept;
  // Nanoseconds since 1970 UTC, as wall_ns(). Does not block.
  [[nodiscard]] std::int64_t now_ns() noexcept {
    const std::uint64_t ticks = __builtin_ia32_rdtsc() - set_at_ticks_;
    // Also when the ticks went backwards, which makes the difference large.
    if (ticks >= good_for_ticks_) return set();
    return set_to_ns_ + static_cast<std::int64_t>((ticks * ns_per_tick_) >> 32);
  }

 private:
  [[nodiscard]] std::int64_t set() noexcept;

  std::uint64_t set_at_ticks_ = 0;
  std::uint64_t good_for_ticks_ = 0;
  std::uint64_t ns_per_tick_ = 0;  // 32 bits after the point
  std::int64_t set_to_ns_ = 0;
  std::int64_t set_at_steady_ns_ = 0;
  bool even_ = false;
};

// A point on the steady clock by which something must have happened.
class deadline {
 public:
  [[nodiscard]] static deadline after(std::chrono::nanoseconds timeout) noexcept;
  [[nodiscard]] static deadline never() noexcept { return deadline(INT64_MAX); }
  [[nodiscard]] static deadline now() noexcept { return deadline(0); }
  [[nodiscard]] static deadline at(std::int64_t steady_ns) noexcept { return deadline(steady_ns); }

  [[nodiscard]] std::int64_t at_ns() const noexcept { return at_ns_; }
  [[nodiscard]] bool is_never() const noexcept { return at_ns_ == INT64_MAX; }
  [[nodiscard]] auto operator<=>(const deadline&) const noexcept = default;
  [[nodiscard]] bool passed() const noexcept { return !is_never() && steady_ns() >= at_ns_; }

 private:
  explicit deadline(std::int64_t at_ns) noexcept : at_ns_(at_ns) {}
  std::int64_t at_ns_;
};

}  // namespace bus
