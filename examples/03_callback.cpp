// The second habit of waiting: a callback, called by the node while run() turns it. The node has a
// wheel of its own; stop() ends it, from the callback or from another thread.
#include "bus/bus.hpp"
#include "transports/standard.hpp"

#include <cstdint>
#include <cstdio>
#include <thread>

using namespace std::chrono_literals;

namespace {

struct step {
  std::uint32_t number;
};

void publish() {
  bus::node node({.name = "walker", .transports = transports::standard()});
  auto steps = node.advertise<step>("walk/steps");
  if (!steps.wait_matched(1, 10s)) return;
  for (std::uint32_t i = 1; i <= 100; ++i) steps.publish({i});
}

}  // namespace

int main() {
  bus::node node({.name = "counter", .transports = transports::standard()});
  std::uint32_t sum = 0;
  // The subscription lasts as long as this object.
  const auto steps = node.subscribe<step>("walk/**", [&](const bus::received<step>& one) {
    sum += one->number;
    if (one->number == 100) node.stop();
  });
  std::jthread walker(publish);
  node.run_for(10s);
  std::printf("the sum of 100 steps is %u\n", sum);
  return sum == 5050 ? 0 : 1;
}
