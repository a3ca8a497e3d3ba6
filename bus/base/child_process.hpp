// A child process: a program, with the descriptors that it is given and no others. It is watched
// and signalled through a pidfd, so that whoever has its number after it is never taken for it.
//
//   running --(ends)--> ended: handle() is readable --(poll)--> known: its number is free
//
// A child may be bound to us: the kernel kills it when we are gone, however we went. The kernel
// looks at the *thread* that started the child, and not at the process, so bound children are
// started by one thread that lives as long as the process does.
#pragma once

#include "bus/base/confinement.hpp"
#include "bus/base/fd.hpp"
#include "bus/base/result.hpp"

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace bus {

// How a process ended.
struct exit_status {
  int code = 0;    // its exit code, unless a signal ended it
  int signal = 0;  // which one; 0: none

  [[nodiscard]] bool succeeded() const noexcept { return code == 0 && signal == 0; }
  // As a shell says it, in `$?`.
  [[nodiscard]] int as_code() const noexcept { return signal == 0 ? code : 128 + signal; }
  // "ended with 3", "was killed by signal 9 (Killed)".
  [[nodiscard]] std::string describe() const;
  friend bool operator==(const exit_status&, const exit_status&) = default;
};

struct child_plan {
  // Program and arguments. A name without a slash is looked for in $PATH, and a file that the
  // kernel cannot run is given to /bin/sh, both as by execvp(3).
  std::vector<std::string> command;
  // "NAME=value" beside and before our own; of these a confined one gets those that it is allowed.
  std::vector<std::string> environment = {};
  // Descriptor of ours, and the child's number for it. Not owned. Standard input, output and error
  // are ours if they are not named.
  std::vector<std::pair<int, int>> descriptors = {};
  // Whether the child gets none but these. Else it also gets those of ours that are not
  // close-on-exec, as by exec(3).
  bool closes_others = true;
  bool is_bound = true;  // it is killed when we are gone
  // Locks it in: beside the descriptors that it is given (closes_others does not matter), it has no
  // way out. Its program is looked for outside.
  std::optional<confinement> confined = {};
};

class child_process {
 public:
  // Returns once the program runs. Signals: none is blocked in it, those that we handle have their
  // default effect, and so has SIGPIPE; what else we ignore it ignores. It may run where the
  // calling thread may, and is as nice. Errors: of exec(3), such as ENOENT (no such program) or
  // denied; no_memory, EAGAIN (a limit on processes) or another of the kernel's. Of one that is
  // confined: open_walls (the kernel leaves it a way out), not_found (a path that it is allowed is
  // not there), invalid_argument (such a path is all of the file system). Nothing runs then. Any
  // thread.
  [[nodiscard]] static result<child_process> start(const child_plan& plan);
  child_process(child_process&&) noexcept = default;
  child_process& operator=(child_process&& other) noexcept;
  // A child that still runs is killed, and waited for; not by a forked copy of us.
  ~child_process();

  // For people: use signal() to signal it.
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  // What keeps it in. Nothing, if it was not confined.
  [[nodiscard]] const walls& locked_in_by() const noexcept { return walls_; }
  // Readable when it has ended. Ours.
  [[nodiscard]] int handle() const noexcept { return handle_.get(); }
  // Its end, once it has ended. Does not block.
  [[nodiscard]] std::optional<exit_status> poll() noexcept;
  // Waits for its end.
  exit_status wait() noexcept;
  // The same for so long at the most; nothing: it still runs.
  [[nodiscard]] std::optional<exit_status> wait_for(std::chrono::nanoseconds within) noexcept;
  // Sends a signal, unless it has ended. Errors: the kernel's (denied: it runs as another user).
  result<void> signal(int number) const noexcept;

 private:
  child_process(fd&& handle, pid_t pid, const walls& held) noexcept;
  [[nodiscard]] std::optional<exit_status> reap(int options) noexcept;
  void end() noexcept;

  fd handle_;
  pid_t pid_ = -1;
  pid_t parent_ = -1;
  std::optional<exit_status> status_;
  walls walls_;
};

}  // namespace bus
