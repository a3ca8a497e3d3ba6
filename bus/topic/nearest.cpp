// The classic table of optimal string alignment, three rows of it at a time, left as soon as no
// cell within the limit can follow.
#include "bus/topic/nearest.hpp"

#include "bus/topic/name.hpp"

#include <algorithm>
#include <array>

namespace bus {

std::size_t edit_distance(std::string_view left, std::string_view right,
                          std::size_t distance_max) noexcept {
  const std::size_t far = distance_max + 1;
  if (left.size() > name_bytes_max || right.size() > name_bytes_max) return far;
  const std::size_t gap =
      left.size() > right.size() ? left.size() - right.size() : right.size() - left.size();
  if (gap > distance_max) return far;

  using row = std::array<std::size_t, name_bytes_max + 1>;
  row rows[3];  // row i of the table is rows[i % 3]
  for (std::size_t j = 0; j <= right.size(); ++j) rows[0][j] = j;
  for (std::size_t i = 1; i <= left.size(); ++i) {
    row& now = rows[i % 3];
    const row& above = rows[(i - 1) % 3];
    const row& second = rows[(i + 1) % 3];
    now[0] = i;
    std::size_t least = i;
    for (std::size_t j = 1; j <= right.size(); ++j) {
      const std::size_t replaced = above[j - 1] + (left[i - 1] == right[j - 1] ? 0 : 1);
      now[j] = std::min({replaced, above[j] + 1, now[j - 1] + 1});
      const bool swapped =
          i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
      if (swapped) now[j] = std::min(now[j], second[j - 2] + 1);
      least = std::min(least, now[j]);
    }
    // The least of a row is never below the least of the row above, so what is out of reach stays
    // so. A swap reaches over that row, but to a cell which costs there at most one edit more.
    if (least > distance_max) return far;
  }
  return std::min(rows[left.size() % 3][right.size()], far);
}

}  // namespace bus
