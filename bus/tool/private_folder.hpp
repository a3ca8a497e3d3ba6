// A folder below /tmp that is gone when its users are: the process that made it, and the children
// that this has started since. A janitor, a process of its own, makes the folder and takes it away
// when the last of them has ended; so it goes whoever is killed, and however (but the janitor).
//
//   janitor: making -> (the path is told) -> waiting for the end of a pipe -> removing -> ended
//
// All users have the writing end of that pipe, and nobody writes: its end is the end of them all.
#pragma once

#include "bus/base/fd.hpp"

#include <string>

#include <sys/types.h>

namespace bus::tool {

class private_folder {
 public:
  // Forks. Requires: no other threads yet. Throws std::runtime_error.
  explicit private_folder(const std::string& prefix);
  // Waits until the folder is gone. Requires: the children that use it have ended.
  ~private_folder();
  private_folder(const private_folder&) = delete;
  private_folder& operator=(const private_folder&) = delete;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  fd users_;  // survives fork and exec
  pid_t janitor_ = -1;
  std::string path_;
};

}  // namespace bus::tool
