// All inotify instances that the user may still have: a node that is made meanwhile waits at a
// pipe.
#pragma once

#include "bus/base/fd.hpp"

#include <vector>

#include <sys/inotify.h>
#include <unistd.h>

namespace tests {

class no_inotify {
 public:
  no_inotify() {
    while (bus::fd one{::inotify_init1(IN_CLOEXEC)}) instances_.push_back(std::move(one));
    // Else it was the limit of descriptors that came first, and nothing is left for a node.
    is_complete_ = static_cast<bool>(bus::fd(::dup(0)));
    if (!is_complete_) instances_.clear();
  }
  // False where a process may have fewer descriptors than a user inotify instances.
  [[nodiscard]] explicit operator bool() const noexcept { return is_complete_; }

 private:
  std::vector<bus::fd> instances_;
  bool is_complete_ = false;
};

}  // namespace tests
