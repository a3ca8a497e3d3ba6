// Every byte that two processes share, and nothing else: fixed widths, asserted offsets, no
// pointers, no locks. LAYOUT.md says the same in tables; tests/unit/shm_layout_test.cpp compares.
//
//   arena    payloads          written by the publisher, read-only in all its peers
//   lane     which, in order, and small messages themselves
//                              written by the sender, read-only in the receiver
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
inline constexpr std::uint16_t layout_version = 2;
// Of the notes and their order.
inline constexpr std::uint16_t protocol_version = 2;

// Samples in flight per link: a power of two. At the most a lane of 1 MiB.
inline constexpr std::uint32_t depth_max = 1U << 16;
// The largest arena that a peer may declare: address space, not memory.
inline constexpr std::uint64_t arena_bytes_max = 1ULL << 40;
// A slot is [64-byte frame][payload], and stands at a multiple of this in the arena.
inline constexpr std::uint64_t slot_align = bus::payload_align;
inline constexpr std::uint64_t page_bytes = 4096;

// A lane has two rings: entries, which point into the arena, and cells, which carry a small message
// themselves. Each entry and cell says how many of the other kind were sent before it (the lower 24
// bits of that number), so that there is one order.
inline constexpr unsigned before_shift = 40;
inline constexpr std::uint64_t number_mask = (1ULL << before_shift) - 1;
static_assert(arena_bytes_max <= 1ULL << before_shift);
[[nodiscard]] constexpr std::uint64_t join(std::uint64_t value, std::uint64_t before) noexcept {
  return (value & number_mask) | before << before_shift;
}
[[nodiscard]] constexpr std::uint64_t value_of(std::uint64_t joined) noexcept {
  return joined & number_mask;
}
[[nodiscard]] constexpr bool comes_after(std::uint64_t joined, std::uint64_t before) noexcept {
  return joined >> before_shift == (before & (UINT64_MAX >> before_shift));
}

// One message in a lane. `mark` makes the entry valid: it is written last (release) and carries the
// number of the lap around the ring, so that the reader needs no shared tail and a half-written
// entry is just one that is not there yet.
struct entry_layout {
  std::atomic<std::uint64_t> place;  // offset of the frame in the sender's arena, and cells before
  std::atomic<std::uint64_t> mark;   // lap (upper half; 1 is the first) and credit (lower half)
};
static_assert(sizeof(entry_layout) == 16 && offsetof(entry_layout, mark) == 8);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

// One message with its frame: two cache lines that lie together, of which the reader watches the
// first. `mark` is written last (release): the cell's number from 1 on, and entries before it. The
// other fields are those of the frame; node and version are the link's. A small payload is in the
// cell; of a larger one, `bytes` is by_reference, and the payload area holds a reference_layout.
struct cell_layout {
  static constexpr std::size_t payload_bytes_max = 72;
  static constexpr std::uint16_t by_reference = UINT16_MAX;
  std::atomic<std::uint64_t> mark;
  std::uint16_t flags;
  std::uint16_t bytes;
  std::uint32_t publisher;
  std::uint64_t topic_hash;
  std::uint64_t type_hash;
  std::uint64_t sequence;
  std::int64_t sent_ns;
  std::uint64_t correlation;
  std::byte payload[payload_bytes_max];
};
// Where the payload of a cell is: as an entry says it, and how long it is.
struct reference_layout {
  std::uint64_t offset;
  std::uint64_t bytes;
  std::uint32_t credit;
  std::uint32_t reserved;
};
static_assert(sizeof(reference_layout) == 24 && offsetof(reference_layout, credit) == 16);
static_assert(sizeof(cell_layout) == 128 && offsetof(cell_layout, flags) == 8);
static_assert(offsetof(cell_layout, sequence) == 32 && offsetof(cell_layout, payload) == 56);
// Messages that are sent and not yet read, 16 KiB a link; beyond, they travel by entries. A guess,
// four times what a reader in a stream leaves to gather.
inline constexpr std::uint32_t cells_max = 128;
[[nodiscard]] constexpr std::uint32_t cells_for(std::uint32_t depth) noexcept {
  return depth < cells_max ? depth : cells_max;
}

[[nodiscard]] constexpr std::uint64_t make_mark(std::uint32_t lap, std::uint32_t credit) noexcept {
  return std::uint64_t{lap} << 32 | credit;
}
[[nodiscard]] constexpr std::uint32_t lap_of(std::uint64_t mark) noexcept {
  return static_cast<std::uint32_t>(mark >> 32);
}
[[nodiscard]] constexpr std::uint32_t credit_of(std::uint64_t mark) noexcept {
  return static_cast<std::uint32_t>(mark);
}

// The head of a lane; `depth` entries follow at entries_at, and the cells at cells_at(depth).
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
  std::atomic<std::uint64_t> cells_read;  // so many cells may be written again
};
static_assert(sizeof(answers_layout) == 24 && offsetof(answers_layout, cells_read) == 16);

[[nodiscard]] constexpr std::uint64_t whole_pages(std::uint64_t bytes) noexcept {
  return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}
[[nodiscard]] constexpr std::uint64_t cells_at(std::uint32_t depth) noexcept {
  const std::uint64_t end = lane_layout::entries_at + std::uint64_t{depth} * sizeof(entry_layout);
  return (end + sizeof(cell_layout) - 1) / sizeof(cell_layout) * sizeof(cell_layout);
}
[[nodiscard]] constexpr std::uint64_t lane_bytes(std::uint32_t depth) noexcept {
  return whole_pages(cells_at(depth) + std::uint64_t{cells_for(depth)} * sizeof(cell_layout));
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
