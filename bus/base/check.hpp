// A broken invariant ends the process, in every build: going on would spread the damage to memory
// that other processes read. Bad input is never checked with this; it gets a result (result.hpp).
#pragma once

namespace bus {

// Prints "file:line: broken invariant: expression" to standard error and aborts.
[[noreturn]] void check_failed(const char* file, int line, const char* expression) noexcept;

}  // namespace bus

#define BUS_CHECK(expression) \
  ((expression) ? static_cast<void>(0) : ::bus::check_failed(__FILE__, __LINE__, #expression))
