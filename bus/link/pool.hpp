// Memory for messages that no peer can see: the heap, in recycled blocks, under a byte cap.
//
// Blocks come in powers of two. The node's thread lends; any thread gives back, on a lock-free
// stack that the lender empties in one exchange when its own list runs dry. The block used last is
// lent first, since it is the one still in the cache.
#pragma once

#include "bus/base/result.hpp"
#include "bus/link/loan.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

namespace bus {

class pool final : public lender {
 public:
  struct closer {
    void operator()(pool* owned) const noexcept { owned->close(); }
  };
  // Closing the owner lets blocks that are still out come home first.
  using owner = std::unique_ptr<pool, closer>;

  // `bytes_max`: payload capacity that may be allocated at once, lent or cached.
  [[nodiscard]] static owner make(std::uint64_t bytes_max);

  // The node's thread only. Errors: too_big (larger than the cap), no_memory (the cap is reached).
  [[nodiscard]] result<loan> lend(std::uint64_t bytes) noexcept;
  // Payload capacity allocated now, lent or cached.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  void take_back(block& memory) noexcept override;

 private:
  // A block with its place in a free list; frame and payload follow in the same allocation.
  struct cell;
  static constexpr unsigned smallest_log2 = 8;  // 256 bytes: room for most control messages
  static constexpr unsigned classes = 40;       // up to 2^47 bytes, beyond any cap

  explicit pool(std::uint64_t bytes_max) noexcept : bytes_max_(bytes_max) {}
  ~pool();
  void close() noexcept;
  void collect() noexcept;
  void trim() noexcept;
  cell* allocate(unsigned size_class) noexcept;
  static void free_list(cell* first) noexcept;

  std::uint64_t bytes_max_;
  std::uint64_t bytes_ = 0;
  std::array<cell*, classes> free_{};
  alignas(64) std::atomic<cell*> returned_{nullptr};
  // Blocks out, plus one for the owner; whoever takes it to zero deletes the pool.
  std::atomic<std::uint64_t> users_{1};
};

}  // namespace bus
