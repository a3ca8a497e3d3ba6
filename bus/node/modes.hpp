// What a node makes in the bus directory has exactly the mode that the directory asks for, whatever
// the umask: in a private directory nothing is for anybody else, in a group's (setgid 2770) the
// group reads files, and writes where it must. The umask only takes away, and only for the moment
// between making and correcting; it is never changed, since threads share it.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/result.hpp"

#include <sys/types.h>

namespace bus {

struct modes {
  mode_t file;       // 0600 or 0640
  mode_t pipe;       // 0600 or 0660
  mode_t directory;  // 0700 or 2770
};
// Errors: the kernel's.
[[nodiscard]] result<modes> modes_in(int directory) noexcept;

// A new file, open for reading and writing. Errors: exists as EEXIST, no_space, or the kernel's.
[[nodiscard]] result<fd> create_file(int directory, const char* name) noexcept;
// A new named pipe, open for both, so that it never ends. Errors: the kernel's.
[[nodiscard]] result<fd> create_pipe(int directory, const char* name) noexcept;
// Makes the directory unless there is one; nobody sees it before its mode is right. Errors: the
// kernel's.
[[nodiscard]] result<void> have_directory(int directory, const char* name);

}  // namespace bus
