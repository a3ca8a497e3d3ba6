#include "bus/node/modes.hpp"

#include "bus/base/ids.hpp"

#include <cerrno>
#include <cstdio>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bus {
namespace {

constexpr mode_t all_bits = 07777;

// Asks first: a change of mode wakes everybody who watches the directory.
bool correct(const fd& made, mode_t wanted) noexcept {
  struct stat about {};
  if (::fstat(made.get(), &about) != 0) return false;
  return (about.st_mode & all_bits) == wanted || ::fchmod(made.get(), wanted) == 0;
}

result<fd> corrected(int directory, const char* name, fd&& made, mode_t wanted) noexcept {
  if (made && correct(made, wanted)) return std::move(made);
  const std::error_code failed = last_system_error();
  ::unlinkat(directory, name, 0);
  return unexpected(failed);
}

}  // namespace

result<modes> modes_in(int directory) noexcept {
  struct stat about {};
  if (::fstat(directory, &about) != 0) return unexpected(last_system_error());
  if ((about.st_mode & S_IWGRP) != 0) return modes{0640, 0660, 02770};
  return modes{0600, 0600, 0700};
}

result<fd> create_file(int directory, const char* name) noexcept {
  const auto wanted = modes_in(directory);
  if (!wanted) return unexpected(wanted.error());
  fd made(::openat(directory, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, wanted->file));
  if (!made) return unexpected(last_system_error());
  return corrected(directory, name, std::move(made), wanted->file);
}

result<fd> create_pipe(int directory, const char* name) noexcept {
  const auto wanted = modes_in(directory);
  if (!wanted) return unexpected(wanted.error());
  if (::mkfifoat(directory, name, wanted->pipe) != 0) return unexpected(last_system_error());
  fd made(::openat(directory, name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW));
  return corrected(directory, name, std::move(made), wanted->pipe);
}

result<void> have_directory(int directory, const char* name) {
  struct stat about {};
  if (::fstatat(directory, name, &about, AT_SYMLINK_NOFOLLOW) == 0) return {};
  const auto wanted = modes_in(directory);
  if (!wanted) return unexpected(wanted.error());
  const std::string draft = std::string(name) + ".tmp" + to_hex(node_id::random().value);
  if (::mkdirat(directory, draft.c_str(), 0700) != 0) return unexpected(last_system_error());
  if (::fchmodat(directory, draft.c_str(), wanted->directory, 0) == 0 &&
      ::renameat2(directory, draft.c_str(), directory, name, RENAME_NOREPLACE) == 0) {
    return {};
  }
  const int failed = errno;
  ::unlinkat(directory, draft.c_str(), AT_REMOVEDIR);
  if (failed == EEXIST) return {};  // somebody else was faster
  return unexpected(system_error_of(failed));
}

}  // namespace bus
