// Whom a transport did not let in, by cause and by user. A peer is told why; here it is counted, at
// the node that refused, so that nothing is silent there either: the node writes the tallies into
// its ledger, and `bus info` shows them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace bus {

enum class refusal : std::uint8_t {
  stranger,      // not our user, nor of the directory's group; or a node id of another user's
  incompatible,  // another layout or protocol
  malformed,     // a handshake that breaks the rules: its words, numbers or descriptors
  silent,        // said nothing in time
  taken,         // a node id that has a way in already
  no_room,       // no memory or descriptor here, or the node's own limit
  broken,        // an open link that broke a rule, and was cut
  // One user's limits at this node:
  connections,    // that have not said hello
  links,          // into this node
  descriptors,    // held open for its links
  address_space,  // for its memory, mapped here
  memory,         // of ours, for its links
  haste,          // handshakes a second
};
inline constexpr std::size_t refusal_count = 13;
[[nodiscard]] std::string_view name_of(refusal cause) noexcept;

struct refusal_tally {
  std::uint64_t user = 0;  // as the kernel numbers it
  std::array<std::uint64_t, refusal_count> counts{};
};

class refusal_book {
 public:
  // Tallies of so many users; whoever comes later is counted together, as `others`.
  static constexpr std::size_t users_max = 16;
  static constexpr std::uint64_t others = UINT64_MAX;

  void count(std::uint64_t user, refusal cause) {
    ++of(user).counts[static_cast<std::size_t>(cause)];
  }
  // A tally keeps its place for ever, and its numbers only grow.
  [[nodiscard]] std::span<const refusal_tally> tallies() const noexcept { return tallies_; }

 private:
  [[nodiscard]] refusal_tally& of(std::uint64_t user);
  std::vector<refusal_tally> tallies_;
};

}  // namespace bus
