#include "bus/base/fd.hpp"

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

}  // namespace bus
