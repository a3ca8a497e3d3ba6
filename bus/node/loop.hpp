// The node on an event loop: Asio watches the bell's descriptors and the node's control descriptor,
// and calls the wheel when one is readable. Between events nothing runs and no system call is made.
//
// After an arrival the loop resumes who waited for it and looks again, a few times at once, since a
// handler that is posted costs the loop another look at all its descriptors; then by posting
// itself, so that other handlers of the same io_context get their turn.
#pragma once

#include "bus/node/core.hpp"

#include <memory>

#include <asio/awaitable.hpp>
#include <asio/io_context.hpp>

namespace bus {

// Drives a core from an io_context until destroyed. The context's thread is the node's thread; both
// must outlive the driver.
class loop_driver {
 public:
  loop_driver(core& driven, asio::io_context& context);
  ~loop_driver();
  loop_driver(const loop_driver&) = delete;
  loop_driver& operator=(const loop_driver&) = delete;

  // A turn as soon as the context runs, whether or not anything has called.
  void look();

 private:
  struct state;
  std::shared_ptr<state> state_;
};

// Wakes one coroutine on the node's loop: raise() before or during wait() ends it. A wait can be
// cancelled, as by asio's operator ||; it throws asio::error::operation_aborted then.
class loop_signal {
 public:
  explicit loop_signal(core& around) noexcept : around_(around) {}
  void raise();
  [[nodiscard]] asio::awaitable<void> wait(deadline until = deadline::never());

 private:
  template <class Handler>
  class waiter;

  core& around_;
  std::unique_ptr<resumable> waiting_;
  bool raised_ = false;
};

// Waits until the publisher has_room(), it has ended (false), or the deadline (false).
[[nodiscard]] asio::awaitable<bool> await_room(core& around, publication& source, deadline until);

}  // namespace bus
