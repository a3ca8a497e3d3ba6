// One link: a ring of samples between the sender's and the receiver's thread, one writer and one
// reader. What goes through are references; no byte of a message moves.
//
//   cells   [head, tail) are full; the reader empties from head, the writer fills from tail
//   ended   the writer will write no more: the reader empties the ring, reports it, and lets go
//   closed  the reader will read no more, and has emptied the ring: what the writer put in
//           meanwhile is the writer's to take out again (reclaim)
//
// Either side may sleep. Each publishes first and looks afterwards whether the other one sleeps;
// the other one says first that it will sleep and looks afterwards whether something was
// published. All four are seq_cst, so that at least one of two such looks sees the other's word;
// this is the only reason why anything here is stronger than release and acquire.
#pragma once

#include "bus/base/ids.hpp"
#include "bus/link/inbox.hpp"
#include "bus/link/sample.hpp"
#include "transports/inproc/port.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace transports {

class lane {
 public:
  // Requires: `depth` is a power of two. `source` is where the writer is rung.
  lane(std::uint32_t depth, bus::node_id from, std::shared_ptr<port> source)
      : cells_(std::make_unique<bus::sample[]>(depth)),
        mask_(depth - 1),
        from_(from),
        source_(std::move(source)) {}

  [[nodiscard]] bus::node_id from() const noexcept { return from_; }

  // --- the writer's thread
  // How many of `wanted` can be put now.
  [[nodiscard]] std::size_t room(std::size_t wanted) noexcept {
    if (free_cells() < wanted) look();
    return std::min(free_cells(), wanted);
  }
  // Fills the next cell, invisibly until publish(). Requires room().
  void put(bus::sample&& one) noexcept { cells_[written_++ & mask_] = std::move(one); }
  void publish() noexcept {
    // Pairs with: take, acquire of tail_ (the cells), and idle, seq_cst of tail_ (the sleep).
    tail_.store(written_, std::memory_order_seq_cst);
  }
  // Not yet taken by the reader, as of now.
  [[nodiscard]] std::size_t in_flight() noexcept {
    look();
    return static_cast<std::size_t>(written_ - seen_head_);
  }
  void end() noexcept {
    // Pairs with: finished, acquire of ended_, and idle, seq_cst of ended_ (the sleep).
    ended_.store(true, std::memory_order_seq_cst);
  }
  [[nodiscard]] bool closed() const noexcept {
    // Pairs with: close, seq_cst of closed_. Acquire: the reader has emptied its cells.
    return closed_.load(std::memory_order_seq_cst);
  }
  // Takes back what nobody will read. Requires closed().
  void reclaim() noexcept {
    for (std::uint64_t at = head_.load(std::memory_order_relaxed); at != written_; ++at) {
      cells_[at & mask_] = bus::sample();
    }
    // Relaxed: the reader has gone, and we are alone.
    head_.store(written_, std::memory_order_relaxed);
    seen_head_ = written_;
  }
  // Asks for a ring when the reader has taken something or has gone. False: it did so since it was
  // last asked, whoever has looked meanwhile.
  [[nodiscard]] bool ask() noexcept {
    // Pairs with: answer, seq_cst of asked_.
    asked_.store(true, std::memory_order_seq_cst);
    look();
    if (std::exchange(head_when_asked_, seen_head_) == seen_head_ && !closed()) return true;
    asked_.store(false, std::memory_order_relaxed);  // a late answer costs one needless wakeup
    return false;
  }

  // --- the reader's thread
  // Hands at most `quota` messages over, and the rest of a batch, in order; returns how many.
  std::size_t take(std::size_t quota, bus::sink& into) noexcept {
    const std::uint64_t head = head_.load(std::memory_order_relaxed);  // ours alone
    // Pairs with: publish, of tail_.
    const std::uint64_t there = tail_.load(std::memory_order_acquire) - head;
    if (there == 0 || quota == 0) return 0;
    std::size_t messages = 0;
    std::uint64_t at = head;
    for (; at != head + there && messages < quota; ++at) {
      bus::sample one = std::move(cells_[at & mask_]);
      messages += std::max(1U, one.messages());
      into.accept(std::move(one));
    }
    // Pairs with: look, of head_. The cells are empty before the writer fills them again.
    head_.store(at, std::memory_order_seq_cst);
    answer();
    return messages;
  }
  // Nothing to take and nothing to report. To be called after having said that we sleep.
  [[nodiscard]] bool idle() const noexcept {
    // Pairs with: publish and end, seq_cst.
    return tail_.load(std::memory_order_seq_cst) == head_.load(std::memory_order_relaxed) &&
           !ended_.load(std::memory_order_seq_cst);
  }
  // The writer has gone, and everything was taken.
  [[nodiscard]] bool finished() const noexcept {
    // Pairs with: end. What was published before the end is visible now, so tail_ is final.
    return ended_.load(std::memory_order_acquire) &&
           tail_.load(std::memory_order_relaxed) == head_.load(std::memory_order_relaxed);
  }
  // Lets go of everything, and never touches the ring again.
  void close() noexcept {
    std::uint64_t head = head_.load(std::memory_order_relaxed);
    for (; head != tail_.load(std::memory_order_acquire); ++head) {
      cells_[head & mask_] = bus::sample();
    }
    head_.store(head, std::memory_order_relaxed);  // published by closed_
    // Pairs with: closed, acquire, and ask, seq_cst of asked_ (the sleep).
    closed_.store(true, std::memory_order_seq_cst);
    answer();
  }

 private:
  [[nodiscard]] std::size_t free_cells() const noexcept {
    return static_cast<std::size_t>(mask_ + 1 - (written_ - seen_head_));
  }
  void look() noexcept {
    // Pairs with: take, of head_.
    seen_head_ = head_.load(std::memory_order_seq_cst);
  }
  void answer() noexcept {
    // Pairs with: ask. Only the one who takes the question back rings.
    if (asked_.load(std::memory_order_seq_cst) && asked_.exchange(false)) source_->ring();
  }

  const std::unique_ptr<bus::sample[]> cells_;
  const std::uint64_t mask_;
  const bus::node_id from_;
  const std::shared_ptr<port> source_;

  // What one side writes in one pair of cache lines (they are fetched in pairs), so that the sides
  // meet only where they must. Counters never wrap: 2^64 messages are 500 years at 10^9 a second.
  alignas(128) std::atomic<std::uint64_t> tail_{0};
  std::atomic<bool> ended_{false};
  std::atomic<bool> asked_{false};          // in the line that the reader has just read for tail_
  alignas(128) std::uint64_t written_ = 0;  // the writer's own
  std::uint64_t seen_head_ = 0;
  std::uint64_t head_when_asked_ = 0;  // what ask() has told of
  alignas(128) std::atomic<std::uint64_t> head_{0};
  std::atomic<bool> closed_{false};
};

}  // namespace transports
