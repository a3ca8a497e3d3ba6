// Where protobuf messages are decoded: arenas that are used again, with the message on them, so
// that a message like the one before costs no call of malloc, not even for its texts (half the time
// of decoding a demo.Quake; README.md has the figures).
//
// A subscription owns a shelf. A lease is one arena; it may outlive the shelf and end on any
// thread. Ending, it puts the arena back, if there is room. What a shelf keeps is bounded:
// `spares_max` arenas, each emptied after a payload larger than `kept_bytes_max` and after every
// `uses_max` leases, since texts and lists keep the room that they once needed: at most 4 x 64 x 64
// KiB of payload.
#pragma once

#include <cstddef>
#include <utility>

namespace google::protobuf {
class MessageLite;
}

namespace bus {

class arena_lease;

class arena_shelf {
 public:
  // Two are in use while a callback keeps the previous message, four with two threads doing so.
  static constexpr std::size_t spares_max = 4;
  static constexpr unsigned uses_max = 64;
  static constexpr std::size_t kept_bytes_max = 64 << 10;
  // Room for a message of some ten texts: demo.Quake needs a quarter of it.
  static constexpr std::size_t first_block_bytes = 4096;

  // Allocates nothing before the first take().
  arena_shelf() noexcept = default;
  arena_shelf(arena_shelf&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  arena_shelf& operator=(arena_shelf&& other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  arena_shelf(const arena_shelf&) = delete;
  arena_shelf& operator=(const arena_shelf&) = delete;
  ~arena_shelf();

  // For a payload of that size. The owner's thread only. Out of memory ends the process, as in
  // protobuf itself.
  [[nodiscard]] arena_lease take(std::size_t payload_bytes) noexcept;

 private:
  friend class arena_lease;
  struct state;
  struct cell;
  static void let_go(state* from) noexcept;
  state* state_ = nullptr;
};

class arena_lease {
 public:
  arena_lease() noexcept = default;  // of nothing
  arena_lease(arena_lease&& other) noexcept : cell_(std::exchange(other.cell_, nullptr)) {}
  arena_lease& operator=(arena_lease&& other) noexcept {
    std::swap(cell_, other.cell_);
    return *this;
  }
  arena_lease(const arena_lease&) = delete;
  arena_lease& operator=(const arena_lease&) = delete;
  ~arena_lease();

  // A message of the prototype's type, with any content: to be decoded into. It lives as long as
  // the lease. Called once. Requires: taken from a shelf.
  [[nodiscard]] google::protobuf::MessageLite& message_like(
      const google::protobuf::MessageLite& prototype) const noexcept;

 private:
  friend class arena_shelf;
  explicit arena_lease(arena_shelf::cell& taken) noexcept : cell_(&taken) {}
  arena_shelf::cell* cell_ = nullptr;
};

}  // namespace bus
