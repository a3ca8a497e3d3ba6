#include "bus/tool/console.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include <unistd.h>

#include <fmt/format.h>

namespace bus::tool {
namespace {

// The length of the UTF-8 sequence at the front, 0 if there is none. Overlong forms, surrogates and
// C1 controls are refused.
std::size_t sequence_at(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80) return 0;
  }
  const unsigned second = byte(1);
  if ((first == 0xc2 && second < 0xa0) || (first == 0xe0 && second < 0xa0) ||
      (first == 0xed && second > 0x9f) || (first == 0xf0 && second < 0x90) ||
      (first == 0xf4 && second > 0x8f)) {
    return 0;
  }
  return length;
}

bool is_control(char c) noexcept { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

std::size_t columns_of(std::string_view text) noexcept {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0U) != 0x80;
  }));
}

}  // namespace

console::console() : terminal_(::isatty(STDOUT_FILENO) == 1) {
  const char* const term = std::getenv("TERM");
  colour_ = terminal_ && !std::getenv("NO_COLOR") && term && std::string_view(term) != "dumb";
}

void console::write(std::string_view text) noexcept {
  if (broken_ || text.empty()) return;
  broken_ = std::fwrite(text.data(), 1, text.size(), stdout) != text.size();
}

void console::line(std::string_view text) noexcept {
  write(text);
  write("\n");
}

void console::flush() noexcept {
  if (!broken_) broken_ = std::fflush(stdout) != 0;
}

std::string console::painted(std::string_view code, std::string_view text) const {
  return colour_ ? fmt::format("\033[{}m{}\033[0m", code, text) : std::string(text);
}

std::string aligned(const table& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], columns_of(row[i]));
    }
  }
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size()) text.append(widths[i] - columns_of(row[i]) + 2, ' ');
    }
    text += '\n';
  }
  return text;
}

std::string clean(std::string_view text) {
  std::string made;
  made.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = sequence_at(text);
    if (length == 0 || is_control(text.front())) {
      made += '?';
      text.remove_prefix(1);
      continue;
    }
    made += text.substr(0, length);
    text.remove_prefix(length);
  }
  return made;
}

bool printable(std::string_view text) noexcept {
  while (!text.empty()) {
    const std::size_t length = sequence_at(text);
    const char c = text.front();
    if (length == 0 || (is_control(c) && c != '\n' && c != '\t' && c != '\r')) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string bytes_text(double bytes) {
  constexpr std::array<const char*, 5> units = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < units.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

std::string time_text(std::int64_t wall_ns) {
  const std::time_t seconds = wall_ns / 1'000'000'000;
  std::tm local{};
  ::localtime_r(&seconds, &local);
  return fmt::format("{:02}:{:02}:{:02}.{:06}", local.tm_hour, local.tm_min, local.tm_sec,
                     wall_ns % 1'000'000'000 / 1'000);
}

}  // namespace bus::tool
