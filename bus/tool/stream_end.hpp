// Our end of a pipe to a program, on the event loop. Never blocks: who reads or writes waits in a
// coroutine. For one coroutine at a time; close() may come from anywhere, and ends its wait.
//
// A program that has ended may have left somebody behind who holds its output open. What it wrote
// itself is read in any case; owe() says how much that is, and how long for the others.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/result.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include <asio/awaitable.hpp>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>

namespace bus::tool {

// A new pipe, as large as we may have it. Errors: the kernel's.
[[nodiscard]] result<pipe_ends> make_wide_pipe() noexcept;

class stream_end {
 public:
  // Takes the descriptor, and makes it non-blocking.
  stream_end(asio::io_context& context, fd&& end);

  // How many bytes were read, at least one; 0: the stream is over, or was closed.
  [[nodiscard]] asio::awaitable<std::size_t> read_some(std::span<std::byte> into);
  // False: nobody reads any more, or it was closed. How far it came: see passed().
  [[nodiscard]] asio::awaitable<bool> write_all(std::span<const std::byte> bytes);
  void close();
  [[nodiscard]] bool is_open() const { return end_.is_open(); }

  // Bytes read or written so far.
  [[nodiscard]] std::uint64_t passed() const noexcept { return passed_; }
  // Bytes that are in the pipe.
  [[nodiscard]] std::size_t in_pipe();

  // From now on read_some() gives what is in the pipe, and what comes within `patience`.
  void owe(std::chrono::nanoseconds patience);
  // It was over before its end, since somebody still holds the pipe.
  [[nodiscard]] bool is_held() const noexcept { return held_; }

 private:
  // Others on the loop get their turn after so many calls that did not have to wait.
  static constexpr unsigned calls_at_once = 8;
  [[nodiscard]] asio::awaitable<void> passed_on(std::size_t bytes);

  asio::io_context& context_;
  asio::posix::stream_descriptor end_;
  asio::steady_timer patience_;
  std::uint64_t passed_ = 0;
  unsigned calls_ = 0;
  std::size_t owed_ = 0;  // of what was in the pipe when owe() was called
  bool is_late_ = false;  // patience is over: only what is owed
  bool held_ = false;
};

}  // namespace bus::tool
