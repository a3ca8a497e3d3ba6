// See the header for the idea. The only subtle step is erase().
#include "bus/topic/slot_table.hpp"

namespace bus {
namespace {
constexpr std::size_t slots_min = 16;
}

void slot_table::place(slot fresh) noexcept {
  std::size_t at = fresh.tag & mask();
  while (slots_[at].value != nothing) at = (at + 1) & mask();
  slots_[at] = fresh;
}

void slot_table::grow() noexcept {
  std::vector<slot> old(slots_.empty() ? slots_min : slots_.size() * 2);
  old.swap(slots_);
  for (const slot& each : old) {
    if (each.value != nothing) place(each);
  }
}

void slot_table::add(std::uint32_t tag, std::uint32_t value) noexcept {
  if ((used_ + 1) * 4 > slots_.size() * 3) grow();
  place({tag, value});
  ++used_;
}

// The hole left behind would cut the probe path of entries further on. So the entries up to the
// next empty slot are looked at in turn, and each that may stand in the hole (because the hole is
// not before its home) is moved there, which moves the hole to where it came from.
void slot_table::erase(std::uint32_t tag, std::uint32_t value) noexcept {
  std::size_t hole = tag & mask();
  while (slots_[hole].value != value || slots_[hole].tag != tag) hole = (hole + 1) & mask();
  for (std::size_t at = (hole + 1) & mask(); slots_[at].value != nothing; at = (at + 1) & mask()) {
    const std::size_t from_home = (at - slots_[at].tag) & mask();
    const std::size_t from_hole = (at - hole) & mask();
    if (from_home < from_hole) continue;
    slots_[hole] = slots_[at];
    hole = at;
  }
  slots_[hole] = slot{};
  --used_;
}

}  // namespace bus
