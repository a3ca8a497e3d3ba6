// Two nodes, one message. Here they live in one process; in two processes, or on two machines,
// every line stays as it is.
#include "bus/bus.hpp"
#include "schemas/demo/quake.pb.h"
#include "transports/standard.hpp"

#include <cstdio>
#include <thread>

using namespace std::chrono_literals;

int main() {
  // A node belongs to a thread: this one publishes.
  std::jthread seismograph([] {
    bus::node node({.name = "seismograph", .transports = transports::standard()});
    auto quakes = node.advertise<demo::Quake>("quakes/ak/ml");
    if (!quakes.wait_matched(1, 10s)) return;
    demo::Quake quake;
    quake.set_place("4 km W of Castaic, CA");
    quake.set_magnitude(2.0);
    quakes.publish(quake);
  });

  bus::node node({.name = "reader", .transports = transports::standard()});
  auto quakes = node.subscribe<demo::Quake>("quakes/**");
  const auto quake = quakes.take(10s);
  if (!quake) return 1;
  std::printf("magnitude %.1f, %s\n", (*quake)->magnitude(), (*quake)->place().c_str());
  return 0;
}
