// Matching is a walk over *places*: place i of a name is "before level i", and the place after the
// last level is its end. A set of places is a 64-bit word (32 levels have 33 places), a pattern's
// levels are applied to the whole set one after another, and the pattern matches if the end is in
// the set that remains. No backtracking, hence nothing to explode.
#include "bus/topic/pattern.hpp"

#include "bus/topic/levels.hpp"

#include <array>
#include <bit>
#include <cstdint>
#include <set>
#include <span>

namespace bus {
namespace {

// Both patterns side by side, level by level. Where one of them has `**`, it takes none, or what
// the other has next; where both have it, one of the two ends first.
class meeting {
 public:
  using levels = std::span<const std::string_view>;

  void walk(levels left, levels right) {
    if (++steps_ > steps_max || found_.size() > common_patterns_max) return;
    const bool left_any = !left.empty() && left.front() == any_levels;
    const bool right_any = !right.empty() && right.front() == any_levels;
    if (left_any && right_any) {
      follow(any_levels, left.subspan(1), right);
      follow(any_levels, left, right.subspan(1));
    } else if (left_any) {
      walk(left.subspan(1), right);
      if (!right.empty()) follow(right.front(), left, right.subspan(1));
    } else if (right_any) {
      walk(left, right.subspan(1));
      if (!left.empty()) follow(left.front(), left.subspan(1), right);
    } else if (left.empty() || right.empty()) {
      if (left.empty() && right.empty()) keep();
    } else if (left.front() == right.front() || right.front() == any_level) {
      follow(left.front(), left.subspan(1), right.subspan(1));
    } else if (left.front() == any_level) {
      follow(right.front(), left.subspan(1), right.subspan(1));
    }
  }
  [[nodiscard]] std::optional<std::vector<std::string>> found() const {
    if (steps_ > steps_max || found_.size() > common_patterns_max) return std::nullopt;
    return std::vector<std::string>(found_.begin(), found_.end());
  }

 private:
  static constexpr std::size_t steps_max = 100'000;

  void follow(std::string_view level, levels left, levels right) {
    path_.push_back(level);
    walk(left, right);
    path_.pop_back();
  }
  void keep() {
    std::string pattern;
    for (const std::string_view level : path_) {
      if (!pattern.empty()) pattern += '/';
      pattern += level;
    }
    if (check_pattern(pattern)) found_.insert(std::move(pattern));
  }

  std::vector<std::string_view> path_;
  std::set<std::string> found_;
  std::size_t steps_ = 0;
};

}  // namespace

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

std::optional<std::vector<std::string>> common_patterns(std::string_view left,
                                                        std::string_view right) {
  if (!check_pattern(left) || !check_pattern(right)) return std::vector<std::string>();
  const level_list rows(left);
  const level_list columns(right);
  meeting both;
  both.walk({rows.begin(), rows.end()}, {columns.begin(), columns.end()});
  return both.found();
}

}  // namespace bus
