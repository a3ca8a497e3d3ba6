#include "bus/base/clock.hpp"

#include <ctime>

#include <cpuid.h>

namespace bus {
namespace {

std::int64_t read_clock(clockid_t which) noexcept {
  timespec now{};
  ::clock_gettime(which, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

// Ticks at one rate, whatever the processor's speed and sleep: "invariant TSC".
bool ticks_are_even() noexcept {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d & (1U << 8)) != 0;
}

constexpr std::int64_t set_every_ns = 1'000'000;
// The rate is taken anew over at least this much, and kept when a pause was so long that the
// processor may have slept through it.
constexpr std::int64_t rate_over_ns = 100'000;
constexpr std::int64_t rate_over_ns_max = 1'000'000'000;
// Clocks and ticks are read within so much, some ten times what it takes: else others ran in
// between, and what was read does not belong together.
constexpr std::uint64_t apart_ticks_max = 2'000;

}  // namespace

std::int64_t steady_ns() noexcept { return read_clock(CLOCK_MONOTONIC); }
std::int64_t wall_ns() noexcept { return read_clock(CLOCK_REALTIME); }

stamp_clock::stamp_clock() noexcept : even_(ticks_are_even()) {}

std::int64_t stamp_clock::set() noexcept {
  const std::uint64_t began = __builtin_ia32_rdtsc();
  const std::int64_t wall = wall_ns();
  if (!even_) return wall;
  const std::int64_t steady = steady_ns();
  const std::uint64_t ticks = __builtin_ia32_rdtsc();
  if (ticks - began > apart_ticks_max) return wall;
  const std::int64_t passed = steady - set_at_steady_ns_;
  if (set_at_steady_ns_ != 0 && passed < rate_over_ns) return wall;
  if (set_at_steady_ns_ != 0 && passed <= rate_over_ns_max && ticks > set_at_ticks_) {
    const double rate = static_cast<double>(passed) / static_cast<double>(ticks - set_at_ticks_);
    ns_per_tick_ = static_cast<std::uint64_t>(rate * 4294967296.0);
    good_for_ticks_ = static_cast<std::uint64_t>(static_cast<double>(set_every_ns) / rate);
  }
  set_at_ticks_ = ticks;
  set_at_steady_ns_ = steady;
  set_to_ns_ = wall;
  return wall;
}

deadline deadline::after(std::chrono::nanoseconds timeout) noexcept {
  const std::int64_t now = steady_ns();
  // A timeout beyond the clock's range means "for ever".
  if (timeout.count() >= INT64_MAX - now) return never();
  return deadline(now + (timeout.count() > 0 ? timeout.count() : 0));
}

}  // namespace bus
