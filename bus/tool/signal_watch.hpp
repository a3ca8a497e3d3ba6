// The signals that a program which wraps another one gets, as events. They are blocked in this
// process and read from a descriptor, which says where each came from: what a terminal sends, it
// sends to the whole foreground process group, so that the wrapped program has it already; what
// somebody sends to us alone is to be passed on.
#pragma once

#include "bus/tool/session.hpp"
#include "bus/tool/stream_end.hpp"

#include <csignal>
#include <functional>

namespace bus::tool {

// Blocks them: SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGTSTP, SIGCONT. Made
// before the session, whose threads are to have them blocked, too. Afterwards they have their usual
// effect again, at once if one has come meanwhile.
class signal_block {
 public:
  // Throws std::system_error.
  signal_block();
  ~signal_block();
  signal_block(const signal_block&) = delete;
  signal_block& operator=(const signal_block&) = delete;
  // Readable when one has come, signalfd(2).
  [[nodiscard]] const fd& handle() const noexcept { return handle_; }

 private:
  sigset_t before_{};
  fd handle_;
};

struct signal_news {
  int number;
  bool is_for_group;  // the kernel sent it, to the foreground process group
};

class signal_watch {
 public:
  // Calls back for each signal as the session turns. When we were asked to stop ourselves
  // (SIGTSTP), it is done after the callback. Throws std::system_error.
  signal_watch(const signal_block& blocked, session& joined,
               std::function<void(const signal_news&)> callback);

  // Whether it asks a program to end.
  [[nodiscard]] static bool is_ending(int number) noexcept;

 private:
  [[nodiscard]] asio::awaitable<void> read_all();

  stream_end events_;
  std::function<void(const signal_news&)> callback_;
};

// Dies of the signal of which a program died that we stood for, so that whoever waits for us sees
// it (a shell ends its script after SIGINT). Leaves no core file. Returns 128 + number where we
// cannot die of it (process 1 of a container).
[[nodiscard]] int die_of(int number) noexcept;

}  // namespace bus::tool
