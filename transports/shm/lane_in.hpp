// The receiver's end of one link: reads the sender's lane and arena, and writes its own answers.
//
// Everything read here was written by a stranger, and is checked once, at the place where it
// enters: an entry must point at a whole slot inside the arena and name a credit that is not held;
// the frame is copied into private memory, checked, and only the copy is used. One broken rule cuts
// this peer, and this peer only.
//
// The mappings live until the last sample is home, wherever it is held; so does the socket, since
// its end tells the sender that nobody reads its memory any more.
//
//   reading --close()--> closing --(last sample released)--> deleted
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/ids.hpp"
#include "bus/base/result.hpp"
#include "bus/link/bell.hpp"
#include "bus/link/inbox.hpp"
#include "transports/shm/layout.hpp"
#include "transports/shm/memory.hpp"
#include "transports/shm/quota.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace transports::shared {

class lane_in final : public bus::lender {
 public:
  struct closer {
    void operator()(lane_in* owned) const noexcept { owned->close(); }
  };
  using owner = std::unique_ptr<lane_in, closer>;

  // What the sender handed over.
  struct offer {
    bus::node_id sender;
    std::uint32_t depth = 0;
    std::uint64_t arena_bytes = 0;
    bus::fd arena;
    bus::fd lane;
    bus::bell_keys bell;
  };
  // Maps and checks all of it, and makes the answers. Errors: corrupt, incompatible, or the
  // kernel's.
  [[nodiscard]] static bus::result<owner> make(offer&& offered);

  // Read-only descriptor of the answers, for the sender.
  [[nodiscard]] bus::result<bus::fd> hand_out() const noexcept {
    return shared::hand_out(answers_file_.get());
  }
  // The socket, and what was granted for all of this, both until the last sample is home.
  void keep(bus::fd&& socket, quota::claim&& granted) noexcept {
    socket_ = std::move(socket);
    granted_ = std::move(granted);
  }
  // What a link of such an offer takes from the node that accepts it.
  [[nodiscard]] static demand price_of(std::uint32_t depth, std::uint64_t arena_bytes) noexcept {
    const std::uint64_t ours = depth * sizeof(cell) + answers_bytes(depth);
    return {.connections = 0,
            .links = 1,
            .descriptors = descriptors,
            .address_space = arena_bytes + lane_bytes(depth) + ours,
            .memory = ours};
  }
  [[nodiscard]] const bus::fd& socket() const noexcept { return socket_; }

  // Hands over at most `budget` samples; returns how many. No system call, unless the arena has
  // grown.
  std::size_t poll(std::size_t budget, bus::sink& into) noexcept;
  // Nothing to read. After bell::arm_*, this is the last look before the sleep.
  [[nodiscard]] bool empty() const noexcept { return broken_ || !arrived(next_); }
  // A rule was broken: nothing more will be read.
  [[nodiscard]] bool broken() const noexcept { return broken_; }

  // Nothing more will be read, although no rule was broken.
  void cut() noexcept { broken_ = true; }

  void take_back(bus::block& memory) noexcept override;

 private:
  // One sample in flight: its block and the private copy of its frame.
  struct alignas(64) cell : bus::block {
    alignas(64) bus::frame copy;
  };
  static_assert(sizeof(cell) == 128);
  static constexpr std::uint64_t prefetch_ahead = 4;
  // Arena, answers, socket, process; and the bell's event and thread, or the socket once more.
  static constexpr std::uint64_t descriptors = 6;

  lane_in() = default;
  ~lane_in() = default;
  void close() noexcept;
  [[nodiscard]] bus::result<void> map(offer&& offered);
  [[nodiscard]] bool arrived(std::uint64_t number) const noexcept;
  [[nodiscard]] bool take(std::uint64_t number, bus::sink& into) noexcept;
  [[nodiscard]] bool measure() noexcept;
  void prefetch() noexcept;

  bus::node_id sender_;
  const lane_layout* lane_head_ = nullptr;
  const entry_layout* entries_ = nullptr;
  const std::byte* payloads_ = nullptr;
  std::atomic<std::uint64_t>* bits_ = nullptr;
  cell* cells_ = nullptr;          // by credit
  std::uint64_t known_bytes_ = 0;  // of the arena, proved by the kernel
  std::uint64_t next_ = 0;         // entries read so far
  std::uint64_t fetched_ = 0;      // entries looked at ahead
  std::uint32_t depth_ = 0;
  std::uint32_t depth_log2_ = 0;
  bool broken_ = false;

  bus::fd arena_file_;
  bus::fd answers_file_;
  bus::fd socket_;
  quota::claim granted_;
  mapping arena_;
  mapping lane_;
  mapping answers_;
  mapping private_;

  std::mutex ringing_;  // ringer is for one thread at a time, and releases come from any
  std::unique_ptr<bus::ringer> ringer_;
  std::int64_t accepted_ = 0;
  // Minus the samples released; close() adds those accepted, and whoever meets zero deletes.
  alignas(64) std::atomic<std::int64_t> remaining_{0};
};

}  // namespace transports::shared
