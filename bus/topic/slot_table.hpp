// A hash table of 8-byte slots for things that live elsewhere: it maps a 32-bit hash (the *tag*) to
// a 32-bit number, and the caller decides whether the thing with that number is the one meant.
//
// Why not std::unordered_map: that costs some 40 bytes an entry, and match_tree has millions.
// Open addressing with linear probing; an erased slot is closed by moving its successors back, so
// there are no tombstones and the table does not age. At most 3/4 full, at least 16 slots, doubled
// when it would be fuller: between 10.7 and 21.3 bytes an entry. For this room's own use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace bus {

class slot_table {
 public:
  static constexpr std::uint32_t nothing = std::numeric_limits<std::uint32_t>::max();

  // The value with this tag of which `is_meant(value)` is true, or `nothing`.
  template <class Predicate>
  [[nodiscard]] std::uint32_t find(std::uint32_t tag, Predicate&& is_meant) const noexcept {
    if (slots_.empty()) return nothing;
    for (std::size_t at = tag & mask();; at = (at + 1) & mask()) {
      if (slots_[at].value == nothing) return nothing;
      if (slots_[at].tag == tag && is_meant(slots_[at].value)) return slots_[at].value;
    }
  }

  // Requires: value != nothing, and the pair is not in the table. Out of memory aborts.
  void add(std::uint32_t tag, std::uint32_t value) noexcept;

  // Requires: the pair is in the table.
  void erase(std::uint32_t tag, std::uint32_t value) noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return used_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return slots_.capacity() * sizeof(slot); }

  void swap(slot_table& other) noexcept {
    slots_.swap(other.slots_);
    std::swap(used_, other.used_);
  }

 private:
  struct slot {
    std::uint32_t tag = 0;
    std::uint32_t value = nothing;
  };

  [[nodiscard]] std::size_t mask() const noexcept { return slots_.size() - 1; }
  void place(slot fresh) noexcept;
  void grow() noexcept;

  std::vector<slot> slots_;  // a power of two of them, or none
  std::size_t used_ = 0;
};

}  // namespace bus
