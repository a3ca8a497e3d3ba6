#include "bus/tool/stream_end.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <asio/post.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

namespace bus::tool {
namespace {

// Larger ones make copies slower, since they leave the cache: docs/design/0015. A user who has many
// gets smaller ones.
constexpr int pipe_bytes = 256 << 10;

}  // namespace

result<pipe_ends> make_wide_pipe() noexcept {
  auto made = make_pipe();
  if (made) static_cast<void>(::fcntl(made->writer.get(), F_SETPIPE_SZ, pipe_bytes));
  return made;
}

stream_end::stream_end(asio::io_context& context, fd&& end)
    : context_(context), end_(context, end.get()), patience_(context) {
  static_cast<void>(end.release());
  end_.non_blocking(true);
}

asio::awaitable<void> stream_end::passed_on(std::size_t bytes) {
  passed_ += bytes;
  owed_ -= std::min(owed_, bytes);
  if (++calls_ % calls_at_once == 0) co_await asio::post(context_, asio::use_awaitable);
}

asio::awaitable<std::size_t> stream_end::read_some(std::span<std::byte> into) {
  while (end_.is_open()) {
    if (is_late_ && owed_ == 0) {
      pollfd state{.fd = end_.native_handle(), .events = POLLIN, .revents = 0};
      held_ = ::poll(&state, 1, 0) >= 0 && (state.revents & POLLHUP) == 0;
      break;
    }
    const std::size_t most = is_late_ ? std::min(into.size(), owed_) : into.size();
    const ssize_t got = ::read(end_.native_handle(), into.data(), most);
    if (got > 0) {
      co_await passed_on(static_cast<std::size_t>(got));
      co_return static_cast<std::size_t>(got);
    }
    if (got < 0 && errno == EINTR) continue;
    if (got == 0 || errno != EAGAIN) break;
    std::error_code ignored;
    co_await end_.async_wait(asio::posix::stream_descriptor::wait_read,
                             asio::redirect_error(asio::use_awaitable, ignored));
  }
  co_return 0;
}

asio::awaitable<bool> stream_end::write_all(std::span<const std::byte> bytes) {
  while (end_.is_open()) {
    if (bytes.empty()) co_return true;
    const ssize_t put = ::write(end_.native_handle(), bytes.data(), bytes.size());
    if (put >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(put));
      co_await passed_on(static_cast<std::size_t>(put));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) break;
    std::error_code ignored;
    co_await end_.async_wait(asio::posix::stream_descriptor::wait_write,
                             asio::redirect_error(asio::use_awaitable, ignored));
  }
  co_return false;
}

void stream_end::close() {
  std::error_code ignored;
  end_.close(ignored);
}

std::size_t stream_end::in_pipe() {
  int bytes = 0;
  if (!end_.is_open() || ::ioctl(end_.native_handle(), FIONREAD, &bytes) != 0) return 0;
  return static_cast<std::size_t>(bytes);
}

void stream_end::owe(std::chrono::nanoseconds patience) {
  owed_ = in_pipe();
  patience_.expires_after(std::chrono::duration_cast<asio::steady_timer::duration>(patience));
  patience_.async_wait([this](std::error_code failed) {
    if (failed || !end_.is_open()) return;
    is_late_ = true;
    end_.cancel();
  });
}

}  // namespace bus::tool
