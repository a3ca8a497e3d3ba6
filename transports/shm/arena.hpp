// The publisher's memory: one memfd, mapped once at its cap and filled segment by segment, in which
// every payload of this node lies exactly once. Peers map it read-only.
//
// The memory is divided into chunks of 16 KiB. A slot of up to 8 KiB shares a chunk with others of
// its size class; a larger slot is a run of chunks. Slots that came home wait in a list per class.
// Large ones are used last in, first out: the slot used last is still in the cache. Small ones are
// used first in, first out, which keeps them in the order of their addresses: the processors of
// both sides see a stream, and fetch ahead. When the memory runs short, chunks in which nothing is
// lent become free chunks again, so that no mix of sizes can wear it out.
//
// All bookkeeping is private: a peer can read payloads, and can change nothing at all.
//
//   free chunk -> carved into slots -> lent -> (committed, sent, released) -> home -> lent ...
//        ^-------------- trim, when nothing in the chunk is lent --------------/
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/result.hpp"
#include "bus/base/step.hpp"
#include "bus/link/loan.hpp"
#include "transports/shm/memory.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace transports::shared {

class arena final : public bus::lender {
 public:
  struct closer {
    void operator()(arena* owned) const noexcept { owned->close(); }
  };
  // Closing lets slots that are still out come home first; the last one frees the arena.
  using owner = std::unique_ptr<arena, closer>;

  // `bytes_max`: of the whole memory, frames included; as whole_chunks() rounds it.
  [[nodiscard]] static bus::result<owner> make(std::uint64_t bytes_max);
  // Up to whole chunks, at least one, at most what a peer maps.
  [[nodiscard]] static std::uint64_t whole_chunks(std::uint64_t bytes) noexcept;

  // --- the node's own thread
  // The size class for a payload of `bytes`. Requires: bytes <= payload_bytes_max().
  [[nodiscard]] static unsigned class_for(std::uint64_t bytes) noexcept {
    return bytes <= smallest_bytes - sizeof(bus::frame) ? 0 : larger_class_for(bytes);
  }
  // A slot that is home, the one used last first; nullptr if there is none of this class.
  [[nodiscard]] bus::block* reuse(unsigned size_class) noexcept;
  // A slot from memory that has none yet. May enter the kernel. Errors: no_memory (the cap, or the
  // kernel's), no_space.
  [[nodiscard]] bus::result<bus::block*> carve(unsigned size_class) noexcept;

  [[nodiscard]] std::uint64_t payload_bytes_max() const noexcept {
    return memory_.bytes() - sizeof(bus::frame);
  }
  [[nodiscard]] std::uint64_t bytes_max() const noexcept { return memory_.bytes(); }
  // Reserved from the kernel now.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return chunks_.size() * chunk_bytes; }
  [[nodiscard]] std::uint64_t lent() const noexcept { return lent_; }
  // Whether peers can read this memory, and where they find its frame.
  [[nodiscard]] bool owns(const bus::block& memory) const noexcept { return memory.home == this; }
  [[nodiscard]] std::uint64_t offset_of(const bus::block& memory) const noexcept {
    return static_cast<std::uint64_t>(memory.payload - memory_.at()) - sizeof(bus::frame);
  }
  // A read-only descriptor for a peer.
  [[nodiscard]] bus::result<bus::fd> hand_out() const noexcept {
    return shared::hand_out(file_.get());
  }

  // While one of these lives, samples dropped by this thread come home without any atomic
  // operation. Requires: the node's own thread.
  class returning {
   public:
    explicit returning(arena& home) noexcept : before_(std::exchange(here_, &home)) {}
    ~returning() { here_ = before_; }
    returning(const returning&) = delete;
    returning& operator=(const returning&) = delete;

   private:
    arena* before_;
  };

  // Any thread.
  void take_back(bus::block& memory) noexcept override;

 private:
  friend struct probe;  // tests/model
  static constexpr std::uint64_t chunk_bytes = 16 << 10;
  // 128 bytes (a frame and a cache line) to 8 KiB in half steps: 128 192 256 384 ... 8192.
  static constexpr std::uint64_t smallest_bytes = 128;
  static constexpr unsigned small_classes = 13;
  static constexpr std::uint64_t small_bytes_max = 8 << 10;
  // Runs of 1 to 16 chunks, then eight steps to each doubling: at most an eighth is wasted. 2^26
  // chunks are the 1 TiB that a peer maps at most.
  static constexpr unsigned exact_runs = 16;
  static constexpr unsigned classes = small_classes + exact_runs + 8 * (26 - 4);

  struct alignas(64) cell : bus::block {
    cell* next = nullptr;
    std::uint32_t chunk = 0;
    std::uint32_t size_class = 0;
  };
  static_assert(sizeof(cell) == 64);
  struct cell_list {
    cell* first = nullptr;
    cell* last = nullptr;  // meaningless while first is null
  };
  struct chunk {
    std::unique_ptr<cell[]> cells;
    std::uint32_t run = 0;   // chunks in this run, at its first one; 0 is free
    std::uint32_t live = 0;  // slots lent
  };
  static constexpr std::size_t none = SIZE_MAX;
  // Slots of up to 256 bytes make a stream: a full lane of 1024 is a quarter of a second-level
  // cache.
  static constexpr unsigned stream_classes = 3;

  arena() noexcept = default;
  ~arena() = default;
  void close() noexcept;
  [[nodiscard]] static unsigned larger_class_for(std::uint64_t bytes) noexcept;
  [[nodiscard]] std::uint64_t chunks_for(unsigned size_class) const noexcept;
  [[nodiscard]] static std::uint64_t small_bytes(unsigned size_class) noexcept;
  void collect() noexcept;
  void give(cell& home) noexcept;
  void append(cell& home) noexcept;
  bus::block* take(cell& given) noexcept;
  [[nodiscard]] std::size_t find_run(std::uint64_t count) noexcept;
  [[nodiscard]] bus::result<void> grow(std::uint64_t count) noexcept;
  void trim() noexcept;
  [[nodiscard]] bool split(std::size_t at, unsigned size_class) noexcept;
  [[nodiscard]] static cell* closed_mark() noexcept;

  static constinit thread_local arena* here_;

  bus::fd file_;
  mapping memory_;
  std::vector<chunk> chunks_;
  std::size_t first_free_ = 0;  // no chunk before it is free
  std::uint64_t idle_ = 0;      // chunks carved, but with nothing lent
  std::uint64_t lent_ = 0;
  std::array<cell_list, classes> free_{};
  // Slots that other threads gave back, newest first; closed_mark() after close().
  alignas(64) std::atomic<cell*> returned_{nullptr};
  // After close(): slots still out, once the closer has added them; whoever meets zero deletes.
  std::atomic<std::int64_t> remaining_{0};
};

// --- the data path, inline: at 64 bytes, calls cost more than what they do

inline bus::block* arena::reuse(unsigned size_class) noexcept {
  cell_list& list = free_[size_class];
  if (!list.first) collect();
  cell* const given = list.first;
  if (!given) return nullptr;
  list.first = given->next;
  return take(*given);
}

inline bus::block* arena::take(cell& given) noexcept {
  bus::step("arena.take");
  chunk& home = chunks_[given.chunk];
  if (home.live++ == 0) idle_ -= home.run;
  ++lent_;
  // Relaxed: nobody else knows the slot.
  given.references.store(1, std::memory_order_relaxed);
  return &given;
}

inline void arena::append(cell& home) noexcept {
  cell_list& list = free_[home.size_class];
  home.next = nullptr;
  (list.first ? list.last->next : list.first) = &home;
  list.last = &home;
}

inline void arena::give(cell& home) noexcept {
  bus::step("arena.home");
  if (home.size_class < stream_classes) {
    append(home);
  } else {
    cell_list& list = free_[home.size_class];
    home.next = list.first;
    if (!list.first) list.last = &home;
    list.first = &home;
  }
  chunk& place = chunks_[home.chunk];
  if (--place.live == 0) idle_ += place.run;
  --lent_;
}

}  // namespace transports::shared
