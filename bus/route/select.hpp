// Which ways lead to a peer, cheapest first, and in words why each can or cannot be tried. Ranking
// uses the traits and nothing else; whether a way really works is then shown by opening it.
#pragma once

#include "bus/link/traits.hpp"
#include "bus/route/directory.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bus {

// The message for which ways are compared: large enough for bandwidth to count, small enough to be
// common.
inline constexpr std::uint64_t reference_bytes = 1024;

struct way {
  std::size_t transport = 0;  // index into our transports
  std::string scheme;
  std::string address;  // the peer's; empty: the peer has none
  std::uint64_t cost_ns = 0;
  bool worth_trying = false;
  std::string verdict;  // what the test returned so far
};

// All our transports as ways to `peer`, those worth trying first, and among them the cheapest
// first.
[[nodiscard]] std::vector<way> rank_ways(std::span<const traits> ours, const known_node& peer);

// "shm" of "shm:0123"; empty when there is no colon.
[[nodiscard]] std::string_view scheme_of(std::string_view address) noexcept;

}  // namespace bus
