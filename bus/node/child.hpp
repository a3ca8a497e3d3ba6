// Children of a node: programs that it starts and looks after.
//
//   auto worker = bus::spawn(node, {"./worker", "--fast"}, {.restarts = bus::restart::on_failure});
//   const auto how = worker.wait(1min);             blocking: turns the node
//   const auto how = co_await worker.ended();       a coroutine on the node's event loop
//   worker.stop(5s);                                SIGTERM, and SIGKILL after five seconds
//
// A child that makes a node finds us by itself: in our bus directory, and over a pair of pipes that
// it gets beside our standard streams (transports/pipe). It gets no other descriptor. It ends with
// us, however we end, unless it is told otherwise.
#pragma once

#include "bus/node/allow.hpp"
#include "bus/node/node.hpp"
#include "bus/node/supervised.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace bus {

struct spawn_options {
  restart restarts = restart::never;
  // Whether it finds our bus directory. Else it meets us and nobody else: over its pipes, which
  // take transports::pipe() in our bill and in its own.
  bool shares_directory = true;
  // Locks it in: it meets nobody but us, whatever it tries, and we pass on what is allowed to it.
  // It shares no directory then, and reaches no file, network or process beyond what allow says; a
  // kernel that cannot see to that starts nothing.
  std::optional<allow> sandbox = {};
  // Killed by the kernel when we are gone. Its own children are not: they are its affair.
  bool is_bound = true;
  // "NAME=value", beside and before our own; of these a locked-in child gets allow::variables.
  std::vector<std::string> environment = {};
  // Descriptors of ours, and the child's numbers for them; not owned, and needed as long as the
  // child may be started again.
  std::vector<std::pair<int, int>> descriptors = {};
};

// What was passed on for a child that is locked in, in its life now, or in its last one.
struct relay_accounts {
  std::uint64_t out = 0;  // messages of its publishers
  std::uint64_t in = 0;   // messages to its subscriptions
  // That it wished to publish, or to subscribe to, and may not; and messages that it sent all the
  // same.
  std::uint64_t refused_topics = 0;
  std::uint64_t refused_patterns = 0;
  std::uint64_t refused_messages = 0;
};

// The handle of a child. It belongs to its node's thread, and the node must outlive it. Destroyed,
// it kills the child, if that still runs, and waits for its end.
class child {
 public:
  child(core& around, std::shared_ptr<supervised> one) noexcept
      : core_(&around), one_(std::move(one)) {}
  child(child&& other) noexcept
      : core_(std::exchange(other.core_, nullptr)), one_(std::move(other.one_)) {}
  child& operator=(child&& other) noexcept {
    std::swap(core_, other.core_);
    std::swap(one_, other.one_);
    return *this;
  }
  ~child() {
    if (core_) core_->let_go(one_);
  }

  // -1 while it rests between two lives, and when it is over.
  [[nodiscard]] pid_t pid() const noexcept { return one_->life() ? one_->life()->pid() : -1; }
  // How often it was started again.
  [[nodiscard]] std::uint64_t restarts() const noexcept { return one_->restarts(); }
  // How its last life ended, whether or not another follows.
  [[nodiscard]] std::optional<exit_status> last_end() const noexcept { return one_->last_end(); }
  // How it ended for good. Nothing: it has not, in so long. Turns the node.
  [[nodiscard]] std::optional<exit_status> wait(std::chrono::nanoseconds timeout) {
    return core_->wait_end(*one_, deadline::after(timeout));
  }
  // The same, for one coroutine at a time on the node's event loop. The handle must outlive it.
  [[nodiscard]] asio::awaitable<exit_status> ended();
  // Which walls of the kernel keep it in; none, if it is not locked in.
  [[nodiscard]] const walls& locked_in_by() const noexcept { return one_->locked_in_by(); }
  // All zero, and none, for a child that is not locked in.
  [[nodiscard]] relay_accounts relayed() const noexcept;
  // One line for each thing that it may not, as `bus why` has it; some of them, if they are many.
  [[nodiscard]] std::vector<std::string> refusals() const;
  // Sends it a signal, if it runs. Errors: denied (it runs as another user).
  result<void> signal(int number) noexcept { return one_->signal(number); }
  // Asks it to end (SIGTERM), kills it if it has not after `grace`, and never starts it again. How
  // it ended. Turns the node meanwhile.
  exit_status stop(std::chrono::nanoseconds grace);
  // The same, for a coroutine.
  [[nodiscard]] asio::awaitable<exit_status> stopped(std::chrono::nanoseconds grace);

 private:
  core* core_;
  std::shared_ptr<supervised> one_;
};

// Starts `command`, program and arguments. Throws bus::error, whose text names the program and what
// to do, if it cannot be started.
[[nodiscard]] child spawn(node& around, std::vector<std::string> command,
                          spawn_options options = {});

}  // namespace bus
