// Forked children, which are this program still: how they end with it, however it ends, and how
// their end is waited for. Other programs are started by bus/base/child_process.hpp.
#pragma once

#include "bus/base/fd.hpp"

#include <algorithm>
#include <chrono>
#include <climits>
#include <csignal>
#include <stdexcept>
#include <utility>

#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bus::tool {

// A pipe whose near end only the parent has, so that the kernel closes it with the parent. Nothing
// is ever written.
class lifeline {
 public:
  // Throws std::runtime_error when no descriptors are left.
  lifeline() {
    auto made = make_pipe();
    if (!made) throw std::runtime_error("no descriptors left");
    far_ = std::move(made->reader);
    near_ = std::move(made->writer);
  }
  // For a forked child, first of all: the kernel kills it when the thread that made it ends. False:
  // that has ended already, and the child should, too.
  [[nodiscard]] bool hold() noexcept {
    near_.reset();
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    pollfd parent{.fd = far_.get(), .events = 0, .revents = 0};
    return ::poll(&parent, 1, 0) == 0;
  }

 private:
  fd far_;
  fd near_;
};

// Waits for the end of a child that is about to end by itself; after `within` it is killed.
inline void reap(pid_t child, std::chrono::milliseconds within) noexcept {
  const fd handle(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  pollfd end{.fd = handle.get(), .events = POLLIN, .revents = 0};
  const int timeout_ms = static_cast<int>(std::clamp<std::int64_t>(within.count(), 0, INT_MAX));
  if (!handle || ::poll(&end, 1, timeout_ms) != 1) ::kill(child, SIGKILL);
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace bus::tool
