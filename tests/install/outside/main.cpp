// A project that is not ours: includes installed headers, links the installed libraries, and runs.
#include <cstdio>

#include <bus/base/clock.hpp>
#include <schemas/bus/card.pb.h>

int main() {
  bus::wire::Card card;
  card.set_name("outside");
  const auto deadline = bus::deadline::after(std::chrono::hours(1));
  std::printf("%s: linked, and its deadline is ahead\n", card.name().c_str());
  return deadline.passed() ? 1 : 0;
}
