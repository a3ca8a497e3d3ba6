// How a node waits is a value: spin (lowest latency, one core), spin_then_sleep (the default), or
// sleep (least CPU). The code stays the same; a ping and its pong tell the difference.
#include "bus/bus.hpp"
#include "transports/standard.hpp"

#include <cstdint>
#include <cstdio>
#include <thread>

using namespace std::chrono_literals;

namespace {

struct ball {
  std::uint64_t number;
};
constexpr std::uint64_t rounds = 100;

void answer(bus::wait_policy policy) {
  bus::node node({.name = "pong", .transports = transports::standard(), .waiting = policy});
  auto pings = node.subscribe<ball>("game/ping");
  auto pongs = node.advertise<ball>("game/pong");
  while (const auto ping = pings.take(10s)) {
    pongs.publish(**ping);
    if ((*ping)->number == rounds) break;
  }
}

bool play(bus::wait_policy policy, const char* name) {
  bus::node node({.name = "ping", .transports = transports::standard(), .waiting = policy});
  auto pongs = node.subscribe<ball>("game/pong");
  auto pings = node.advertise<ball>("game/ping");
  std::jthread other(answer, policy);
  if (!pings.wait_matched(1, 10s) || !pongs.wait_matched(1, 10s)) return false;
  const std::int64_t begun_ns = bus::steady_ns();
  for (std::uint64_t i = 1; i <= rounds; ++i) {
    pings.publish({i});
    if (!pongs.take(10s)) return false;
  }
  const auto each_us = static_cast<double>(bus::steady_ns() - begun_ns) / rounds / 1000;
  std::printf("%s: %lu rounds, %.1f us each\n", name, rounds, each_us);
  return true;
}

}  // namespace

int main() {
  const bool all = play(bus::wait_policy::spin, "spin") &&
                   play(bus::wait_policy::spin_then_sleep, "spin_then_sleep") &&
                   play(bus::wait_policy::sleep, "sleep");
  return all ? 0 : 1;
}
