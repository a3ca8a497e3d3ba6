// Landlock: from then on, a process and what it starts open nothing but the files beneath some that
// were named, connect to no TCP port (ABI 4), and neither signal others nor connect to their
// abstract sockets (ABI 6). Descriptors that are open already are not asked about.
//
// It needs no rights, and cannot be undone. What it does not know: sockets by path, UDP, chmod(2)
// and whatever else changes or shows a file without opening it.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/result.hpp"

#include <cstdint>
#include <string>

namespace bus {

// How something may be reached.
enum class reach : std::uint8_t {
  lists,   // the names in a tree
  reads,   // read and run
  writes,  // and change
  device,  // a device: read and written, but neither moved nor removed
};

class landlock_rules {
 public:
  // Nothing is allowed yet. Errors: unsupported or ENOSYS (no Landlock here), the kernel's.
  [[nodiscard]] static result<landlock_rules> make();

  [[nodiscard]] int abi() const noexcept { return abi_; }
  [[nodiscard]] bool confines_signals() const noexcept { return abi_ >= 6; }
  // Lets this file, or what is in this tree, be reached so. The result is an errno, or 0: neither
  // this nor apply() allocates, so that a child may call them before it has become another program.
  [[nodiscard]] int allow(const char* path, reach how) noexcept;
  // For the calling thread, which can gain no privileges (PR_SET_NO_NEW_PRIVS).
  [[nodiscard]] int apply() noexcept;

 private:
  landlock_rules(fd&& rules, int abi) noexcept : rules_(std::move(rules)), abi_(abi) {}

  fd rules_;
  int abi_;
};

}  // namespace bus
