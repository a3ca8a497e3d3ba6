// A publisher is killed in the middle of its work. The subscriber is not harmed, and its account
// balances: what was published and can no longer come is counted, with the cause `cut`.
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

[[noreturn]] void publish_until_killed() {
  bus::node node({.name = "victim", .transports = transports::standard()});
  auto pulses = node.advertise<pulse>("heart/pulse");
  pulses.wait_matched(1, 10s);
  for (std::uint64_t i = 1;; ++i) pulses.publish({i});  // faster than anybody can take
}

}  // namespace

int main() {
  const pid_t victim = ::fork();  // before there is a node: nothing of the bus is inherited
  if (victim == 0) publish_until_killed();
  bus::node node({.name = "survivor", .transports = transports::standard()});
  auto pulses = node.subscribe<pulse>("heart/*", {.depth = 4096, .when_full = bus::drop::newest});
  std::uint64_t taken = 0;
  while (taken < 1000 && pulses.take(10s)) ++taken;
  ::kill(victim, SIGKILL);
  ::waitpid(victim, nullptr, 0);
  // What lies in the lane is still delivered; then the books of the dead are read.
  while (pulses.take(500ms)) ++taken;
  const bus::accounts books = pulses.accounts();
  std::printf("published %lu = delivered %lu + queue_full %lu + cut %lu: %s\n", books.expected,
              books.delivered, books.lost_by(bus::loss::queue_full), books.lost_by(bus::loss::cut),
              books.balanced() && books.delivered == taken ? "balanced" : "not balanced");
  std::printf("attached publishers: %zu\n", pulses.matched());
  return books.balanced() && books.delivered == taken && pulses.matched() == 0 ? 0 : 1;
}
