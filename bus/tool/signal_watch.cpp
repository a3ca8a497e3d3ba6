#include "bus/tool/signal_watch.hpp"

#include <array>
#include <cerrno>
#include <span>
#include <system_error>
#include <utility>

#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace bus::tool {
namespace {

constexpr std::array watched = {SIGINT,  SIGTERM,  SIGHUP,  SIGQUIT, SIGUSR1,
                                SIGUSR2, SIGWINCH, SIGTSTP, SIGCONT};

fd copy_of(const fd& one) {
  auto copy = one.duplicate();
  if (!copy) throw std::system_error(copy.error(), "no descriptors left");
  return std::move(*copy);
}

}  // namespace

signal_block::signal_block() {
  sigset_t all;
  ::sigemptyset(&all);
  for (const int number : watched) ::sigaddset(&all, number);
  handle_ = fd(::signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!handle_) throw std::system_error(last_system_error(), "no descriptors left");
  ::pthread_sigmask(SIG_BLOCK, &all, &before_);
}

signal_block::~signal_block() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

signal_watch::signal_watch(const signal_block& blocked, session& joined,
                           std::function<void(const signal_news&)> callback)
    : events_(joined.context(), copy_of(blocked.handle())), callback_(std::move(callback)) {
  joined.start(read_all());
}

bool signal_watch::is_ending(int number) noexcept {
  return number == SIGINT || number == SIGTERM || number == SIGHUP || number == SIGQUIT;
}

asio::awaitable<void> signal_watch::read_all() {
  signalfd_siginfo one{};
  const auto bytes = std::as_writable_bytes(std::span(&one, 1));
  while (co_await events_.read_some(bytes) == sizeof one) {
    const int number = static_cast<int>(one.ssi_signo);
    callback_({.number = number, .is_for_group = one.ssi_code == SI_KERNEL});
    if (number == SIGTSTP) ::raise(SIGSTOP);
  }
}

int die_of(int number) noexcept {
  const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  struct sigaction usual {};
  usual.sa_handler = SIG_DFL;
  ::sigaction(number, &usual, nullptr);
  sigset_t one;
  ::sigemptyset(&one);
  ::sigaddset(&one, number);
  ::pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
  ::raise(number);
  return 128 + number;
}

}  // namespace bus::tool
