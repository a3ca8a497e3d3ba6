// A name taken apart at its '/', without copying and without allocating. For this room's own use.
#pragma once

#include "bus/topic/name.hpp"

#include <array>
#include <cstddef>
#include <string_view>

namespace bus {

inline constexpr std::string_view any_level = "*";
inline constexpr std::string_view any_levels = "**";

// Views into the text that was split: the list lives no longer than that text.
class level_list {
 public:
  // Requires: check_name(text) or check_pattern(text).
  explicit level_list(std::string_view text) noexcept {
    std::size_t start = 0;
    while (count_ < levels_.size()) {
      const std::size_t end = text.find('/', start);
      levels_[count_++] = text.substr(start, end - start);
      if (end == std::string_view::npos) return;
      start = end + 1;
    }
  }

  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  [[nodiscard]] std::string_view operator[](std::size_t i) const noexcept { return levels_[i]; }
  [[nodiscard]] const std::string_view* begin() const noexcept { return levels_.data(); }
  [[nodiscard]] const std::string_view* end() const noexcept { return levels_.data() + count_; }

 private:
  std::array<std::string_view, name_levels_max> levels_;
  std::size_t count_ = 0;
};

}  // namespace bus
