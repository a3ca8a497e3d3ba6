// A file descriptor with one owner. Closing is the destructor's work; a descriptor is moved, handed
// over with release(), or duplicated on purpose with duplicate(). All of ours are close-on-exec.
#pragma once

#include "bus/base/result.hpp"

#include <utility>

namespace bus {

class fd {
 public:
  fd() noexcept = default;
  explicit fd(int number) noexcept : number_(number) {}
  fd(fd&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  fd& operator=(fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.number_, -1));
    return *this;
  }
  fd(const fd&) = delete;
  fd& operator=(const fd&) = delete;
  ~fd() { reset(); }

  [[nodiscard]] int get() const noexcept { return number_; }
  [[nodiscard]] explicit operator bool() const noexcept { return number_ >= 0; }
  // Gives the number away: the caller closes it.
  [[nodiscard]] int release() noexcept { return std::exchange(number_, -1); }
  void reset(int number = -1) noexcept;
  // A second descriptor of the same open file, close-on-exec.
  [[nodiscard]] result<fd> duplicate() const noexcept;

 private:
  int number_ = -1;
};

struct pipe_ends {
  fd reader;
  fd writer;
};
// A new pipe. Errors: the kernel's.
[[nodiscard]] result<pipe_ends> make_pipe() noexcept;

}  // namespace bus
