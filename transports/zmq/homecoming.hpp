// Received samples on their way home. A cell is the block of one received sample: it holds the
// memory (a sample of the receive pool) and remembers which credit of which link it occupies.
// Whoever drops the last reference, on whatever thread, gives the memory back at once and leaves
// the cell on a lock-free stack; the node's thread collects the cells and reports their credits.
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

namespace transports::zeromq {

struct cell final : bus::block {
  bus::sample memory;
  std::uint32_t link = 0;  // the receiver's number of the link
  std::uint32_t credit = 0;
  std::uint64_t bytes = 0;
  cell* next = nullptr;
};

class homecoming final : public bus::lender {
 public:
  struct closer {
    void operator()(homecoming* owned) const noexcept { owned->close(); }
  };
  using owner = std::unique_ptr<homecoming, closer>;
  // Errors: the kernel's (no descriptors).
  [[nodiscard]] static bus::result<owner> make();

  // --- the node's thread
  // A sample that shows `memory`, and whose end is reported with link and credit.
  [[nodiscard]] bus::sample send_out(bus::sample memory, std::uint32_t link, std::uint32_t credit);
  // Those that came home since the last call, oldest first, each to be recycled.
  [[nodiscard]] cell* collect() noexcept;
  void recycle(cell& home) noexcept;
  // From now on, the next one home makes descriptor() readable. False: one is here.
  [[nodiscard]] bool arm() noexcept;
  void disarm() noexcept;
  [[nodiscard]] int descriptor() const noexcept { return event_.get(); }
  void drain() noexcept;

  // --- any thread
  void take_back(bus::block& memory) noexcept override;

 private:
  homecoming() = default;
  ~homecoming();
  void close() noexcept;
  static void delete_list(cell* first) noexcept;

  cell* free_ = nullptr;
  bus::fd event_;
  alignas(64) std::atomic<cell*> returned_{nullptr};
  std::atomic<bool> asleep_{false};
  // Cells out, plus one for the owner; whoever takes it to zero deletes this.
  std::atomic<std::uint64_t> users_{1};
};

}  // namespace transports::zeromq
