// The first habit of waiting: a thread that blocks in take() until something comes or the time is
// over. The node needs no event loop.
#include "bus/bus.hpp"
#include "transports/standard.hpp"

#include <cstdint>
#include <cstdio>
#include <thread>

using namespace std::chrono_literals;

namespace {

struct reading {
  std::uint64_t number;
  double celsius;
};
constexpr std::uint64_t count = 1000;

void publish() {
  bus::node node({.name = "thermometer", .transports = transports::standard()});
  auto readings = node.advertise<reading>("weather/roof");
  if (!readings.wait_matched(1, 10s)) return;
  for (std::uint64_t i = 1; i <= count; ++i) {
    // Whoever must lose nothing asks for room, and waits if there is none.
    while (!readings.has_room()) readings.wait_room(10s);
    readings.publish({.number = i, .celsius = 20.0});
  }
}

}  // namespace

int main() {
  bus::node node({.name = "logger", .transports = transports::standard()});
  auto readings = node.subscribe<reading>("weather/*");
  std::jthread thermometer(publish);
  std::uint64_t last = 0;
  while (last < count) {
    const auto one = readings.take(10s);
    if (!one) break;
    last = (*one)->number;
  }
  const bus::accounts books = readings.accounts();
  std::printf("took %lu of %lu, books %s\n", books.delivered, books.expected,
              books.balanced() ? "balanced" : "not balanced");
  std::printf("nothing more: %s\n", readings.take(10ms) ? "wrong" : "right");
  return last == count ? 0 : 1;
}
