// Matching is a walk over *places*: place i of a name is "before level i", and the place after the
// last level is its end. A set of places is a 64-bit word (32 levels have 33 places), a pattern's
// levels are applied to the whole set one after another, and the pattern matches if the end is in
// the set that remains. No backtracking, hence nothing to explode.
#include "bus/topic/pattern.hpp"

#include "bus/topic/levels.hpp"

#include <array>
#include <bit>
#include <cstdint>

namespace bus {

bool has_wildcard(std::string_view pattern) noexcept {
  return pattern.find('*') != std::string_view::npos;
}

bool matches(std::string_view pattern, std::string_view name) noexcept {
  if (!check_pattern(pattern) || !check_name(name)) return false;
  const level_list levels(name);
  const std::uint64_t end = std::uint64_t{1} << levels.size();
  std::uint64_t places = 1;
  for (const std::string_view wanted : level_list(pattern)) {
    if (wanted == any_levels) {
      places = (end | (end - 1)) & ~((places & -places) - 1);  // from the first place on
    } else {
      std::uint64_t reached = 0;
      for (std::uint64_t left = places & (end - 1); left != 0; left &= left - 1) {
        const auto place = static_cast<std::size_t>(std::countr_zero(left));
        if (wanted == any_level || wanted == levels[place]) reached |= left & -left;
      }
      places = reached << 1U;
    }
    if (places == 0) return false;
  }
  return (places & end) != 0;
}

// together[i] has place j: the first i levels of `left` and the first j of `right` can be one name.
// `**` takes none (go past it), or what the other side has next (stay, and go past that).
bool overlaps(std::string_view left, std::string_view right) noexcept {
  if (!check_pattern(left) || !check_pattern(right)) return false;
  const level_list rows(left);
  const level_list columns(right);
  std::array<std::uint64_t, name_levels_max + 1> together{1};
  for (std::size_t i = 0; i <= rows.size(); ++i) {
    const bool row_any = i < rows.size() && rows[i] == any_levels;
    for (std::size_t j = 0; j <= columns.size(); ++j) {
      if ((together[i] >> j & 1U) == 0) continue;
      const bool column_any = j < columns.size() && columns[j] == any_levels;
      const std::uint64_t here = std::uint64_t{1} << j;
      if (i < rows.size() && (row_any || column_any)) together[i + 1] |= here;
      if (j < columns.size() && (row_any || column_any)) together[i] |= here << 1U;
      if (i == rows.size() || j == columns.size() || row_any || column_any) continue;
      const bool alike = rows[i] == columns[j] || rows[i] == any_level || columns[j] == any_level;
      if (alike) together[i + 1] |= here << 1U;
    }
  }
  return (together[rows.size()] >> columns.size() & 1U) != 0;
}

}  // namespace bus
