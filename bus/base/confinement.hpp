// Locking a child in: what it may still reach, and which walls of the kernel keep it from the rest.
//
// A wall is one facility of the kernel. Most ways out are closed by two of them, so that a kernel
// that lacks one, or whose administrator forbids it, still has the other one. What holds is known
// for each life of a child before its program runs, and a child that would have some kind of way
// out does not start (docs/design/0017-locked-in-children.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

namespace bus {

enum class wall : std::uint8_t {
  no_new_privileges,  // no setuid program gives it more than it has
  capabilities,       // it has none, even as root
  user_namespace,     // nothing outside obeys its capabilities, nor shows it what debuggers see
  mount_namespace,    // it sees the allowed files only
  network_namespace,  // it has no network, and no abstract sockets
  ipc_namespace,      // no System V memory, semaphores and queues but its own
  landlock,           // it opens the allowed files only; since ABI 6 it signals its own only
  seccomp,            // it makes the allowed system calls only
};
inline constexpr std::size_t wall_count = 8;

// What a locked-in child may still reach beside the descriptors that it was given (a directory
// among these leads to what is in it, so better give none). Paths are as we see them, relative ones
// to our working directory; links on their way are followed now.
struct confinement {
  // Files and trees that it may read and run. It always has its program, what the system brings
  // (/usr, /bin, /lib, what libc reads of /etc), a few harmless devices, /proc/self (that of the
  // child, for its own children as well), and an empty /tmp of 64 MiB where it has a mount
  // namespace.
  std::vector<std::string> reads = {};
  std::vector<std::string> writes = {};  // and that it may change as well
  // Of our environment, the variables that it gets by these names, and those that say where and in
  // what language it runs: PATH, HOME, USER, LOGNAME, SHELL, TERM, TZ, LANG, LANGUAGE, LC_*. Others
  // may be secrets. What child_plan::environment sets it gets in any case.
  std::vector<std::string> variables = {};
  bool even_if_open = false;  // start it also where the kernel cannot lock it in
  // Walls that are not tried, as if the kernel did not know them: for tests of the others.
  std::vector<wall> without = {};
};

// What a child says of its walls: for each the errno, or 0 where it holds.
struct wall_report {
  static constexpr int not_asked = -1;
  std::array<int, wall_count> errors = {not_asked, not_asked, not_asked, not_asked,
                                        not_asked, not_asked, not_asked, not_asked};
  int landlock_abi = 0;

  [[nodiscard]] int& of(wall one) noexcept { return errors[static_cast<std::size_t>(one)]; }
  [[nodiscard]] bool holds(wall one) const noexcept {
    return errors[static_cast<std::size_t>(one)] == 0;
  }
  [[nodiscard]] bool is_closed() const noexcept;
};

// Which walls hold, for one life of a child. A value.
class walls {
 public:
  walls() noexcept = default;  // of a child that is not locked in
  explicit walls(const wall_report& report) noexcept : report_(report) {}

  [[nodiscard]] bool holds(wall one) const noexcept { return report_.holds(one); }
  // What the kernel said of one that does not hold; no error for one that nobody asked for.
  [[nodiscard]] std::error_code why_not(wall one) const noexcept;
  // One line for people: "seccomp, Landlock (ABI 7), mount namespace; not: user namespace (...)".
  [[nodiscard]] std::string describe() const;
  // Whether each kind of way out is closed: files, network, other processes.
  [[nodiscard]] bool is_closed() const noexcept { return report_.is_closed(); }

 private:
  wall_report report_;
};

}  // namespace bus
