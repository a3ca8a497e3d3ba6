#include "bus/route/select.hpp"

#include <algorithm>

namespace bus {

std::string_view scheme_of(std::string_view address) noexcept {
  const auto colon = address.find(':');
  return colon == std::string_view::npos ? std::string_view{} : address.substr(0, colon);
}

std::vector<way> rank_ways(std::span<const traits> ours, const known_node& peer) {
  std::vector<way> ways;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    way one{.transport = i,
            .scheme = std::string(ours[i].scheme),
            .address = {},
            .cost_ns = cost_ns(ours[i], reference_bytes),
            .worth_trying = false,
            .verdict = {}};
    for (const std::string& address : peer.card.addresses()) {
      if (scheme_of(address) == one.scheme) one.address = address;
    }
    const bool remote = peer.network && !peer.local;
    if (one.address.empty() && remote && ours[i].reach == reach::network) {
      // It cannot be called, so it may have opened a line to us.
      one.address = one.scheme + ":";
      one.worth_trying = true;
      one.verdict = "not tried: a cheaper way is open";
    } else if (one.address.empty()) {
      one.verdict = "the peer has no " + one.scheme + " address";
    } else if (ours[i].needs_directory && !peer.local) {
      one.verdict = "no common bus directory: the peer has introduced itself";
    } else {
      one.worth_trying = true;
      one.verdict = "not tried: a cheaper way is open";
    }
    ways.push_back(std::move(one));
  }
  std::stable_sort(ways.begin(), ways.end(), [](const way& left, const way& right) {
    if (left.worth_trying != right.worth_trying) return left.worth_trying;
    return left.cost_ns < right.cost_ns;
  });
  return ways;
}

}  // namespace bus
