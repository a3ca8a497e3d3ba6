#include "bus/node/supervised.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>

namespace bus {
namespace {

// As a shell says it: there is a program no more.
constexpr int no_program = 127;

}  // namespace

result<void> supervised::start(std::int64_t now_ns) {
  auto made = make_();
  if (!made) return unexpected(made.error());
  life_.emplace(std::move(*made));
  walls_ = life_->locked_in_by();
  began_ns_ = now_ns;
  due_ns_ = INT64_MAX;
  return {};
}

bool supervised::step(std::int64_t now_ns) {
  if (life_) {
    const auto how = life_->poll();
    if (!how) return false;
    life_.reset();
    ended(*how, now_ns);
    return false;
  }
  if (now_ns < due_ns_) return false;
  ++restarts_;
  if (start(now_ns)) return true;
  // It could be started before: its program was taken away, or the machine is full.
  ended({.code = no_program}, now_ns);
  return false;
}

void supervised::ended(exit_status how, std::int64_t now_ns) {
  last_end_ = how;
  const bool again = when_ == restart::always || (when_ == restart::on_failure && !how.succeeded());
  if (!again) {
    give_up();
    return;
  }
  if (now_ns - began_ns_ >= settled_ns) pause_ns_ = pause_first_ns;
  due_ns_ = now_ns + pause_ns_;
  pause_ns_ = std::min(2 * pause_ns_, pause_max_ns);
}

void supervised::give_up() {
  when_ = restart::never;
  due_ns_ = INT64_MAX;
  if (!life_ && on_end) on_end();
}

void supervised::wait(deadline until) {
  if (!life_) return;
  static_cast<void>(life_->wait_for(std::chrono::nanoseconds(
      until.is_never() ? INT64_MAX : std::max<std::int64_t>(0, until.at_ns() - steady_ns()))));
  step(steady_ns());
}

void supervised::kill() {
  give_up();
  if (!life_) return;
  static_cast<void>(signal(SIGKILL));
  static_cast<void>(life_->wait());
  step(steady_ns());
}

result<void> supervised::signal(int number) const noexcept {
  if (!life_) return {};
  return life_->signal(number);
}

}  // namespace bus
