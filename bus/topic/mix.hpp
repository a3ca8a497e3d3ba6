// One step of hashing for tables in memory: a full multiplication, folded. Not for bytes that
// travel (a topic's hash on the wire is bus::hash64's business). For this room's own use.
#pragma once

#include <cstdint>

namespace bus {

[[nodiscard]] inline std::uint64_t mix(std::uint64_t left, std::uint64_t right) noexcept {
  __extension__ typedef unsigned __int128 wide;
  const wide product = static_cast<wide>(left) * right;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
}

}  // namespace bus
