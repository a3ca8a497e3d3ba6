// The third habit of waiting: co_await, on an event loop that is yours. The nodes share it with
// whatever else runs there; nobody blocks it, and no thread is added.
#include "bus/bus.hpp"
#include "transports/standard.hpp"

#include <cstdint>
#include <cstdio>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

using namespace std::chrono_literals;

namespace {

struct tick {
  std::uint32_t number;
};
constexpr std::uint32_t count = 50;

asio::awaitable<void> publish(asio::io_context& loop, bus::publisher<tick>& ticks) {
  asio::steady_timer timer(loop);
  while (ticks.matched() == 0) {
    timer.expires_after(1ms);
    co_await timer.async_wait(asio::use_awaitable);
  }
  for (std::uint32_t i = 1; i <= count; ++i) ticks.publish({i});
}

asio::awaitable<void> follow(asio::io_context& loop, bus::subscriber<tick>& ticks) {
  std::uint32_t last = 0;
  while (last < count) last = (co_await ticks.next())->number;
  std::printf("awaited %u ticks on the loop of main\n", last);
  loop.stop();
}

}  // namespace

int main() {
  asio::io_context loop(1);
  bus::node clock({.name = "clock", .transports = transports::standard(), .context = &loop});
  bus::node hand({.name = "hand", .transports = transports::standard(), .context = &loop});
  auto heard = hand.subscribe<tick>("clock/ticks");
  auto ticks = clock.advertise<tick>("clock/ticks");
  asio::co_spawn(loop, publish(loop, ticks), asio::detached);
  asio::co_spawn(loop, follow(loop, heard), asio::detached);
  loop.run_for(10s);
  return loop.stopped() ? 0 : 1;
}
