// The node on an event loop: Asio watches the bell's descriptors and the node's control descriptor,
// and calls the wheel when one is readable. Between events nothing runs and no system call is made.
//
// After an arrival the loop looks again a few times before it arms the bell, by posting itself, so
// that other handlers of the same io_context get their turn.
#pragma once

#include "bus/node/core.hpp"

#include <memory>

#include <asio/awaitable.hpp>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>

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

// Wakes one coroutine on the node's loop: raise() before or during wait() ends it.
class loop_signal {
 public:
  explicit loop_signal(core& around);
  void raise();
  [[nodiscard]] asio::awaitable<void> wait();

 private:
  asio::steady_timer timer_;
  bool raised_ = false;
};

}  // namespace bus
