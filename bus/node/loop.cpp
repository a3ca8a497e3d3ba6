#include "bus/node/loop.hpp"

#include "bus/node/error.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <fcntl.h>

#include <asio/associated_cancellation_slot.hpp>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/dispatch.hpp>
#include <asio/error.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

namespace bus {
namespace {

constexpr std::size_t budget_per_turn = 256;
// Turns in a row before others get theirs.
constexpr unsigned turns_at_once = 8;

}  // namespace

// Shared with the handlers in flight, which find `driven` empty after the driver is gone.
struct loop_driver::state : std::enable_shared_from_this<loop_driver::state> {
  state(core& wheel, asio::io_context& on) : driven(&wheel), context(on) {}

  // Asio closes what it is given: it gets a copy.
  void watch(int descriptor, bool is_bell) {
    if (descriptor < 0) return;
    const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) throw error(last_system_error(), "no descriptors left for the node's event loop");
    watched.push_back({asio::posix::stream_descriptor(context, copy), descriptor, is_bell});
  }

  void listen(std::size_t which) {
    watched[which].descriptor.async_wait(
        asio::posix::stream_descriptor::wait_read,
        [self = shared_from_this(), which](std::error_code failed) {
          if (failed || !self->driven) return;
          self->called(which);
        });
  }

  void called(std::size_t which) {
    if (watched[which].is_bell) {
      driven->answer_bell(watched[which].original);
    } else {
      driven->attend();
    }
    listen(which);
    turn();
  }

  // Some turns now; and another, posted, as long as there is something to do.
  void turn() {
    for (unsigned turns = 0; driven && turns < turns_at_once; ++turns) {
      driven->begin_turn();
      const std::size_t came = driven->pump(budget_per_turn);
      // A coroutine that goes on may end the node.
      driven->end_turn();
      if (!driven) return;
      if (came != 0) {
        spinning_until_ns = 0;
        continue;
      }
      const bool spins = driven->options().waiting == wait_policy::spin ||
                         (driven->options().waiting == wait_policy::spin_then_sleep && spin());
      if (spins) break;
      spinning_until_ns = 0;
      if (driven->arm_for_descriptors()) return;
    }
    post_turn();
  }

  // At most one is posted, however often this is called.
  void post_turn() {
    if (!driven || std::exchange(posted, true)) return;
    asio::post(context, [self = shared_from_this()] {
      self->posted = false;
      self->turn();
    });
  }

  bool spin() {
    const std::int64_t now = steady_ns();
    if (spinning_until_ns == 0) spinning_until_ns = now + driven->options().spin.count();
    return now < spinning_until_ns;
  }

  struct watch_point {
    asio::posix::stream_descriptor descriptor;
    int original;
    bool is_bell;
  };
  core* driven;
  asio::io_context& context;
  std::vector<watch_point> watched;
  bool posted = false;
  std::int64_t spinning_until_ns = 0;
};

loop_driver::loop_driver(core& driven, asio::io_context& context)
    : state_(std::make_shared<state>(driven, context)) {
  state_->watch(driven.control_handle(), false);
  for (const int descriptor : driven.doorbell().descriptors()) state_->watch(descriptor, true);
  for (std::size_t i = 0; i < state_->watched.size(); ++i) state_->listen(i);
  look();
}

void loop_driver::look() { state_->post_turn(); }

loop_driver::~loop_driver() {
  state_->driven = nullptr;
  for (auto& one : state_->watched) {
    std::error_code ignored;
    one.descriptor.close(ignored);
  }
}

void core::resume_soon(std::unique_ptr<resumable> one) {
  if (in_turn_) {
    ready_.push_back(std::move(one));
    return;
  }
  asio::post(*options_.context, [one = std::move(one)] { one->resume({}); });
}

void core::end_turn() {
  in_turn_ = false;
  if (ready_.empty()) return;
  std::exception_ptr trouble;
  // Whoever goes on may end the node, and this with it.
  for (const auto& one : std::exchange(ready_, {})) {
    try {
      one->resume({});
    } catch (...) {
      if (!trouble) trouble = std::current_exception();
    }
  }
  if (trouble) std::rethrow_exception(trouble);
}

template <class Handler>
class loop_signal::waiter final : public resumable {
 public:
  explicit waiter(Handler handler) noexcept : handler_(std::move(handler)) {}
  void resume(std::error_code why) override {
    asio::get_associated_cancellation_slot(handler_).clear();
    const auto where = asio::get_associated_executor(handler_);
    asio::dispatch(where, [handler = std::move(handler_), why]() mutable { handler(why); });
  }

 private:
  Handler handler_;
};

void loop_signal::raise() {
  raised_ = true;
  if (waiting_) around_.resume_soon(std::move(waiting_));
}

asio::awaitable<void> loop_signal::wait(deadline until) {
  // Most wait for ever; a timer costs two system calls.
  const auto here = std::make_shared<int>(0);  // as long as we wait
  std::optional<asio::steady_timer> timer;
  if (!until.is_never() && !raised_) {
    using clock = std::chrono::steady_clock;
    timer.emplace(*around_.options().context,
                  clock::time_point(std::chrono::nanoseconds(until.at_ns())));
    timer->async_wait([this, still = std::weak_ptr(here)](std::error_code failed) {
      if (failed || still.expired()) return;
      if (auto one = std::move(waiting_)) one->resume({});
    });
  }
  while (!raised_ && !until.passed()) {
    co_await asio::async_initiate<const asio::use_awaitable_t<>, void(std::error_code)>(
        [this](auto handler) {
          auto slot = asio::get_associated_cancellation_slot(handler);
          waiting_ = std::make_unique<waiter<decltype(handler)>>(std::move(handler));
          if (!slot.is_connected()) return;
          slot.assign([this](asio::cancellation_type) {
            if (auto one = std::move(waiting_)) one->resume(asio::error::operation_aborted);
          });
        },
        asio::use_awaitable);
  }
  raised_ = false;
}

asio::awaitable<bool> await_room(core& around, publication& source, deadline until) {
  loop_signal stirred(around);
  // The publisher may end meanwhile, and even the node: then only this is looked at.
  const auto wait = around.expect_room(source, [&stirred] { stirred.raise(); });
  while (wait->source && !around.has_room(*wait->source)) {
    if (until.passed()) co_return false;
    co_await stirred.wait(std::min(until, around.next_lapse(*wait->source)));
  }
  co_return wait->source != nullptr;
}

}  // namespace bus
