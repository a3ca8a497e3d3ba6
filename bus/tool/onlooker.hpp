// Watches a descriptor that is not ours alone: our standard input and output, which the shell and
// our neighbours in a pipeline share, or a child's pidfd. Asio would make it non-blocking, for all
// who share it; so it is given to an epoll instance, and Asio gets that.
#pragma once

#include "bus/base/fd.hpp"

#include <cstdint>
#include <functional>

#include <asio/awaitable.hpp>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>

namespace bus::tool {

class onlooker {
 public:
  // `events` of epoll(7), beside those that it always tells of: errors, and that the other end has
  // gone. Does not own the descriptor, which outlives it.
  onlooker(asio::io_context& context, int descriptor, std::uint32_t events);

  // False: there is nothing to wait for, as of a file, which is always readable.
  [[nodiscard]] bool is_able() const { return group_.is_open(); }
  // Calls back once, when one of the events is there. Requires: is_able().
  void call(std::function<void()> callback);
  // The same, for a coroutine.
  [[nodiscard]] asio::awaitable<void> wait();

 private:
  asio::posix::stream_descriptor group_;
};

}  // namespace bus::tool
