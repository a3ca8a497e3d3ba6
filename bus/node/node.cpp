#include "bus/node/node.hpp"

#include <atomic>
#include <optional>

namespace bus {

struct node::own_loop {
  std::atomic<bool> stopping{false};
  std::optional<asio::io_context> context;
};

node::node(node_options options) : loop_(std::make_unique<own_loop>()) {
  core_ = std::make_unique<core>(std::move(options));
  if (asio::io_context* const given = core_->options().context) {
    driver_ = std::make_unique<loop_driver>(*core_, *given);
  }
}

node::~node() {
  if (!core_ || !core_->is_forked()) return;
  // The parent's: its links, its files and its books go on, and its threads are not here to end.
  static_cast<void>(driver_.release());
  static_cast<void>(core_.release());
}
node::node(node&&) noexcept = default;
node& node::operator=(node&&) noexcept = default;

node_id node::id() const noexcept { return core_->id(); }
const std::string& node::name() const noexcept { return core_->options().name; }
const std::string& node::directory() const noexcept { return core_->options().directory; }

explanation node::why(const std::string& topic) const { return core_->why(topic); }

asio::io_context& node::context() {
  if (!core_->options().context) {
    loop_->context.emplace(1);
    core_->adopt(*loop_->context);
    driver_ = std::make_unique<loop_driver>(*core_, *loop_->context);
  }
  return *core_->options().context;
}

void node::run() { run_for(std::chrono::nanoseconds::max()); }

void node::run_for(std::chrono::nanoseconds timeout) {
  const deadline until = deadline::after(timeout);
  if (driver_) {
    asio::io_context& context = *core_->options().context;
    context.restart();
    // Whatever became of a wakeup: who lets the loop run for a time looks at least that often.
    driver_->look();
    if (until.is_never()) {
      context.run();
    } else {
      context.run_for(timeout);
    }
    return;
  }
  constexpr std::size_t budget = 256;
  core_->drive(until, budget,
               [this] { return loop_->stopping.exchange(false, std::memory_order_acq_rel); });
}

void node::stop() noexcept {
  if (driver_) {
    core_->options().context->stop();
    return;
  }
  // Pairs with: run_for, exchange of stopping; the ring ends its sleep.
  loop_->stopping.store(true, std::memory_order_release);
  static_cast<void>(core_->doorbell().ring());
}

}  // namespace bus
