// Addresses of this room:
//
//   pipe:IN,OUT          two descriptors of ours: the pipe that we read, the pipe that we write
//   pipe:IN,OUT,pages    the same, and payloads are lent to the peer page by page (README.md)
//   pipe:                the pair of pipes that is open to the peer who is meant
//
// IN and OUT are numbers of descriptors, each with the number of its pipe if that shall be checked:
// `7@88123`. A descriptor's number is given out again when it is closed, and a pipe's is not.
#pragma once

#include "bus/base/result.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace transports::pipes {

inline constexpr std::string_view scheme = "pipe";

struct end_name {
  int descriptor = -1;
  std::uint64_t pipe = 0;  // the inode's number; 0: not said
};

struct pair_name {
  end_name in;
  end_name out;
  bool lends_pages = false;
};

// Empty for "pipe:". Errors: unsupported (another scheme), bad_address.
[[nodiscard]] bus::result<std::optional<pair_name>> parse(std::string_view address);

}  // namespace transports::pipes
