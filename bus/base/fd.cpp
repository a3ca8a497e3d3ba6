#include "bus/base/fd.hpp"

#include <array>

#include <fcntl.h>
#include <unistd.h>

namespace bus {

void fd::reset(int number) noexcept {
  // close() is not retried after EINTR: Linux has released the number by then.
  if (number_ >= 0) ::close(number_);
  number_ = number;
}

result<fd> fd::duplicate() const noexcept {
  const int copy = ::fcntl(number_, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return unexpected(last_system_error());
  return fd(copy);
}

result<pipe_ends> make_pipe() noexcept {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return unexpected(last_system_error());
  return pipe_ends{.reader = fd(ends[0]), .writer = fd(ends[1])};
}

}  // namespace bus
