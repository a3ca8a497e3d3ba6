// Backpressure: a subscription that blocks loses nothing to a publisher that waits for it. Who only
// publishes is never held up: it learns who had no place, and the books say what that one missed.
#include "bus/bus.hpp"
#include "transports/standard.hpp"

#include <cstdint>
#include <cstdio>
#include <thread>

using namespace std::chrono_literals;

namespace {

struct order {
  std::uint64_t number;
};
constexpr std::uint64_t count = 1000;

void produce() {
  bus::node node({.name = "shop", .transports = transports::standard()});
  auto orders = node.advertise<order>("shop/orders");
  if (!orders.wait_matched(1, 10s)) return;
  for (std::uint64_t i = 1; i <= count; ++i) {
    // Waits while the kitchen has no place: up to 10 s here, and as long as the kitchen asked.
    if (const auto outcome = orders.publish_wait({i}, 10s); !outcome) {
      std::printf("order %lu: node %s had no place\n", i, bus::to_hex(outcome.by.value).c_str());
    }
  }
}

}  // namespace

int main() {
  bus::node node({.name = "kitchen", .transports = transports::standard()});
  auto orders = node.subscribe<order>("shop/orders",
                                      {.depth = 8, .when_full = bus::drop::none, .block_for = 5s});
  std::jthread shop(produce);
  std::uint64_t last = 0;
  while (last < count) {
    const auto one = orders.take(10s);
    if (!one) break;
    last = (*one)->number;
    if (last % 100 == 0) std::this_thread::sleep_for(1ms);  // an order that takes long
  }
  const bus::accounts books = orders.accounts();
  std::printf("cooked %lu of %lu, lost %lu\n", books.delivered, books.expected,
              books.lost_in_all());
  return last == count ? 0 : 1;
}
