#include "bus/base/error_code.hpp"

#include <cerrno>
#include <string>

namespace bus {
namespace {

class bus_category final : public std::error_category {
 public:
  const char* name() const noexcept override { return "bus"; }

  std::string message(int value) const override {
    switch (static_cast<errc>(value)) {
      case errc::bad_name:
        return "bad name";
      case errc::bad_address:
        return "bad address";
      case errc::bad_message:
        return "bad message";
      case errc::closed:
        return "closed";
      case errc::gone:
        return "the peer is gone";
      case errc::refused:
        return "refused by the peer";
      case errc::denied:
        return "permission denied";
      case errc::incompatible:
        return "incompatible version";
      case errc::type_mismatch:
        return "types differ";
      case errc::too_big:
        return "message too big";
      case errc::no_memory:
        return "memory limit reached";
      case errc::no_space:
        return "no space left on the file system";
      case errc::timed_out:
        return "timed out";
      case errc::not_found:
        return "not found";
      case errc::exists:
        return "exists already";
      case errc::unsupported:
        return "not supported here";
      case errc::corrupt:
        return "corrupt shared state";
      case errc::stranger:
        return "permission denied: neither the node's own user nor in the group of its bus "
               "directory";
      case errc::quota:
        return "the peer's limit for one user is reached: `bus info` of the peer names it";
      case errc::cgroup_full:
        return "the memory limit of the cgroup leaves no room: raise its memory.max, or send less "
               "at a time";
      case errc::open_walls:
        return "the kernel cannot lock a child in: it wants seccomp, and a mount namespace or "
               "Landlock";
    }
    return "unknown error " + std::to_string(value);
  }
};

}  // namespace

const std::error_category& category() noexcept {
  static const bus_category instance;
  return instance;
}

std::error_code make_error_code(errc code) noexcept { return {static_cast<int>(code), category()}; }

std::error_code system_error_of(int error_number) noexcept {
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return errc::no_space;
    case ENOMEM:
      return errc::no_memory;
    case EACCES:
    case EPERM:
      return errc::denied;
    default:
      return {error_number, std::generic_category()};
  }
}

std::error_code last_system_error() noexcept { return system_error_of(errno); }

}  // namespace bus
