// A sample is one published message: immutable, shared, counted. It may lie in the heap, in another
// process's arena or in a network buffer; whoever lets go of it last, on whatever thread, sends the
// memory home to its lender.
//
// It may carry a batch (batch.hpp): part(i) is then message i of it, on the same memory.
//
// The bookkeeping of one piece of memory is a `block`, owned by its lender, always in *private*
// memory: a count that another process could write would be no count at all.
#pragma once

#include "bus/base/check.hpp"
#include "bus/link/batch.hpp"
#include "bus/link/frame.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace bus {

struct block;

// Where memory comes from and goes back to.
class lender {
 public:
  // Called once, by whichever thread dropped the last reference. Does not block, does not throw.
  // The lender must outlive its blocks; it counts what is out and deletes itself after its owner
  // has closed it and the last block is home.
  virtual void take_back(block& memory) noexcept = 0;

 protected:
  ~lender() = default;
};

struct block {
  std::atomic<std::uint32_t> references{0};
  std::uint32_t tag = 0;  // the lender's own: a slot, a credit
  lender* home = nullptr;
  const frame* head = nullptr;  // what sample::head() shows: never memory that a stranger can write
  std::byte* payload = nullptr;  // aligned to payload_align where the lender can; see alignment
  std::uint64_t capacity = 0;    // bytes at payload
};

class sample {
 public:
  sample() noexcept = default;
  // Adopts one reference, which the lender has counted already.
  explicit sample(block& memory) noexcept : block_(&memory) {}
  sample(const sample& other) noexcept : block_(other.block_), part_(other.part_) {
    // Relaxed: the copier holds a reference, so the block cannot go home meanwhile.
    if (block_) block_->references.fetch_add(1, std::memory_order_relaxed);
  }
  sample(sample&& other) noexcept
      : block_(std::exchange(other.block_, nullptr)), part_(other.part_) {}
  sample& operator=(const sample& other) noexcept {
    sample(other).swap(*this);
    return *this;
  }
  sample& operator=(sample&& other) noexcept {
    block* const given = std::exchange(other.block_, nullptr);  // first: it may be ourselves
    const std::uint32_t part = other.part_;
    drop();
    block_ = given;
    part_ = part;
    return *this;
  }
  ~sample() { drop(); }

  [[nodiscard]] explicit operator bool() const noexcept { return block_ != nullptr; }
  // The frame before the memory; that of the whole batch, even for a part of it.
  [[nodiscard]] const frame& head() const noexcept { return *block_->head; }
  // Of a part, its own message.
  [[nodiscard]] std::span<const std::byte> payload() const noexcept {
    const std::span<const std::byte> whole{block_->payload,
                                           static_cast<std::size_t>(block_->head->bytes)};
    if (part_ == no_part) return whole;
    const std::uint32_t count = batch::count_in(whole);
    return part_ < count ? batch::message_in(whole, part_, count) : std::span<const std::byte>{};
  }
  // As if the message had come alone.
  [[nodiscard]] frame message_head() const noexcept {
    frame own = head();
    if (part_ == no_part) return own;
    own.flags &= static_cast<std::uint16_t>(~frame_flag::batch);
    own.sequence += part_;
    own.bytes = payload().size();
    return own;
  }

  // How many messages this is: 0 for a batch whose table does not hold.
  [[nodiscard]] std::uint32_t messages() const noexcept {
    if (part_ != no_part || (head().flags & frame_flag::batch) == 0) return 1;
    return batch::count_in(payload());
  }
  // Message `index` of a batch. Takes a reference that borrow() has counted. Requires: index <
  // messages().
  [[nodiscard]] sample part(std::uint32_t index) const noexcept {
    sample made(*block_);
    made.part_ = index;
    return made;
  }
  // Counts `parts` references at once, which costs no more than one.
  void borrow(std::uint32_t parts) const noexcept {
    // Relaxed: as for a copy.
    block_->references.fetch_add(parts, std::memory_order_relaxed);
  }
  // Gives back references that were borrowed and became no part. Requires: ours is another one.
  void repay(std::uint32_t parts) const noexcept {
    // Release: whoever takes the memory home sees our reads as done.
    block_->references.fetch_sub(parts, std::memory_order_release);
  }

  // True when nobody else refers to it: every peer that was offered it has let go.
  [[nodiscard]] bool unique() const noexcept {
    return block_->references.load(std::memory_order_acquire) == 1;
  }
  // For transports: whose memory this is, and which piece of it.
  [[nodiscard]] const block& memory() const noexcept { return *block_; }

  void swap(sample& other) noexcept {
    std::swap(block_, other.block_);
    std::swap(part_, other.part_);
  }

 private:
  void drop() noexcept {
    if (!block_) return;
    block& last = *std::exchange(block_, nullptr);
    // A sole owner needs no read-modify-write: nobody else can copy what only we hold.
    // Pairs with itself: the release half publishes this owner's reads to whoever reuses the
    // memory.
    if (last.references.load(std::memory_order_acquire) == 1 ||
        last.references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      last.home->take_back(last);
    }
  }

  static constexpr std::uint32_t no_part = UINT32_MAX;

  block* block_ = nullptr;
  std::uint32_t part_ = no_part;
};

}  // namespace bus
