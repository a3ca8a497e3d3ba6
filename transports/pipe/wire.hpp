// The words of a link: LAYOUT.md draws them. Each of the two pipes carries the same, one way:
//
//   hello {node, limits}, then messages, releases (what came over the other pipe and was let go of)
//   and byes (the way has ended, and may begin again), in any order, until the pipe ends
//
// Everything that is read was written by a stranger, perhaps a child that was locked in: fixed
// width, little-endian, copied out before it is looked at.
#pragma once

#include "bus/link/credits.hpp"
#include "bus/link/frame.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace transports::pipes {

// The first 48 bytes. Magic and version keep their place in all versions, so that two versions can
// tell that they differ.
struct hello_layout {
  static constexpr std::uint32_t magic_value = 0x5053554f;  // "OUSP"
  static constexpr std::uint16_t current_version = 1;
  std::uint32_t magic = magic_value;
  std::uint16_t version = current_version;
  std::uint16_t reserved = 0;
  std::uint64_t node = 0;            // who is speaking
  std::uint64_t target = 0;          // who is meant; 0: whoever is there
  std::uint64_t bytes_max = 0;       // largest payload that the speaker takes
  std::uint64_t link_bytes_max = 0;  // payload bytes in flight to the speaker
  std::uint32_t depth = 0;           // samples in flight to the speaker: credits 0 to depth - 1
  std::uint32_t reserved_too = 0;
};
static_assert(sizeof(hello_layout) == 48 && offsetof(hello_layout, node) == 8);
static_assert(std::is_trivially_copyable_v<hello_layout>);

// `more` is a message whose payload comes later: behind the head of the next `message` come the
// payloads of all whose heads came since the last one.
enum class word : std::uint8_t { message = 1, release, bye, more };
// Heads in a row, the last one among them.
inline constexpr std::size_t series_max = 64;

// Opens every record after the hello.
struct head_layout {
  std::uint8_t kind = 0;  // a word
  std::uint8_t reserved = 0;
  std::uint16_t reserved_too = 0;
  std::uint32_t value = 0;  // message, more: its credit; release: how many runs follow; bye: 0
};
static_assert(sizeof(head_layout) == 8);

// A message: the payload of frame.bytes bytes follows, at once or behind other heads.
struct message_layout {
  head_layout head;
  bus::frame frame;
};
static_assert(sizeof(message_layout) == 72 && offsetof(message_layout, frame) == 8);

[[nodiscard]] constexpr head_layout head_of(word kind, std::uint32_t value) noexcept {
  return {.kind = static_cast<std::uint8_t>(kind), .value = value};
}

// The first bytes of `from` as a T. Requires: they are there.
template <class T>
[[nodiscard]] T read(std::span<const std::byte> from) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  T copy;
  std::memcpy(&copy, from.first(sizeof copy).data(), sizeof copy);
  return copy;
}

template <class T>
[[nodiscard]] std::span<const std::byte> bytes_of(const T& value) noexcept {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace transports::pipes
