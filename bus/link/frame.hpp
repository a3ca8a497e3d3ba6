// The 64 bytes before every payload, on every transport: in shared memory, in a pipe, on a wire, in
// a file. Little-endian, fixed width, no padding; LAYOUT.md has the offsets and a worked example.
//
// A frame that came from elsewhere is data from a stranger: copy it once, check() it, use the copy.
#pragma once

#include "bus/base/result.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace bus {

// Bits of frame::flags. Unknown bits are refused, so that a new meaning is never ignored.
namespace frame_flag {
inline constexpr std::uint16_t control = 1;  // the payload is a bus.Control message, not a user's
inline constexpr std::uint16_t attachment = 2;  // message and binary part, see bus/codec
inline constexpr std::uint16_t batch = 4;  // several messages, from `sequence` on; see batch.hpp
inline constexpr std::uint16_t known = control | attachment | batch;
}  // namespace frame_flag

struct frame {
  static constexpr std::uint16_t current_version = 1;

  std::uint16_t version = current_version;
  std::uint16_t flags = 0;
  std::uint32_t publisher = 0;    // the sender's number for the publisher; unique within the node
  std::uint64_t node = 0;         // node_id of the sender
  std::uint64_t topic_hash = 0;   // hash64 of the topic's name
  std::uint64_t type_hash = 0;    // the schema's hash; 0 for raw bytes
  std::uint64_t sequence = 0;     // 1, 2, 3 ... per publisher; a gap is a loss
  std::int64_t sent_ns = 0;       // wall clock at the sender
  std::uint64_t correlation = 0;  // joins a reply to its request; else 0
  std::uint64_t bytes = 0;        // of the payload that follows
};
static_assert(sizeof(frame) == 64 && alignof(frame) == 8);
static_assert(offsetof(frame, publisher) == 4 && offsetof(frame, node) == 8);
static_assert(offsetof(frame, sequence) == 32 && offsetof(frame, bytes) == 56);
static_assert(std::is_trivially_copyable_v<frame> && std::is_standard_layout_v<frame>);
static_assert(std::endian::native == std::endian::little, "frames are little-endian");

// Payloads begin where their frame ends, and frames stand at multiples of 64: a payload is aligned
// to a cache line, and so for every type and SIMD register.
inline constexpr std::size_t payload_align = 64;

// Whether this frame can be believed: known version and flags, and no more than `bytes_max`
// payload. Errors: incompatible, bad_message, too_big.
[[nodiscard]] inline result<void> check(const frame& head, std::uint64_t bytes_max) noexcept {
  if (head.version != frame::current_version) return unexpected(errc::incompatible);
  if ((head.flags & ~frame_flag::known) != 0) return unexpected(errc::bad_message);
  if (head.bytes > bytes_max) return unexpected(errc::too_big);
  return {};
}

}  // namespace bus
