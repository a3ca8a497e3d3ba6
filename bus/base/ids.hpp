// Identifiers: a node is 64 random bits, never a pid or a host name, so that a restarted process is
// somebody new and nobody can be mistaken for a predecessor. hash64 names topics and types.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace bus {

struct node_id {
  std::uint64_t value = 0;  // 0 is nobody
  auto operator<=>(const node_id&) const = default;
  // From the kernel's random pool; never 0. Blocks only before the pool is first seeded at boot.
  [[nodiscard]] static node_id random() noexcept;
};

// 16 lower-case hex digits, the form used in file names.
[[nodiscard]] std::string to_hex(std::uint64_t value);
// The reverse; nothing unless it is exactly 16 lower-case hex digits.
[[nodiscard]] std::optional<std::uint64_t> from_hex(std::string_view text) noexcept;

// FNV-1a, 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv). It names things that are compared in full
// when it matters; it is no defence against somebody who wants a collision.
[[nodiscard]] constexpr std::uint64_t hash64(std::string_view text) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3ULL;
  }
  return hash;
}

}  // namespace bus

template <>
struct std::hash<bus::node_id> {
  std::size_t operator()(bus::node_id id) const noexcept { return id.value; }
};
