// A parent, and two children that share nothing with it but their pipes. One is locked in: it may
// publish its own topic, and has no other way out. It is killed, and comes back. The account
// balances: what the killed one had published and never brought is `cut`.
#include "bus/bus.hpp"
#include "transports/standard.hpp"

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <string>

using namespace std::chrono_literals;

namespace {

struct pulse {
  std::uint64_t number;
};
constexpr std::uint64_t enough = 2000;

int beat(const std::string& topic) {
  bus::node node({.name = topic, .transports = transports::standard()});
  auto pulses = node.advertise<pulse>(topic);
  for (std::uint64_t i = 1;; ++i) {
    if (!pulses.wait_matched(1, 10s)) return 1;
    if (!pulses.publish_wait(pulse{i}, 10s)) return 2;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) return beat(argv[1]);
  bus::node node({.name = "parent", .transports = transports::standard()});
  auto pulses = node.subscribe<pulse>("heart/*", {.when_full = bus::drop::none});
  auto left = bus::spawn(node, {"/proc/self/exe", "heart/left"}, {.shares_directory = false});
  auto right = bus::spawn(
      node, {"/proc/self/exe", "heart/right"},
      {.restarts = bus::restart::on_failure, .sandbox = bus::allow{.publish = {"heart/right"}}});
  std::printf("right is locked in by %s\n", right.locked_in_by().describe().c_str());
  std::uint64_t taken = 0;
  const auto take_more = [&](std::uint64_t more, std::chrono::seconds patience = 10s) {
    for (more += taken; taken < more && pulses.take(patience);) ++taken;
  };
  take_more(enough);
  if (!right.signal(SIGKILL)) return 1;
  while (right.restarts() == 0 || pulses.matched() < 2) take_more(1);
  take_more(enough);
  left.stop(1s);
  right.stop(1s);
  while (pulses.matched() > 0 || pulses.accounts().queued > 0) take_more(1, 0s);

  const bus::accounts books = pulses.accounts();
  std::printf("%lu published, %lu delivered, %lu cut; right was started again %lu time(s)\n",
              books.expected, books.delivered, books.lost_by(bus::loss::cut), right.restarts());
  const bool right_so = books.balanced() && books.delivered == taken && taken >= 2 * enough;
  std::printf("the account %s\n", right_so ? "balances" : "does not balance");
  return right_so ? 0 : 1;
}
