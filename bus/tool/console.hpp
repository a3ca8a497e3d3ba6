// Standard output as reports need it: colour only on a terminal, columns that line up, and one
// place that notices when nobody reads any more (`bus echo ... | head`), which is no failure.
//
// Names in cards come from strangers: whatever is shown goes through clean(), so that nobody's node
// can be named after an escape sequence.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bus::tool {

class console {
 public:
  console();

  void write(std::string_view text) noexcept;
  void line(std::string_view text) noexcept;
  void flush() noexcept;
  // The reader has gone; there is no point in going on.
  [[nodiscard]] bool broken() const noexcept { return broken_; }

  [[nodiscard]] bool is_terminal() const noexcept { return terminal_; }
  [[nodiscard]] std::string bold(std::string_view text) const { return painted("1", text); }
  [[nodiscard]] std::string dim(std::string_view text) const { return painted("2", text); }
  [[nodiscard]] std::string red(std::string_view text) const { return painted("31", text); }
  [[nodiscard]] std::string green(std::string_view text) const { return painted("32", text); }
  [[nodiscard]] std::string yellow(std::string_view text) const { return painted("33", text); }

 private:
  [[nodiscard]] std::string painted(std::string_view code, std::string_view text) const;
  bool terminal_ = false;
  bool colour_ = false;
  bool broken_ = false;
};

// Rows whose columns line up, two blanks between them; the last column is not padded.
using table = std::vector<std::vector<std::string>>;
[[nodiscard]] std::string aligned(const table& rows);

// Without control characters and bytes that are no UTF-8; each becomes '?'.
[[nodiscard]] std::string clean(std::string_view text);
// Whether the text is UTF-8 without control characters but line ends and tabs.
[[nodiscard]] bool printable(std::string_view text) noexcept;
// "1.5 MiB", "320 B".
[[nodiscard]] std::string bytes_text(double bytes);
// "12:03:04.123456", in local time.
[[nodiscard]] std::string time_text(std::int64_t wall_ns);

}  // namespace bus::tool
