#include "bus/base/ids.hpp"

#include "bus/base/check.hpp"

#include <array>
#include <cerrno>

#include <sys/random.h>

namespace bus {

node_id node_id::random() noexcept {
  node_id id;
  while (id.value == 0) {
    const ssize_t got = ::getrandom(&id.value, sizeof id.value, 0);
    BUS_CHECK(got == static_cast<ssize_t>(sizeof id.value) || (got < 0 && errno == EINTR));
  }
  return id;
}

std::string to_hex(std::uint64_t value) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; value >>= 4) text[i] = digits[value & 15];
  return text;
}

std::optional<std::uint64_t> from_hex(std::string_view text) noexcept {
  if (text.size() != 16) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : text) {
    unsigned digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<unsigned>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<unsigned>(c - 'a') + 10;
    } else {
      return std::nullopt;
    }
    value = value << 4 | digit;
  }
  return value;
}

}  // namespace bus
