// The rules of topic names and patterns, as pure functions.
//
// A topic has a name like `quakes/ak/ml`: levels, with one '/' between two of them. Subscriptions
// (and only they) may use patterns: the level `*` stands for exactly one level, the level `**` for
// any number of levels, none included. Everything else about names is a refusal, and a refusal is
// a value: which rule, and at which byte. The rules are few and strict, because a name is also a
// word in logs, a column in tables and a key in other people's files:
//
//   1 to 255 bytes, 1 to 32 levels, no level empty (so no '/' at either end, and no "//");
//   well-formed UTF-8; no control characters (C0, DEL and C1);
//   '*' never in a published name, and in a pattern only as a whole level, `*` or `**`.
//
// `ab*` in a pattern is refused and not taken literally: whoever writes it expects a prefix match,
// and would otherwise wait for ever for a topic that no publisher can have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bus {

// A name, in bytes, '/' included. One byte of length suffices wherever a name is stored.
inline constexpr std::size_t name_bytes_max = 255;

// A name, in levels. The 33 places between 32 levels fit into one 64-bit word, which is what makes
// matching cheap (see match_tree.hpp).
inline constexpr std::size_t name_levels_max = 32;

enum class name_fault : std::uint8_t {
  none,
  empty,
  empty_level,
  too_long,
  too_deep,
  bad_utf8,
  control_character,
  wildcard_in_name,
  wildcard_in_level,
};

// What a check found: the first fault in reading order (but too_long before any other), and the
// byte at which it stands. Converts to true when there is none.
struct name_verdict {
  name_fault fault = name_fault::none;
  std::size_t at = 0;

  explicit operator bool() const noexcept { return fault == name_fault::none; }
  friend bool operator==(const name_verdict&, const name_verdict&) = default;
};

// May a publisher use this name? Any thread, never blocks, keeps nothing.
[[nodiscard]] name_verdict check_name(std::string_view name) noexcept;

// May a subscription use this pattern? Every good name is a good pattern, too.
[[nodiscard]] name_verdict check_pattern(std::string_view pattern) noexcept;

// One sentence for people: the rule that was broken. The text is static; empty for `none`.
[[nodiscard]] std::string_view reason(name_fault fault) noexcept;

}  // namespace bus
