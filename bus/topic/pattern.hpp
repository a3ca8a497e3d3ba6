// Questions about one pattern at a time. Many patterns at once are the match_tree's business.
//
// All are pure and total: a text that breaks the rules of name.hpp matches nothing and overlaps
// with nothing, so that a caller who forgot to check gets silence and never a wrong match.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bus {

// Does the pattern have a wildcard in it? Says nothing about whether it is a good pattern.
[[nodiscard]] bool has_wildcard(std::string_view pattern) noexcept;

// Does a subscription to `pattern` hear what is published under `name`? Costs at most
// levels(pattern) * levels(name) comparisons, whatever the wildcards; never allocates.
[[nodiscard]] bool matches(std::string_view pattern, std::string_view name) noexcept;

// Is there a name that both patterns match? Symmetric. The caps on a name's length are not applied
// to that name: two patterns that only a name of 33 levels would satisfy still overlap, which errs
// towards "yes". Costs at most levels(left) * levels(right) comparisons; never allocates.
[[nodiscard]] bool overlaps(std::string_view left, std::string_view right) noexcept;

// The names that both patterns match, as patterns: together these match such names and no others.
// One name may meet several of them. Empty: there is no such name. Nothing: it would take more than
// so many patterns, which needs several `**` on both sides.
inline constexpr std::size_t common_patterns_max = 64;
[[nodiscard]] std::optional<std::vector<std::string>> common_patterns(std::string_view left,
                                                                      std::string_view right);

}  // namespace bus
