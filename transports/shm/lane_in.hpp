// The receiver's end of one link: reads the sender's lane and arena, and writes its own answers.
//
// Everything read here was written by a stranger, and is checked once, at the place where it
// enters: an entry must point at a whole slot inside the arena and name a credit that is not held;
// the frame is copied into private memory, checked, and only the copy is used. One broken rule cuts
// this peer, and this peer only.
//
// A message by value is copied out of its cell at once, into private memory of a sample: at most
// `depth` of these are out at a time. When all are, reading stops until one comes home, and the
// node's bell is rung then.
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
#include <optional>

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
    bus::bell* doorbell = nullptr;  // our own node's; outlives close()
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
  // Private memory for each sample that may be out: by reference, or by value.
  static constexpr std::uint64_t private_bytes = 128 + 256;
  // What a link of such an offer takes from the node that accepts it.
  [[nodiscard]] static demand price_of(std::uint32_t depth, std::uint64_t arena_bytes) noexcept {
    const std::uint64_t ours = depth * private_bytes + answers_bytes(depth);
    return {.connections = 0,
            .links = 1,
            .descriptors = descriptors,
            .address_space = arena_bytes + lane_bytes(depth) + ours,
            .memory = ours};
  }
  [[nodiscard]] const bus::fd& socket() const noexcept { return socket_; }

  // Hands over at most `budget` messages, and the rest of a batch; returns how many. No system
  // call, unless the arena has grown.
  std::size_t poll(std::size_t budget, bus::sink& into) noexcept;
  // Gives back the cells that were read, if that was put off.
  void report() noexcept;
  // Whether more private memory was used than a page for each kind of block.
  [[nodiscard]] bool is_used() const noexcept {
    return values_used_ > values_kept_ + values_a_page ||
           slots_accepted_ > slots_trimmed_ + slots_a_page;
  }
  // Gives it back to the kernel, but for what samples are out in. A system call for each kind of
  // block. The node's own thread.
  void trim() noexcept;
  // Nothing to read. After bell::arm_*, this is the last look before the sleep.
  [[nodiscard]] bool empty() const noexcept;
  // Nothing will ever be read any more, if the sender sends nothing more.
  [[nodiscard]] bool drained() const noexcept { return broken_ || look() == arrival::none; }
  // A rule was broken: nothing more will be read.
  [[nodiscard]] bool broken() const noexcept { return broken_; }

  // Nothing more will be read, although no rule was broken.
  void cut() noexcept { broken_ = true; }

  void take_back(bus::block& memory) noexcept override;

 private:
  friend struct probe;  // tests/model
  // One sample in flight: its block and the private copy of its frame.
  struct alignas(64) slot_cell : bus::block {
    alignas(64) bus::frame copy;
  };
  static_assert(sizeof(slot_cell) == 128);
  // A message that came by value.
  //
  //   home --(read from a cell)--> out --(last owner)--> home
  //                                 |--(all are out)--> wanted --(last owner rings)--> home
  //                                 |--(close)-------> closing --(last owner counts)--> home
  enum class stage : std::uint32_t { home, out, wanted, closing };
  struct alignas(64) value_cell : bus::block {
    std::atomic<stage> where;
    bus::frame copy;
    alignas(64) std::byte payload_copy[cell_layout::payload_bytes_max];
  };
  static_assert(sizeof(value_cell) == 256);
  static_assert(sizeof(slot_cell) + sizeof(value_cell) == private_bytes);
  static constexpr std::uint32_t by_value = UINT32_MAX;  // as a block's tag
  static constexpr std::uint64_t prefetch_ahead = 4;
  static constexpr std::uint32_t values_a_page = page_bytes / sizeof(value_cell);
  static constexpr std::uint32_t slots_a_page = page_bytes / sizeof(slot_cell);
  // A guess: a quarter of the cells, so that a sender need not stop, and its line moves seldom.
  static constexpr std::uint64_t tell_after = cells_max / 4;
  // What is next in the lane.
  enum class arrival : std::uint8_t { none, entry, cell, broken };
  // Arena, answers, socket, process; and the bell's event and thread, or the socket once more.
  static constexpr std::uint64_t descriptors = 6;

  lane_in() = default;
  ~lane_in() = default;
  void close() noexcept;
  [[nodiscard]] bus::result<void> map(offer&& offered);
  [[nodiscard]] arrival look() const noexcept;
  [[nodiscard]] bool cell_arrived() const noexcept;
  [[nodiscard]] bool entry_arrived(std::uint64_t number) const noexcept;
  // How many messages; 0 when a rule is broken.
  [[nodiscard]] std::size_t take_entry(bus::sink& into) noexcept;
  [[nodiscard]] std::optional<std::size_t> take_cell(bus::sink& into) noexcept;
  [[nodiscard]] std::size_t take_reference(bus::sink& into) noexcept;
  [[nodiscard]] std::size_t take_value(value_cell& one, std::uint16_t bytes,
                                       bus::sink& into) noexcept;
  [[nodiscard]] bus::frame frame_of(const cell_layout& from, std::uint64_t bytes) const noexcept;
  [[nodiscard]] slot_cell* slot_of(std::uint32_t credit, std::uint64_t offset) noexcept;
  [[nodiscard]] std::size_t hand_over(slot_cell& one, std::uint64_t offset,
                                      bus::sink& into) noexcept;
  [[nodiscard]] bool is_home(std::uint32_t index) const noexcept;
  [[nodiscard]] value_cell* find_home() noexcept;
  [[nodiscard]] value_cell* search_home() noexcept;
  [[nodiscard]] value_cell* use(std::uint32_t index) noexcept;
  // What is the same for each message that lies there.
  void prepare(value_cell& one) noexcept {
    one.tag = by_value;
    one.home = this;
    one.head = &one.copy;
    one.payload = one.payload_copy;
  }
  void tell() noexcept;
  void release_value(value_cell& home) noexcept;
  void ring_sender_if_asked() noexcept;
  void leave() noexcept;
  [[nodiscard]] bool measure() noexcept;
  void prefetch() noexcept;

  bus::node_id sender_;
  const lane_layout* lane_head_ = nullptr;
  const entry_layout* entries_ = nullptr;
  const cell_layout* cells_ = nullptr;
  const std::byte* payloads_ = nullptr;
  // Payloads that cells referred to, the last and the one before; and where the next one may be, in
  // a dialogue (null: there is none), which is only a hint for the cache: a sender takes the slot
  // of the last but one, since the last is still with us.
  const std::byte* referred_ = nullptr;
  const std::byte* referred_before_ = nullptr;
  const std::byte* expected_ = nullptr;
  answers_layout* answers_head_ = nullptr;
  std::atomic<std::uint64_t>* bits_ = nullptr;
  slot_cell* slots_ = nullptr;     // by credit
  value_cell* values_ = nullptr;   // as many
  std::uint64_t known_bytes_ = 0;  // of the arena, proved by the kernel
  std::uint64_t entries_read_ = 0;
  std::uint64_t cells_read_ = 0;
  std::uint64_t cells_reported_ = 0;  // and the sender rung, if it asked
  std::uint64_t cells_told_ = 0;      // the sender can know, if it looks
  std::uint64_t fetched_ = 0;         // entries looked at ahead
  std::uint32_t depth_ = 0;
  std::uint32_t depth_log2_ = 0;
  std::uint32_t cell_mask_ = 0;
  std::uint32_t value_hint_ = 0;   // which of values_ may be at home
  std::uint32_t values_used_ = 0;  // those before are prepared, and were out at some time
  std::uint32_t values_kept_ = 0;  // of these, so many could not be given back
  bool broken_ = false;
  bool starved_ = false;  // all of values_ are wanted
  bool idle_ = false;     // the last poll() found nothing

  bus::fd arena_file_;
  bus::fd answers_file_;
  bus::fd socket_;
  quota::claim granted_;
  mapping arena_;
  mapping lane_;
  mapping answers_;
  mapping private_slots_;
  mapping private_values_;

  // ringer is for one thread at a time, and releases come from any.
  std::mutex ringing_;
  std::unique_ptr<bus::ringer> ringer_;
  bus::bell* doorbell_ = nullptr;  // null once closed
  std::int64_t slots_accepted_ = 0;
  std::int64_t slots_trimmed_ = 0;  // of these, so many had come when memory was given back
  // The owner's share, minus the slots released; close() turns the share into what is still out,
  // and whoever meets zero deletes.
  static constexpr std::int64_t owners_share = std::int64_t{1} << 62;
  alignas(64) std::atomic<std::int64_t> remaining_{owners_share};
};

}  // namespace transports::shared
