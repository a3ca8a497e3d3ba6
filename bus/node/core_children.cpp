// Children: the kernel tells of their ends by their handles, among the node's other descriptors.
#include "bus/node/core.hpp"

#include <algorithm>

namespace bus {

result<std::shared_ptr<supervised>> core::look_after(child_plan plan, restart when) {
  auto made = std::make_shared<supervised>(
      [plan = std::move(plan)] { return child_process::start(plan); }, when);
  if (auto started = made->start(steady_ns()); !started) return unexpected(started.error());
  watch(made->handle(), from_child);
  children_.push_back(made);
  return made;
}

void core::let_go(const std::shared_ptr<supervised>& one) noexcept { std::erase(children_, one); }

// Some descriptor has called, or the time. The kernel forgets a handle as it is closed.
void core::look_after_children() noexcept {
  if (children_.empty()) return;
  const std::int64_t now = steady_ns();
  try {
    // A copy: whoever is told that one is over may let go of another.
    for (const auto& one : std::vector(children_)) {
      if (one->step(now)) watch(one->handle(), from_child);
    }
  } catch (...) {
    complain("a child runs whose end will not be heard: no memory to watch it");
  }
}

std::optional<exit_status> core::wait_end(supervised& one, deadline until) {
  if (in_pump_) {
    one.wait(until);
  } else {
    drive(until, usual_budget, [&] { return one.is_over(); });
  }
  return one.is_over() ? one.last_end() : std::nullopt;
}

}  // namespace bus
