#include "bus/tool/session.hpp"

#include "transports/standard.hpp"

#include <csignal>
#include <exception>
#include <utility>

#include <asio/co_spawn.hpp>
#include <asio/steady_timer.hpp>

namespace bus::tool {

std::chrono::nanoseconds seconds(double value) noexcept {
  // Half the range, so that a deadline in the far future is still a time.
  constexpr double most = 4e9;
  if (!(value >= 0)) return std::chrono::nanoseconds(0);
  return std::chrono::nanoseconds(static_cast<std::int64_t>((value < most ? value : most) * 1e9));
}

session::session(const std::string& name, const common_options& where, signals how)
    : signals_(context_) {
  node_options options{.name = name, .transports = transports::standard()};
  options.directory = where.directory;
  options.waiting = wait_policy::sleep;
  options.context = &context_;
  node_ = std::make_unique<bus::node>(std::move(options));
  if (how == signals::are_watched) return;
  signals_.add(SIGINT);
  signals_.add(SIGTERM);
  signals_.async_wait([this](std::error_code failed, int) { interrupted_ = !failed; });
}

session::~session() {
  // While the node lingers nobody runs the loop; a second SIGINT ends us at once.
  std::error_code ignored;
  signals_.clear(ignored);
  node_.reset();
}

session::ending session::run(std::chrono::nanoseconds timeout, const std::function<bool()>& done) {
  // Shared, since a cancelled timer's handler may run when we have returned.
  const auto expired = std::make_shared<bool>(false);
  asio::steady_timer timer(context_);
  if (timeout != for_ever) {
    timer.expires_after(std::chrono::duration_cast<asio::steady_timer::duration>(timeout));
    timer.async_wait([expired](std::error_code failed) { *expired = !failed; });
  }
  while (!done()) {
    if (interrupted_) return ending::interrupted;
    if (*expired) return ending::timeout;
    context_.restart();
    context_.run_one();
  }
  return ending::done;
}

void session::start(asio::awaitable<void> work) {
  asio::co_spawn(context_, std::move(work), [](std::exception_ptr trouble) {
    if (trouble) std::rethrow_exception(trouble);
  });
}

void session::finish(asio::awaitable<void> work) {
  // Shared, since another handler may throw before it is done.
  const auto done = std::make_shared<bool>(false);
  asio::co_spawn(context_, std::move(work), [done](std::exception_ptr trouble) {
    *done = true;
    if (trouble) std::rethrow_exception(trouble);
  });
  while (!*done) {
    context_.restart();
    context_.run_one();
  }
}

}  // namespace bus::tool
