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

// A point on the steady clock by which something must have happened.
class deadline {
 public:
  [[nodiscard]] static deadline after(std::chrono::nanoseconds timeout) noexcept;
  [[nodiscard]] static deadline never() noexcept { return deadline(INT64_MAX); }
  [[nodiscard]] static deadline now() noexcept { return deadline(0); }

  [[nodiscard]] std::int64_t at_ns() const noexcept { return at_ns_; }
  [[nodiscard]] bool is_never() const noexcept { return at_ns_ == INT64_MAX; }
  [[nodiscard]] bool passed() const noexcept { return !is_never() && steady_ns() >= at_ns_; }

 private:
  explicit deadline(std::int64_t at_ns) noexcept : at_ns_(at_ns) {}
  std::int64_t at_ns_;
};

}  // namespace bus
