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
#include <functional>
#include <memory>
#include <utility>

namespace bus {

class pool final : public lender {
 public:
  struct closer {
    void operator()(pool* owned) const noexcept { owned->close(); }
  };
  // Closing the owner lets blocks that are still out come home first.
  using owner = std::unique_ptr<pool, closer>;

  // Where payloads begin: in a cache line of their own, or those of a page and more in a page, for
  // a kernel that is lent them page by page. That costs a page for each block.
  enum class start : std::uint8_t { line, page };

  // `bytes_max`: payload capacity that may be allocated at once, lent or cached. `on_return` is
  // called on the thread that gives back the first block after a lend() that had no memory; it may
  // not throw, and lives as long as blocks are out.
  [[nodiscard]] static owner make(std::uint64_t bytes_max, start payloads = start::line,
                                  std::function<void()> on_return = {});

  // The node's thread only. Errors: too_big (larger than the cap), no_memory (the cap is reached).
  [[nodiscard]] result<loan> lend(std::uint64_t bytes) noexcept;
  // The node's thread only. Whether a block has come home since a lend() that had no memory; once.
  [[nodiscard]] bool came_home() noexcept;
  // Payload capacity allocated now, lent or cached.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  void take_back(block& memory) noexcept override;

 private:
  // A block with its place in a free list; frame and payload follow in the same allocation.
  struct cell;
  static constexpr unsigned smallest_log2 = 8;  // 256 bytes: room for most control messages
  static constexpr unsigned classes = 40;       // up to 2^47 bytes, beyond any cap

  pool(std::uint64_t bytes_max, start payloads, std::function<void()>&& on_return) noexcept
      : bytes_max_(bytes_max), payloads_(payloads), on_return_(std::move(on_return)) {}
  ~pool();
  void close() noexcept;
  void collect() noexcept;
  void trim() noexcept;
  cell* take(unsigned size_class) noexcept;
  cell* allocate(unsigned size_class) noexcept;
  // From the beginning of a block's memory to its payload.
  [[nodiscard]] std::size_t bytes_before(std::uint64_t capacity) const noexcept;
  void free_list(cell* first) const noexcept;

  std::uint64_t bytes_max_;
  start payloads_;
  std::function<void()> on_return_;
  std::uint64_t bytes_ = 0;
  bool refused_ = false;  // a lend() had no memory, and came_home() has not told
  std::array<cell*, classes> free_{};
  // Read by whoever gives back, written only when memory is short.
  alignas(64) std::atomic<bool> wanted_{false};
  alignas(64) std::atomic<cell*> returned_{nullptr};
  // Blocks out, plus one for the owner; whoever takes it to zero deletes the pool.
  std::atomic<std::uint64_t> users_{1};
};

}  // namespace bus
