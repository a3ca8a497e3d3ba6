// Steps in test builds; not compiled into others.
#include "bus/base/step.hpp"

#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include <unistd.h>

namespace bus {
namespace {

thread_local step_listener listener = nullptr;

constexpr std::size_t nowhere = SIZE_MAX;
// Relaxed everywhere: nothing hangs on when another thread learns of a change.
std::atomic<std::size_t> crash_place{nowhere};
std::atomic<std::uint64_t> passings_left{0};

// Before main, so that a step in a constructor counts, too. A misspelt variable must not make a
// test that passes because nothing happened.
const bool environment_was_read = [] {
  const char* const where = std::getenv("OMNIBUS_CRASH_AT");
  if (!where || crash_at(where)) return true;
  std::fprintf(stderr, "OMNIBUS_CRASH_AT=%s: want name:n, and a name of bus/base/step.hpp\n",
               where);
  std::_Exit(2);
}();

void crash() noexcept {
  // To the whole process, whichever thread came here, and at once.
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

}  // namespace

step_listener listen_to_steps(step_listener heard) noexcept {
  const step_listener before = listener;
  listener = heard;
  return before;
}

bool crash_at(std::string_view where) noexcept {
  crash_place.store(nowhere, std::memory_order_relaxed);
  if (where.empty()) return true;
  const std::size_t colon = where.rfind(':');
  if (colon == std::string_view::npos) return false;
  std::uint64_t count = 0;
  const char* const end = where.data() + where.size();
  const auto number = std::from_chars(where.data() + colon + 1, end, count);
  if (number.ec != std::errc() || number.ptr != end || count == 0) return false;
  for (std::size_t i = 0; i < step_names.size(); ++i) {
    if (step_names[i] != where.substr(0, colon)) continue;
    passings_left.store(count, std::memory_order_relaxed);
    crash_place.store(i, std::memory_order_relaxed);
    return true;
  }
  return false;
}

void pass_step(step_name passed) noexcept {
  if (listener) listener(passed);
  if (passed.number() != crash_place.load(std::memory_order_relaxed)) return;
  if (passings_left.fetch_sub(1, std::memory_order_relaxed) == 1) crash();
}

}  // namespace bus
