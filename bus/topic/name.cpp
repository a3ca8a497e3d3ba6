// One pass over the bytes. ASCII is decided by comparing; what is above goes through a decoder that
// knows the table of well-formed sequences (Unicode 15, table 3-7) and so refuses overlong forms,
// surrogates, code points beyond U+10FFFF and sequences that are cut off.
#include "bus/topic/name.hpp"

namespace bus {
namespace {

struct code_point {
  std::size_t bytes = 0;  // 0: not well-formed
  std::uint32_t value = 0;
};

std::uint32_t byte_at(std::string_view text, std::size_t at) noexcept {
  return static_cast<unsigned char>(text[at]);
}

// Requires: text[at] >= 0x80.
code_point decode(std::string_view text, std::size_t at) noexcept {
  const std::uint32_t lead = byte_at(text, at);
  std::size_t bytes = 0;
  if (lead >= 0xc2 && lead <= 0xdf) bytes = 2;
  if (lead >= 0xe0 && lead <= 0xef) bytes = 3;
  if (lead >= 0xf0 && lead <= 0xf4) bytes = 4;
  if (bytes == 0 || text.size() - at < bytes) return {};

  std::uint32_t value = lead & (0x7fU >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    const std::uint32_t next = byte_at(text, at + i);
    if ((next & 0xc0U) != 0x80U) return {};
    value = (value << 6U) | (next & 0x3fU);
  }
  const bool overlong = (bytes == 3 && value < 0x800) || (bytes == 4 && value < 0x10000);
  const bool surrogate = value >= 0xd800 && value <= 0xdfff;
  if (overlong || surrogate || value > 0x10ffff) return {};
  return {bytes, value};
}

// A '*' at `at`, in a level that began at `level`: is that level a whole wildcard?
bool whole_wildcard(std::string_view text, std::size_t level) noexcept {
  const std::string_view rest = text.substr(level, text.find('/', level) - level);
  return rest == "*" || rest == "**";
}

// `level` is where the present level began; an empty one is found where its first byte should be.
name_verdict check(std::string_view text, bool wildcards) noexcept {
  if (text.empty()) return {name_fault::empty, 0};
  if (text.size() > name_bytes_max) return {name_fault::too_long, name_bytes_max};

  std::size_t levels = 1;
  std::size_t level = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::uint32_t byte = byte_at(text, at);
    if (byte >= 0x80) {
      const code_point code = decode(text, at);
      if (code.bytes == 0) return {name_fault::bad_utf8, at};
      if (code.value <= 0x9f) return {name_fault::control_character, at};
      at += code.bytes;
      continue;
    }
    if (byte < 0x20 || byte == 0x7f) return {name_fault::control_character, at};
    if (byte == '*') {
      if (!wildcards) return {name_fault::wildcard_in_name, at};
      if (!whole_wildcard(text, level)) return {name_fault::wildcard_in_level, at};
    }
    if (byte == '/') {
      if (at == level) return {name_fault::empty_level, at};
      level = at + 1;
      if (++levels > name_levels_max) return {name_fault::too_deep, level};
    }
    ++at;
  }
  if (level == text.size()) return {name_fault::empty_level, level};
  return {};
}

}  // namespace

name_verdict check_name(std::string_view name) noexcept { return check(name, false); }

name_verdict check_pattern(std::string_view pattern) noexcept { return check(pattern, true); }

std::string_view reason(name_fault fault) noexcept {
  switch (fault) {
    case name_fault::none:
      return "";
    case name_fault::empty:
      return "the name is empty; the shortest name is one level, like 'a'";
    case name_fault::empty_level:
      return "a level is empty; a name has no '/' at its start or end, and no '//' inside";
    case name_fault::too_long:
      return "the name is longer than 255 bytes";
    case name_fault::too_deep:
      return "the name has more than 32 levels";
    case name_fault::bad_utf8:
      return "the name is not well-formed UTF-8";
    case name_fault::control_character:
      return "the name has a control character (U+0000 to U+001F, U+007F to U+009F)";
    case name_fault::wildcard_in_name:
      return "a published name has no '*'; wildcards are for subscriptions";
    case name_fault::wildcard_in_level:
      return "a wildcard is a whole level, '*' or '**'; write 'a/*' and not 'a/b*'";
  }
  return "the name breaks a rule that this program does not know";
}

}  // namespace bus
