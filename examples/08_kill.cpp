// A publisher is killed while much of what it published is still under way. The subscriber is not
// harmed: it gets all that is in the lane, and its account balances, with the rest counted as
// `cut`.
#include "bus/bus.hpp"
#include "transports/standard.hpp"

#include <csignal>
#include <cstdint>
#include <cstdio>

#include <sys/wait.h>
#include <unistd.h>

using namespace std::chrono_literals;

namespace {

struct pulse {
  std::uint64_t number;
};
constexpr std::uint64_t count = 5000;

[[noreturn]] void publish_and_wait_for_death(int done) {
  bus::node node({.name = "victim", .transports = transports::standard()});
  auto pulses = node.advertise<pulse>("heart/pulse");
  pulses.wait_matched(1, 10s);
  for (std::uint64_t i = 1; i <= count; ++i) pulses.publish({i});  // more than a lane holds
  if (::write(done, "", 1) != 1) ::_exit(1);
  for (;;) ::pause();
}

}  // namespace

int main() {
  int ends[2];
  if (::pipe(ends) != 0) return 1;
  const pid_t victim = ::fork();  // before there is a node: nothing of the bus is inherited
  if (victim == 0) publish_and_wait_for_death(ends[1]);
  ::close(ends[1]);
  bus::node node({.name = "survivor", .transports = transports::standard()});
  auto pulses = node.subscribe<pulse>("heart/*", {.depth = 8192});
  std::uint64_t taken = 0;
  while (taken < 100 && pulses.take(10s)) ++taken;
  char done = 0;
  if (::read(ends[0], &done, 1) != 1) return 1;
  ::kill(victim, SIGKILL);
  ::waitpid(victim, nullptr, 0);
  // The lane outlives its writer; and then the books of the dead are read.
  while (pulses.accounts().expected < count && pulses.take(10s)) ++taken;
  while (pulses.take(100ms)) ++taken;
  const bus::accounts books = pulses.accounts();
  const std::uint64_t cut = books.lost_by(bus::loss::cut);
  std::printf("published %lu = delivered %lu + cut %lu, other losses %lu, publishers left %zu\n",
              books.expected, books.delivered, cut, books.lost_in_all() - cut, pulses.matched());
  const bool right = books.balanced() && books.expected == count && books.delivered == taken;
  std::printf("the account %s\n", right && cut > 0 ? "balances" : "does not balance");
  return right && cut > 0 ? 0 : 1;
}
