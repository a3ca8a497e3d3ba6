// The system calls that a locked-in child, and what it starts, may make: those that ordinary
// programs need and that reach nothing but themselves, their files and their descriptors.
//
// Two filters, of which the kernel obeys the stricter one: the first allows whole calls, or calls
// with certain arguments, and nothing else; the second takes certain arguments away from those.
// (libseccomp cannot say "any but these", and the kernel looks at 32 bits where a filter would
// compare 64.) Compiled in the parent, loaded by the child.
#pragma once

#include "bus/base/result.hpp"

#include <vector>

#include <linux/filter.h>
#include <sys/types.h>

namespace bus {

// What other walls leave for this one.
struct filter_needs {
  // No mount namespace: all paths lead somewhere, and Landlock knows only those that are opened. So
  // owners, modes, times and attributes of files cannot be changed.
  bool sees_all_paths = true;
  // No scope of signals (Landlock, ABI 6): the child signals itself and, by their handles, those
  // that it starts. These cannot even signal themselves, since the filter knows one process only.
  bool signals_all = true;
};

class seccomp_filter {
 public:
  // Errors: libseccomp's, no_memory.
  [[nodiscard]] static result<seccomp_filter> compile(const filter_needs& needs);

  // In the child, which can gain no privileges: for its thread and all that it starts. An errno,
  // or 0. `self` is the child.
  [[nodiscard]] int load(pid_t self) noexcept;

 private:
  std::vector<sock_filter> allowing_;
  std::vector<sock_filter> refusing_;
};

}  // namespace bus
