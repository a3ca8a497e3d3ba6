// "Did you mean ...?": the known name that is nearest to one that nobody publishes. Subscribing to
// a name with a typing error in it is the commonest reason for silence, and `bus why` says so.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace bus {

// How many single-byte edits (insert, delete, replace, swap two neighbours) lead from one text to
// the other, as long as that is at most `distance_max`; else distance_max + 1. Texts longer than a
// name may be count as far apart. Never allocates; costs at most the product of both sizes.
[[nodiscard]] std::size_t edit_distance(std::string_view left, std::string_view right,
                                        std::size_t distance_max) noexcept;

// The candidate with the fewest edits, the first among equals; none if all need more than
// `distance_max` edits, or if half of the name would have to change (such a hint only misleads).
// A candidate equal to `name` is no typing error, and is passed over. `Range` is anything whose
// elements convert to string_view; the result views that element, and lives no longer than it.
template <class Range>
[[nodiscard]] std::optional<std::string_view> nearest(std::string_view name,
                                                      const Range& candidates,
                                                      std::size_t distance_max = 3) noexcept {
  std::optional<std::string_view> best;
  std::size_t allowed = distance_max < name.size() / 2 ? distance_max : name.size() / 2;
  for (const auto& candidate : candidates) {
    if (allowed == 0) break;
    const std::string_view text = candidate;
    const std::size_t distance = edit_distance(name, text, allowed);
    if (distance == 0 || distance > allowed) continue;
    best = text;
    allowed = distance - 1;
  }
  return best;
}

}  // namespace bus
