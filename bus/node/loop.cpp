#include "bus/node/loop.hpp"

#include "bus/node/error.hpp"

#include <array>
#include <chrono>
#include <utility>
#include <vector>

#include <fcntl.h>

#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

namespace bus {
namespace {

constexpr std::size_t budget_per_turn = 256;

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

  // One turn now; and another, posted, as long as there is something to do.
  void turn() {
    if (!driven) return;
    if (driven->pump(budget_per_turn) == 0) {
      const bool spins = driven->options().waiting == wait_policy::spin ||
                         (driven->options().waiting == wait_policy::spin_then_sleep && spin());
      if (!spins) {
        spinning_until_ns = 0;
        if (driven->arm_for_descriptors()) return;
      }
    } else {
      spinning_until_ns = 0;
    }
    post_turn();
  }

  // At most one is posted, however often this is called.
  void post_turn() {
    if (std::exchange(posted, true)) return;
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

loop_signal::loop_signal(core& around)
    : timer_(*around.options().context, std::chrono::steady_clock::time_point::max()) {}

void loop_signal::raise() {
  raised_ = true;
  timer_.cancel();
}

asio::awaitable<void> loop_signal::wait() {
  std::error_code cancelled;
  while (!std::exchange(raised_, false)) {
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
  }
}

}  // namespace bus
