#include "transports/pipe/witness.hpp"

#include <optional>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace transports::pipes {
namespace {

// Who holds the writer's lock: nothing if nobody else than we ourselves, 0 if somebody of another
// pid namespace.
std::optional<pid_t> holder_of(int in) noexcept {
  struct flock first_byte {};
  first_byte.l_type = F_RDLCK;
  first_byte.l_whence = SEEK_SET;
  first_byte.l_len = 1;
  if (::fcntl(in, F_GETLK, &first_byte) != 0 || first_byte.l_type == F_UNLCK) return std::nullopt;
  return first_byte.l_pid > 0 ? first_byte.l_pid : 0;
}

}  // namespace

void witness::look(int in) noexcept {
  const auto holder = holder_of(in);
  held_ = holder.has_value();
  holder_ = holder.value_or(0);
  if (holder_ == 0) return;
  bus::fd process(static_cast<int>(::syscall(SYS_pidfd_open, holder_, 0)));
  // Nobody else can have got the number while it still holds the lock.
  if (process && holder_of(in) == holder) process_ = std::move(process);
}

bool witness::is_dead(int in) const noexcept { return held_ && !holder_of(in); }

std::string witness::describe() const {
  if (!held_) return "known by its pipe alone";
  const std::string who =
      holder_ == 0 ? "a process of another pid namespace" : "process " + std::to_string(holder_);
  return who + (process_ ? ", watched by the kernel" : ", its lock looked at each second");
}

}  // namespace transports::pipes
