#include "bus/tool/onlooker.hpp"

#include <utility>

#include <sys/epoll.h>

#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

namespace bus::tool {

onlooker::onlooker(asio::io_context& context, int descriptor, std::uint32_t events)
    : group_(context) {
  fd made(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event wanted{};
  wanted.events = events;
  if (!made || ::epoll_ctl(made.get(), EPOLL_CTL_ADD, descriptor, &wanted) != 0) return;
  std::error_code refused;
  group_.assign(made.get(), refused);
  if (!refused) static_cast<void>(made.release());
}

void onlooker::call(std::function<void()> callback) {
  group_.async_wait(asio::posix::stream_descriptor::wait_read,
                    [callback = std::move(callback)](std::error_code failed) {
                      if (!failed) callback();
                    });
}

asio::awaitable<void> onlooker::wait() {
  std::error_code ignored;
  co_await group_.async_wait(asio::posix::stream_descriptor::wait_read,
                             asio::redirect_error(asio::use_awaitable, ignored));
}

}  // namespace bus::tool
