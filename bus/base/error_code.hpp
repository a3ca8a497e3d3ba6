// The one error category of Omnibus. An error_code says *what kind* of trouble it is and is
// forwarded unchanged; whoever finally reports it adds the name of the thing and the next step.
// Trouble that the kernel reports keeps its errno, in std::generic_category().
#pragma once

#include <system_error>

namespace bus {

enum class errc {
  bad_name = 1,   // a topic, pattern or path that the rules refuse
  bad_address,    // an address that no transport understands
  bad_message,    // bytes that do not decode as what they claim to be
  closed,         // the object was closed by its own side
  gone,           // the peer died or hung up
  refused,        // the peer said no
  denied,         // the kernel or a policy forbids it
  incompatible,   // another layout or protocol version
  type_mismatch,  // publisher and subscriber disagree about the type
  too_big,        // more bytes than bytes_max
  no_memory,      // the byte cap of an arena or pool is reached
  no_space,       // the file system is full
  timed_out,      // a deadline passed
  not_found,      // no such node, topic, schema or file
  exists,         // somebody else has that name
  unsupported,    // this transport or kernel cannot do it
  corrupt,        // shared state that contradicts itself
  stranger,       // neither the other's user nor one of the bus directory's group
  quota,          // the other's limit for one user is reached
  cgroup_full,    // the memory limit of a cgroup leaves no room
  open_walls,     // the kernel cannot lock a child in
};

[[nodiscard]] const std::error_category& category() noexcept;
[[nodiscard]] std::error_code make_error_code(errc code) noexcept;

// The current errno as an error_code. ENOSPC and EDQUOT become errc::no_space, ENOMEM
// errc::no_memory, EACCES and EPERM errc::denied, so that callers compare with one name each.
[[nodiscard]] std::error_code last_system_error() noexcept;
[[nodiscard]] std::error_code system_error_of(int error_number) noexcept;

}  // namespace bus

template <>
struct std::is_error_code_enum<bus::errc> : std::true_type {};
