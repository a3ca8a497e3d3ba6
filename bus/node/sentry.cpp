#include "bus/node/sentry.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <system_error>
#include <utility>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace bus {

result<std::unique_ptr<sentry>> sentry::post(int descriptor, bell& doorbell) {
  std::unique_ptr<sentry> made(new sentry(descriptor, doorbell));
  made->stop_ = fd(::eventfd(0, EFD_CLOEXEC));
  if (!made->stop_) return unexpected(last_system_error());
  // All signals blocked while the thread is born, so that it never runs the application's handlers.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::error_code failed;
  try {
    made->thread_ = std::thread([post = made.get()] { post->stand(); });
  } catch (const std::system_error& trouble) {
    failed = trouble.code();
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (failed) return unexpected(failed);
  return made;
}

sentry::~sentry() {
  if (!thread_.joinable()) return;
  stopping_.store(true, std::memory_order_release);  // pairs with: stand, acquire
  const std::uint64_t one = 1;
  static_cast<void>(!::write(stop_.get(), &one, sizeof one));
  lower();
  thread_.join();
}

void sentry::looked(bool found) noexcept {
  const std::int64_t now_ns = steady_ns();
  if (found && now_ns - std::exchange(found_ns_, now_ns) < soon_ns) {
    rests_until_ns_ = now_ns + rest_ns;
  } else {
    back_to_post();
  }
}

void sentry::lower() noexcept {
  // Release pairs with: stand, the wait on raised_.
  if (raised_.exchange(0, std::memory_order_acq_rel) != 0) raised_.notify_one();
}

void sentry::stand() noexcept {
  std::array<pollfd, 2> watched{{{descriptor_, POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
  while (!stopping_.load(std::memory_order_acquire)) {
    const int ready = ::poll(watched.data(), watched.size(), -1);
    if (ready < 0 && errno != EINTR) return;
    if (ready <= 0 || watched[1].revents != 0) continue;
    raised_.store(1, std::memory_order_release);
    static_cast<void>(doorbell_.ring());
    // A stop that came just before the store above has not lowered the flag; look again.
    if (stopping_.load(std::memory_order_acquire)) return;
    raised_.wait(1, std::memory_order_acquire);
  }
}

}  // namespace bus
