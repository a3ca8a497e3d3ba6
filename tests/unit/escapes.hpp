// Ways out, tried one after the other by a child: out of the directory that it shall not see, to
// the sockets of its parent, and at its parent itself. Each attempt is the real thing; that it
// would succeed is shown by the same child when it is not locked in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <netinet/in.h>
#include <sys/types.h>
#include <sys/un.h>

namespace tests {

// What a child is told, through a file in memory.
struct target_layout {
  std::array<char, 256> directory;  // in which it has no business
  std::array<char, 64> abstract;    // a socket's name
  std::uint64_t secret_at;          // in the parent's memory
  pid_t parent;
  std::int32_t shared_memory;  // System V
  in_port_t tcp;
  in_port_t udp;
};

enum class way : std::uint8_t {
  files,
  names,  // a file is seen, but neither read nor changed: only mounts hide that
  network,
  processes,
  kernel,  // what would lead to more
};

struct attempt {
  std::string_view name;
  way kind;
  bool always;  // it succeeds on each machine and for each user, unless that is locked in
  int (*made)(const target_layout&);  // an errno; 0: it has succeeded
};

[[nodiscard]] const std::vector<attempt>& attempts();

// The descriptors of a child that tries.
inline constexpr int results_fd = 5;
inline constexpr int terminal_fd = 6;
inline constexpr int target_fd = 7;

// In the child: tries all, and writes a line for each.
void try_all();

// Signals of ours, one for each way to send some: the parent counts them.
inline constexpr int signals_max = 5;
[[nodiscard]] int signal_number(int which);

[[nodiscard]] sockaddr_un address_of(const std::string& path);
// Its name begins with a zero, and has a length instead of an end: that of the address.
[[nodiscard]] std::size_t abstract_address(const char* name, sockaddr_un& address);
[[nodiscard]] sockaddr_in loopback_address(in_port_t port);

}  // namespace tests
