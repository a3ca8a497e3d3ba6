// A project that is not ours: includes the installed headers, links the installed libraries, and
// runs.
#include <cstdio>

#include <bus/base/clock.hpp>

int main() {
  const auto deadline = bus::deadline::after(std::chrono::hours(1));
  std::printf("outside: linked, and the deadline has %s\n",
              deadline.passed() ? "passed" : "not passed");
  return deadline.passed() ? 1 : 0;
}
