// Received samples on their way home, for transports that copy bytes. A cell is the block of one
// received sample: it holds the memory (a sample of the receive pool) and remembers which credit of
// which link it occupies. Whoever drops the last reference, on whatever thread, gives the memory
// back at once and leaves the cell on a lock-free stack; the node's thread collects the cells and
// reports their credits.
//
// If the node sleeps, a descriptor of ours wakes it, since an idle receiver must not keep its
// sender waiting. Samples may outlive the transport: the last cell home takes the rest with it.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/result.hpp"
#include "bus/link/sample.hpp"

#include <atomic>
#include <cstdint>
#include <memory>

namespace bus {

class homecoming final : public lender {
 public:
  struct cell final : block {
    sample memory;
    std::uint32_t link = 0;  // the receiver's number of the link
    std::uint32_t credit = 0;
    std::uint64_t bytes = 0;
    cell* next = nullptr;
  };
  struct closer {
    void operator()(homecoming* owned) const noexcept { owned->close(); }
  };
  using owner = std::unique_ptr<homecoming, closer>;
  // Errors: the kernel's (no descriptors).
  [[nodiscard]] static result<owner> make();

  // --- the node's thread
  // A sample that shows `memory`, and whose end is reported with link and credit.
  [[nodiscard]] sample send_out(sample memory, std::uint32_t link, std::uint32_t credit);
  // Those that came home since the last call, oldest first, each to be recycled.
  [[nodiscard]] cell* collect() noexcept;
  void recycle(cell& home) noexcept;
  // From now on, the next one home makes descriptor() readable. False: one is here.
  [[nodiscard]] bool arm() noexcept;
  void disarm() noexcept;
  [[nodiscard]] int descriptor() const noexcept { return event_.get(); }
  void drain() noexcept;

  // --- any thread
  void take_back(block& memory) noexcept override;

 private:
  homecoming() = default;
  ~homecoming();
  void close() noexcept;
  static void delete_list(cell* first) noexcept;

  cell* free_ = nullptr;
  fd event_;
  alignas(64) std::atomic<cell*> returned_{nullptr};
  std::atomic<bool> asleep_{false};
  // Cells out, plus one for the owner; whoever takes it to zero deletes this.
  std::atomic<std::uint64_t> users_{1};
};

}  // namespace bus
