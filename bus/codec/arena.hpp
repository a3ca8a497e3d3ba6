// Where protobuf messages are decoded: arenas that are used again, so that a message of an ordinary
// size costs no call of malloc for itself and its submessages.
//
// A subscription owns a shelf. A lease is one arena, empty when it is taken; it may outlive the
// shelf and end on any thread. Ending, it empties the arena and puts it back, if there is room: a
// shelf keeps at most `spares_max`, and each of them only its first block.
#pragma once

#include <cstddef>
#include <utility>

namespace google::protobuf {
class Arena;
}

namespace bus {

class arena_lease;

class arena_shelf {
 public:
  // Two are in use while a callback keeps the previous message, four with two threads doing so.
  static constexpr std::size_t spares_max = 4;
  // Room for a message of some ten strings; measured with demo.Quake, see README.md.
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

  // The owner's thread only. Out of memory ends the process, as protobuf itself does.
  [[nodiscard]] arena_lease take() noexcept;

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
  // Destroys what was made on the arena.
  ~arena_lease();

  // Requires: taken from a shelf.
  [[nodiscard]] google::protobuf::Arena& arena() const noexcept;

 private:
  friend class arena_shelf;
  explicit arena_lease(arena_shelf::cell& taken) noexcept : cell_(&taken) {}
  arena_shelf::cell* cell_ = nullptr;
};

}  // namespace bus
