#include "bus/tool/pump.hpp"

#include <vector>

namespace bus::tool {

asio::awaitable<bool> pump(pump_plan plan) {
  cutter cut(plan.how);
  std::vector<outlet::message> messages;
  bool is_wanted = true;
  while (is_wanted && !cut.is_broken()) {
    const std::span<std::byte> room = cut.room();
    const std::size_t got = co_await plan.from.read_some(room);
    if (got == 0) break;
    if (plan.pass_on) is_wanted = co_await plan.pass_on(room.first(got));
    cut.filled(got);
    messages.clear();
    while (const auto one = cut.next()) messages.push_back(*one);
    co_await plan.to.send(std::span<const outlet::message>(messages));
  }
  plan.from.close();
  if (const auto last = cut.rest()) co_await plan.to.send(*last);
  co_return !cut.is_broken();
}

}  // namespace bus::tool
