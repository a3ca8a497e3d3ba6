// Every byte that two processes share, and nothing else: fixed widths, asserted offsets, no
// pointers, no locks. LAYOUT.md says the same in tables; tests/unit/shm_layout_test.cpp compares.
//
//   arena    payloads          written by the publisher, read-only in all its peers
//   lane     which, in order   written by the sender, read-only in the receiver
//   answers  which came home   written by the receiver, read-only in the sender
//   note     the handshake     over a unix socket, with descriptors
//
// Whoever reads one of these reads data from a stranger: load once, check, use the copy.
#pragma once

#include "bus/link/frame.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace transports::shared {

// Of lane and answers together with the arena's slots; peers with another one are refused.
inline constexpr std::uint16_t layout_version = 1;
// Of the notes and their order.
inline constexpr std::uint16_t protocol_version = 2;

// Samples in flight per link: a power of two. At the most a lane of 1 MiB.
inline constexpr std::uint32_t depth_max = 1U << 16;
// The largest arena that a peer may declare: address space, not memory.
inline constexpr std::uint64_t arena_bytes_max = 1ULL << 40;
// A slot is [64-byte frame][payload], and stands at a multiple of this in the arena.
inline constexpr std::uint64_t slot_align = bus::payload_align;
inline constexpr std::uint64_t page_bytes = 4096;

// One message in a lane. `mark` makes the entry valid: it is written last (release) and carries the
// number of the lap around the ring, so that the reader needs no shared tail and a half-written
// entry is just one that is not there yet.
struct entry_layout {
  std::atomic<std::uint64_t> offset;  // of the frame, in the sender's arena
  std::atomic<std::uint64_t> mark;    // lap (upper half; 1 is the first) and credit (lower half)
};
static_assert(sizeof(entry_layout) == 16 && offsetof(entry_layout, mark) == 8);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

[[nodiscard]] constexpr std::uint64_t make_mark(std::uint32_t lap, std::uint32_t credit) noexcept {
  return std::uint64_t{lap} << 32 | credit;
}
[[nodiscard]] constexpr std::uint32_t lap_of(std::uint64_t mark) noexcept {
  return static_cast<std::uint32_t>(mark >> 32);
}
[[nodiscard]] constexpr std::uint32_t credit_of(std::uint64_t mark) noexcept {
  return static_cast<std::uint32_t>(mark);
}

// The head of a lane; `depth` entries follow at entries_at.
struct lane_layout {
  static constexpr std::uint32_t magic_value = 0x454e414c;  // "LANE"
  static constexpr std::size_t entries_at = 128;
  std::uint32_t magic;
  std::uint32_t version;
  std::uint32_t depth;
  std::uint32_t entry_bytes;
  // 1: the sender wants its bell rung when a sample comes home. A line of its own, since the
  // receiver reads it after every release while the sender seldom writes it.
  alignas(64) std::atomic<std::uint32_t> want_room;
};
static_assert(sizeof(lane_layout) == lane_layout::entries_at);
static_assert(offsetof(lane_layout, depth) == 8 && offsetof(lane_layout, want_room) == 64);

// The head of the answers; one bit for each credit follows at bits_at, in words of 64. A credit's
// bit changes whenever its sample is released: parity, so that nobody ever has to reset it.
struct answers_layout {
  static constexpr std::uint32_t magic_value = 0x52534e41;  // "ANSR"
  static constexpr std::size_t bits_at = 64;
  std::uint32_t magic;
  std::uint32_t version;
  std::uint32_t depth;
  std::uint32_t reserved;
};
static_assert(sizeof(answers_layout) == 16 && offsetof(answers_layout, depth) == 8);

[[nodiscard]] constexpr std::uint64_t whole_pages(std::uint64_t bytes) noexcept {
  return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}
[[nodiscard]] constexpr std::uint64_t lane_bytes(std::uint32_t depth) noexcept {
  return whole_pages(lane_layout::entries_at + std::uint64_t{depth} * sizeof(entry_layout));
}
[[nodiscard]] constexpr std::uint32_t words_for(std::uint32_t depth) noexcept {
  return (depth + 63) / 64;
}
[[nodiscard]] constexpr std::uint64_t answers_bytes(std::uint32_t depth) noexcept {
  return whole_pages(answers_layout::bits_at + std::uint64_t{words_for(depth)} * 8);
}

// The only message on the socket. A hello and a welcome open the link; a farewell says why not.
// While it is open, a peer of another user knocks: one byte without a note, which only wakes.
enum class note_kind : std::uint16_t { hello = 1, welcome = 2, farewell = 3, knock = 4 };
inline constexpr std::size_t knock_bytes = 1;

struct note_layout {
  static constexpr std::uint32_t magic_value = 0x4d48534f;  // "OSHM"
  std::uint32_t magic;
  std::uint16_t protocol;
  std::uint16_t layout;
  std::uint16_t kind;
  std::uint16_t descriptors;  // how many came along
  std::uint32_t code;         // farewell: a bus::errc
  std::uint64_t node;         // who writes this note
  std::uint64_t arena_bytes;  // hello: the arena's cap
  std::uint32_t depth;        // hello: of the lane
  std::uint32_t reserved[7];
};
static_assert(sizeof(note_layout) == 64);
static_assert(offsetof(note_layout, kind) == 8 && offsetof(note_layout, node) == 16);
static_assert(offsetof(note_layout, arena_bytes) == 24 && offsetof(note_layout, depth) == 32);

}  // namespace transports::shared
