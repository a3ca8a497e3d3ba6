#include "bus/base/confinement.hpp"

#include "bus/base/error_code.hpp"

namespace bus {
namespace {

constexpr std::array<wall, wall_count> in_order = {
    wall::seccomp,           wall::landlock,      wall::mount_namespace,   wall::user_namespace,
    wall::network_namespace, wall::ipc_namespace, wall::no_new_privileges, wall::capabilities};

const char* name_of(wall one) noexcept {
  switch (one) {
    case wall::no_new_privileges:
      return "no new privileges";
    case wall::capabilities:
      return "no capabilities";
    case wall::user_namespace:
      return "user namespace";
    case wall::mount_namespace:
      return "mount namespace";
    case wall::network_namespace:
      return "network namespace";
    case wall::ipc_namespace:
      return "IPC namespace";
    case wall::landlock:
      return "Landlock";
    case wall::seccomp:
      return "seccomp";
  }
  return "?";
}

void append(std::string& list, const std::string& word) {
  if (!list.empty()) list += ", ";
  list += word;
}

}  // namespace

// Other processes can be hindered by calls that nothing but seccomp forbids: prlimit(2) of another
// process of the same user, for one. Of the network and of files it closes what the others leave:
// sockets by path, and what Landlock does not know, such as chmod(2). What files there are to
// open is for the mounts or Landlock.
bool wall_report::is_closed() const noexcept {
  return holds(wall::no_new_privileges) && holds(wall::capabilities) && holds(wall::seccomp) &&
         (holds(wall::mount_namespace) || holds(wall::landlock));
}

std::error_code walls::why_not(wall one) const noexcept {
  const int error = report_.errors[static_cast<std::size_t>(one)];
  return error <= 0 ? std::error_code{} : system_error_of(error);
}

std::string walls::describe() const {
  std::string standing;
  std::string missing;
  for (const wall one : in_order) {
    std::string name = name_of(one);
    if (one == wall::landlock && holds(one)) {
      name += " (ABI " + std::to_string(report_.landlock_abi) + ")";
    }
    if (holds(one)) {
      append(standing, name);
    } else if (const std::error_code why = why_not(one)) {
      append(missing, name + " (" + why.message() + ")");
    }
  }
  if (standing.empty()) standing = "not locked in";
  return missing.empty() ? standing : standing + "; not: " + missing;
}

}  // namespace bus
