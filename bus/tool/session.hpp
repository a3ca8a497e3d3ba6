// Our own node, for the verbs that take part: on an event loop of its own, so that messages,
// timers, standard input and SIGINT are all events, and an idle tool costs nothing.
#pragma once

#include "bus/node/node.hpp"
#include "bus/tool/verb.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <asio/awaitable.hpp>
#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>

namespace bus::tool {

// How long a verb without --timeout waits: for ever.
inline constexpr std::chrono::nanoseconds for_ever = std::chrono::nanoseconds::max();
[[nodiscard]] std::chrono::nanoseconds seconds(double value) noexcept;

class session {
 public:
  // Who looks after SIGINT and SIGTERM: they end run(), or somebody else does (signal_watch).
  enum class signals : std::uint8_t { end_it, are_watched };
  // `name` is how others see us. Throws bus::error.
  session(const std::string& name, const common_options& where, signals how = signals::end_it);
  // Lingers as a node does, up to two seconds, so that what was published is delivered.
  ~session();
  session(const session&) = delete;
  session& operator=(const session&) = delete;

  [[nodiscard]] bus::node& node() noexcept { return *node_; }
  [[nodiscard]] core& inside() noexcept { return node_->inside(); }
  [[nodiscard]] asio::io_context& context() noexcept { return context_; }

  enum class ending { done, timeout, interrupted };
  // Turns everything until done(), which is asked after each event. Rethrows what a callback threw.
  ending run(std::chrono::nanoseconds timeout, const std::function<bool()>& done);
  // Starts it; what it throws comes out of run() or finish().
  void start(asio::awaitable<void> work);
  // Turns everything until the work is done, interrupted or not. Rethrows what it threw.
  void finish(asio::awaitable<void> work);
  // SIGINT or SIGTERM has come.
  [[nodiscard]] bool interrupted() const noexcept { return interrupted_; }

 private:
  asio::io_context context_{1};
  asio::signal_set signals_;
  bool interrupted_ = false;
  std::unique_ptr<bus::node> node_;
};

}  // namespace bus::tool
