#include "bus/base/clock.hpp"

#include <ctime>

namespace bus {
namespace {

std::int64_t read_clock(clockid_t which) noexcept {
  timespec now{};
  ::clock_gettime(which, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

std::int64_t steady_ns() noexcept { return read_clock(CLOCK_MONOTONIC); }
std::int64_t wall_ns() noexcept { return read_clock(CLOCK_REALTIME); }

deadline deadline::after(std::chrono::nanoseconds timeout) noexcept {
  const std::int64_t now = steady_ns();
  // A timeout beyond the clock's range means "for ever".
  if (timeout.count() >= INT64_MAX - now) return never();
  return deadline(now + (timeout.count() > 0 ? timeout.count() : 0));
}

}  // namespace bus
