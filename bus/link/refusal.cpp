#include "bus/link/refusal.hpp"

namespace bus {

std::string_view name_of(refusal cause) noexcept {
  switch (cause) {
    case refusal::stranger:
      return "stranger";
    case refusal::incompatible:
      return "incompatible";
    case refusal::malformed:
      return "malformed";
    case refusal::silent:
      return "silent";
    case refusal::taken:
      return "taken";
    case refusal::no_room:
      return "no_room";
    case refusal::broken:
      return "broken";
    case refusal::connections:
      return "connections";
    case refusal::links:
      return "links";
    case refusal::descriptors:
      return "descriptors";
    case refusal::address_space:
      return "address_space";
    case refusal::memory:
      return "memory";
    case refusal::haste:
      return "haste";
  }
  return "unknown";
}

refusal_tally& refusal_book::of(std::uint64_t user) {
  for (refusal_tally& one : tallies_) {
    if (one.user == user) return one;
  }
  if (tallies_.size() >= users_max) {
    if (tallies_.size() == users_max) tallies_.push_back({.user = others, .counts = {}});
    return tallies_.back();
  }
  tallies_.push_back({.user = user, .counts = {}});
  return tallies_.back();
}

}  // namespace bus
