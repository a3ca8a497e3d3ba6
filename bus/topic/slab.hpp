// Small plain records by number: stored in blocks that never move, reused through a free list that
// runs through the records themselves. Growing copies nothing and wastes at most one block; a
// number is half a pointer. For this room's own use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace bus {

// `Record` is trivial and has a member `std::uint32_t next_free`, which the slab uses (only) while
// the record is free.
template <class Record>
class slab {
 public:
  static_assert(std::is_trivial_v<Record>);

  // A record with undefined contents. Out of memory aborts.
  [[nodiscard]] std::uint32_t take() noexcept {
    ++live_;
    if (first_free_ != none) return std::exchange(first_free_, (*this)[first_free_].next_free);
    if (used_ == capacity()) blocks_.push_back(std::make_unique_for_overwrite<Record[]>(block));
    return static_cast<std::uint32_t>(used_++);
  }

  // Requires: `index` was taken and not put back.
  void put_back(std::uint32_t index) noexcept {
    (*this)[index].next_free = std::exchange(first_free_, index);
    --live_;
  }

  [[nodiscard]] Record& operator[](std::size_t index) noexcept {
    return blocks_[index / block][index % block];
  }
  [[nodiscard]] const Record& operator[](std::size_t index) const noexcept {
    return blocks_[index / block][index % block];
  }

  [[nodiscard]] std::size_t live() const noexcept { return live_; }
  // Every index ever taken is below this one.
  [[nodiscard]] std::size_t used() const noexcept { return used_; }
  [[nodiscard]] std::size_t capacity() const noexcept { return blocks_.size() * block; }
  [[nodiscard]] std::size_t bytes() const noexcept {
    return capacity() * sizeof(Record) + blocks_.capacity() * sizeof(blocks_[0]);
  }

  void swap(slab& other) noexcept {
    blocks_.swap(other.blocks_);
    std::swap(first_free_, other.first_free_);
    std::swap(used_, other.used_);
    std::swap(live_, other.live_);
  }

 private:
  static constexpr std::size_t block = 256;
  static constexpr std::uint32_t none = 0xffffffff;

  std::vector<std::unique_ptr<Record[]>> blocks_;
  std::uint32_t first_free_ = none;
  std::size_t used_ = 0;
  std::size_t live_ = 0;
};

}  // namespace bus
