// What the room's tests measure it against: a matcher too simple to be wrong, and makers of random
// patterns and names over an alphabet so small that most pairs nearly match.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace reference {

using levels = std::vector<std::string>;

inline levels split(const std::string& text) {
  levels parts(1);
  for (const char c : text) {
    if (c == '/') parts.emplace_back();
    if (c != '/') parts.back() += c;
  }
  return parts;
}

inline bool matches(const levels& pattern, const levels& name, std::size_t p = 0,
                    std::size_t n = 0) {
  if (p == pattern.size()) return n == name.size();
  if (pattern[p] == "**") {
    return matches(pattern, name, p + 1, n) ||
           (n < name.size() && matches(pattern, name, p, n + 1));
  }
  if (n == name.size()) return false;
  return (pattern[p] == "*" || pattern[p] == name[n]) && matches(pattern, name, p + 1, n + 1);
}

// A new one each time, unless the environment asks for one: OMNIBUS_TEST_SEED=123 repeats a run.
inline std::uint32_t seed() {
  const char* asked = std::getenv("OMNIBUS_TEST_SEED");
  if (asked == nullptr) return std::random_device{}();
  return static_cast<std::uint32_t>(std::strtoul(asked, nullptr, 10));
}

class maker {
 public:
  explicit maker(std::uint32_t seed) : random_(seed) {}

  std::size_t below(std::size_t limit) { return random_() % limit; }
  std::string name(std::size_t levels_max) { return join(levels_max, 3); }
  std::string pattern(std::size_t levels_max) { return join(levels_max, 6); }
  std::mt19937& random() { return random_; }

 private:
  std::string join(std::size_t levels_max, std::size_t choices) {
    static const char* const words[] = {"a", "b", "a level of some length", "*", "**", "**"};
    std::string text;
    for (std::size_t left = 1 + below(levels_max); left > 0; --left) {
      text += words[below(choices)];
      if (left > 1) text += '/';
    }
    return text;
  }

  std::mt19937 random_;
};

}  // namespace reference
