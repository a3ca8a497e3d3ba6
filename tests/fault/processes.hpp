// Real processes for tests that kill them. A child runs its body and ends with _exit: 0 if the body
// returned, 1 if it threw (and it prints what); it never touches Catch, and dies with its parent.
#pragma once

#include "tests/contract/world.hpp"

#include <csignal>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace fault {

// Words between parent and child, one message each.
class channel {
 public:
  explicit channel(bus::fd socket) noexcept : socket_(std::move(socket)) {}

  void say(std::uint64_t word) const {
    contract::must(::send(socket_.get(), &word, sizeof word, MSG_NOSIGNAL) == sizeof word,
                   "channel: nobody listens");
  }
  // Waits for the next word; throws if there is none in time, or ever.
  [[nodiscard]] std::uint64_t hear(std::chrono::nanoseconds within = contract::patience) const {
    pollfd one{socket_.get(), POLLIN, 0};
    const auto until = bus::deadline::after(within);
    while (::poll(&one, 1, contract::timeout_ms(until)) < 0 && errno == EINTR) {
    }
    std::uint64_t word = 0;
    contract::must(::recv(socket_.get(), &word, sizeof word, MSG_DONTWAIT) == sizeof word,
                   "channel: nothing was said");
    return word;
  }
  [[nodiscard]] const bus::fd& socket() const noexcept { return socket_; }
  [[nodiscard]] bool has_news() const {
    pollfd one{socket_.get(), POLLIN, 0};
    return ::poll(&one, 1, 0) == 1;
  }
  // A descriptor for an event loop, which closes it.
  [[nodiscard]] int duplicate() const { return ::fcntl(socket_.get(), F_DUPFD_CLOEXEC, 0); }

 private:
  bus::fd socket_;
};

class child {
 public:
  using body = std::function<void(channel&)>;

  explicit child(const body& what) : pipe_(bus::fd()) {
    int ends[2];
    contract::must(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0,
                   "socketpair");
    bus::fd ours(ends[0]);
    bus::fd theirs(ends[1]);
    std::fflush(nullptr);
    id_ = ::fork();
    contract::must(id_ >= 0, "fork");
    if (id_ == 0) {
      ours.reset();
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::_exit(run(what, channel(std::move(theirs))));
    }
    pipe_ = channel(std::move(ours));
  }
  child(const child&) = delete;
  child& operator=(const child&) = delete;
  ~child() {
    if (id_ > 0) {
      ::kill(id_, SIGKILL);
      static_cast<void>(wait());
    }
  }

  // Runs a body here and returns the exit status for it.
  static int run(const body& what, channel parent) noexcept {
    try {
      what(parent);
      return 0;
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "child %d: %s\n", ::getpid(), failure.what());
      return 1;
    }
  }

  void kill() { ::kill(id_, SIGKILL); }
  // Waits for its end. The exit status, or minus the signal that killed it.
  [[nodiscard]] int wait() {
    int status = 0;
    while (::waitpid(id_, &status, 0) < 0 && errno == EINTR) {
    }
    id_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  [[nodiscard]] channel& pipe() noexcept { return pipe_; }
  [[nodiscard]] pid_t id() const noexcept { return id_; }

 private:
  pid_t id_ = -1;
  channel pipe_;
};

}  // namespace fault
