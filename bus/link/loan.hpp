// A loan is memory to write a message into, lent from where it will be read. It has one owner. Drop
// it, and it goes home unsent; commit it, and it becomes a sample that nobody can change any more.
#pragma once

#include "bus/base/step.hpp"
#include "bus/link/sample.hpp"

#include <new>
#include <span>
#include <utility>

namespace bus {

class loan {
 public:
  // Adopts a block with one reference, whose payload has room for a frame in the 64 bytes before
  // it.
  explicit loan(block& memory) noexcept : block_(&memory) {}
  loan(loan&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  loan& operator=(loan&& other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  loan(const loan&) = delete;
  loan& operator=(const loan&) = delete;
  ~loan() {
    if (block_) block_->home->take_back(*block_);
  }

  // Writable, aligned to payload_align, at least as large as asked for.
  [[nodiscard]] std::span<std::byte> bytes() const noexcept {
    return {block_->payload, static_cast<std::size_t>(block_->capacity)};
  }

  // Puts `head` before the payload and seals both. Requires: head.bytes <= bytes().size().
  [[nodiscard]] sample commit(const frame& head) && noexcept {
    BUS_CHECK(head.bytes <= block_->capacity);
    step("loan.commit.frame");
    // Field by field: a copy by wider words than those that have just written `head` would wait
    // until these have left the processor, and all stores before them.
    block_->head = new (block_->payload - sizeof(frame)) frame{.version = head.version,
                                                               .flags = head.flags,
                                                               .publisher = head.publisher,
                                                               .node = head.node,
                                                               .topic_hash = head.topic_hash,
                                                               .type_hash = head.type_hash,
                                                               .sequence = head.sequence,
                                                               .sent_ns = head.sent_ns,
                                                               .correlation = head.correlation,
                                                               .bytes = head.bytes};
    return sample(*std::exchange(block_, nullptr));
  }

 private:
  block* block_;
};

}  // namespace bus
