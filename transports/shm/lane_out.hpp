// The sender's end of one link: a ring of entries that the peer reads, and the samples that the
// peer still holds.
//
// Each sample in flight has a credit, one of `depth`. The peer flips the credit's bit in its
// answers when it lets go, in any order and from any thread; we compare with the bits seen before.
// Credits also keep the ring safe: an entry is used again only `depth` messages later, when its
// reader must have released something sent after it, and so has read it.
//
// A small message may travel by value instead, in a cell of the lane: it needs no slot, no credit,
// and no look into the arena. Cells are given back by a count.
//
// A hostile peer can flip what it likes: it can keep or free its own credits, and nothing else.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/result.hpp"
#include "bus/base/step.hpp"
#include "bus/link/sample.hpp"
#include "transports/shm/arena.hpp"
#include "transports/shm/layout.hpp"
#include "transports/shm/memory.hpp"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace transports::shared {

class lane_out {
 public:
  // Makes the lane's memory. `depth`: a power of two, at most depth_max. Errors: the kernel's.
  [[nodiscard]] static bus::result<lane_out> make(std::uint32_t depth);

  // Read-only descriptor of the lane, for the receiver.
  [[nodiscard]] bus::result<bus::fd> hand_out() const noexcept {
    return shared::hand_out(file_.get());
  }
  // The receiver's answers. Errors: corrupt or incompatible unless they fit this lane.
  [[nodiscard]] bus::result<void> open(const bus::fd& answers);

  [[nodiscard]] bool has_credit() const noexcept { return sent_ != home_; }
  // Whether a message can go by value, as far as is known without a scan().
  [[nodiscard]] bool has_cell() const noexcept { return cells_sent_ - cells_home_ <= cell_mask_; }
  // Samples that the peer has not let go of, and messages by value that it has not read.
  [[nodiscard]] std::size_t in_flight() const noexcept {
    return held_.size() - static_cast<std::size_t>(home_ - sent_) +
           static_cast<std::size_t>(cells_sent_ - cells_home_);
  }
  [[nodiscard]] std::uint32_t depth() const noexcept {
    return static_cast<std::uint32_t>(held_.size());
  }
  // Whether so much was sent since the last scan that another one is worth two cache lines.
  [[nodiscard]] bool scan_due() const noexcept {
    return sent_since_scan_ >= scan_after_messages || bytes_since_scan_ >= scan_after_bytes;
  }

  // Publishes one entry. `given` is what the user sent; `copied` is the copy in the arena, if there
  // had to be one. Both are held until the credit is home. Requires: has_credit().
  void push(bus::sample&& given, bus::sample&& copied, std::uint64_t offset) noexcept;
  // The same with its frame beside the entry, so that the reader need not look for it in the arena.
  // Requires: has_credit(), has_cell().
  void push_by_reference(bus::sample&& given, std::uint64_t offset) noexcept;
  // Where the next message by value will lie, for payload_bytes_max bytes; nobody sees it before
  // push_claimed(), and any other push makes it void. Requires: has_cell().
  [[nodiscard]] std::byte* claim() noexcept;
  // Sends what was written there. Requires: claim(), and no push since.
  void push_claimed(const bus::frame& head) noexcept;
  // Both, for a sample that is the caller's still. Requires: has_cell().
  void push_by_value(const bus::sample& given) noexcept;
  // Takes back what the peer let go of; returns how many samples and cells. Requires:
  // arena::returning, if the arena's slots shall come home cheaply.
  std::size_t scan() noexcept;
  // The same for slots alone, and for cells alone. The count of cells read lies in a line that the
  // peer writes at each look, and has to be waited for.
  std::size_t scan_credits() noexcept;
  std::size_t scan_cells() noexcept;
  // Forgets the peer: takes everything back at once.
  void reclaim() noexcept;
  // Asks the receiver to ring our bell when it releases something, or stops asking.
  void ask(bool wanted) noexcept;

 private:
  friend struct probe;  // tests/model
  // Guesses, between the price of a scan (about 0.2 us) and the cache that waiting slots cover.
  static constexpr std::uint32_t scan_after_messages = 64;
  static constexpr std::uint64_t scan_after_bytes = 256 << 10;
  // By measurement: 1 to 3 make 1.5 times the messages that none makes, 6 and more make less.
  static constexpr std::uint64_t cells_ahead = 3;

  std::uint32_t lend_credit(bus::sample&& given) noexcept;
  cell_layout& begin_cell() noexcept;
  void end_cell(cell_layout& one, const bus::frame& head) noexcept;
  void keep_copy(std::uint32_t credit, bus::sample&& copied) noexcept;
  void let_go(std::uint32_t credit) noexcept;
  void come_home(std::uint32_t credit) noexcept { free_[home_++ & (free_.size() - 1)] = credit; }

  [[nodiscard]] lane_layout& head() const noexcept {
    return *reinterpret_cast<lane_layout*>(lane_.at());
  }
  [[nodiscard]] entry_layout& entry(std::uint64_t number) const noexcept {
    return entries_[number & (held_.size() - 1)];
  }

  bus::fd file_;
  mapping lane_;
  mapping answers_;
  entry_layout* entries_ = nullptr;
  cell_layout* cells_ = nullptr;
  const answers_layout* answers_head_ = nullptr;
  const std::atomic<std::uint64_t>* bits_ = nullptr;
  std::uint64_t next_ = 0;        // entries published so far
  std::uint64_t cells_sent_ = 0;  // cells published so far
  std::uint64_t cells_home_ = 0;  // of them, read by the peer as far as known
  std::uint64_t cell_mask_ = 0;
  std::uint32_t depth_log2_ = 0;
  std::uint32_t sent_since_scan_ = 0;
  std::uint64_t bytes_since_scan_ = 0;
  bool asking_ = false;
  std::vector<std::uint32_t> free_;  // credits at home: a ring, used in the order of their coming
  std::uint64_t sent_ = 0;           // credits taken out of free_ so far
  std::uint64_t home_ = 0;           // credits put into free_ so far
  std::vector<bus::sample> held_;    // by credit: what the user sent
  std::vector<bus::sample> copies_;  // by credit: its copy in the arena; empty until there is one
  std::vector<std::uint64_t> out_;   // by credit, a bit: the peer has it
  std::vector<std::uint64_t> seen_;  // by credit, a bit: the parity when it was last at home
};

// --- the data path, inline: at 64 bytes, calls cost more than what they do

inline std::uint32_t lane_out::lend_credit(bus::sample&& given) noexcept {
  BUS_CHECK(has_credit());
  const std::uint32_t credit = free_[sent_++ & (free_.size() - 1)];
  bytes_since_scan_ += given.head().bytes;
  ++sent_since_scan_;
  held_[credit] = std::move(given);
  out_[credit / 64] |= 1ULL << credit % 64;
  return credit;
}

inline void lane_out::push(bus::sample&& given, bus::sample&& copied,
                           std::uint64_t offset) noexcept {
  const std::uint32_t credit = lend_credit(std::move(given));
  if (copied) keep_copy(credit, std::move(copied));
  entry_layout& one = entry(next_);
  const auto lap = static_cast<std::uint32_t>((next_ >> depth_log2_) + 1);
  ++next_;
  bus::step("lane.push.offset");
  // Relaxed: the mark makes it valid.
  one.place.store(join(offset, cells_sent_), std::memory_order_relaxed);
  bus::step("lane.push.mark");
  // Pairs with: lane_in::look, acquire of mark. Publishes frame, payload and place.
  one.mark.store(make_mark(lap, credit), std::memory_order_release);
}

inline cell_layout& lane_out::begin_cell() noexcept {
  // The reader has the lines of the cells to come. Asked for so early, they are here when they are
  // written to, and no store waits for them.
  const cell_layout& soon = cells_[(cells_sent_ + cells_ahead) & cell_mask_];
  __builtin_prefetch(&soon, 1);
  __builtin_prefetch(soon.payload + sizeof(std::uint64_t), 1);
  bus::step("lane.cell.fill");
  return cells_[cells_sent_ & cell_mask_];
}

// Field by field, as in loan::commit and for its reason.
inline void lane_out::end_cell(cell_layout& one, const bus::frame& head) noexcept {
  one.flags = head.flags;
  one.publisher = head.publisher;
  one.topic_hash = head.topic_hash;
  one.type_hash = head.type_hash;
  one.sequence = head.sequence;
  one.sent_ns = head.sent_ns;
  one.correlation = head.correlation;
  bus::step("lane.cell.mark");
  // Pairs with: lane_in::look, acquire of mark. Publishes all of the cell, and what it refers to.
  one.mark.store(join(++cells_sent_, next_), std::memory_order_release);
}

inline std::byte* lane_out::claim() noexcept { return begin_cell().payload; }

inline void lane_out::push_claimed(const bus::frame& head) noexcept {
  cell_layout& one = cells_[cells_sent_ & cell_mask_];
  one.bytes = static_cast<std::uint16_t>(head.bytes);
  end_cell(one, head);
}

inline void lane_out::push_by_value(const bus::sample& given) noexcept {
  const auto payload = given.payload();
  std::byte* const at = claim();
  if (!payload.empty()) std::memcpy(at, payload.data(), payload.size());
  push_claimed(given.head());
}

inline void lane_out::push_by_reference(bus::sample&& given, std::uint64_t offset) noexcept {
  cell_layout& one = begin_cell();
  one.bytes = cell_layout::by_reference;
  const bus::frame& head = given.head();
  new (one.payload) reference_layout{.offset = offset,
                                     .bytes = head.bytes,
                                     .credit = lend_credit(std::move(given)),
                                     .reserved = 0};
  // The sample is held by its credit, and its frame with it.
  end_cell(one, head);
}

inline std::size_t lane_out::scan_cells() noexcept {
  if (!answers_head_) return 0;
  bus::step("lane.scan.cells");
  // Pairs with: lane_in::report, of cells_read: the peer's reads of the cells come before. And
  // seq_cst with ask(), as for the bits.
  const std::uint64_t read = answers_head_->cells_read.load(std::memory_order_seq_cst);
  const std::uint64_t came = read - cells_home_;
  // A liar's number frees nothing.
  if (came > cells_sent_ - cells_home_) return 0;
  cells_home_ = read;
  return static_cast<std::size_t>(came);
}

inline void lane_out::ask(bool wanted) noexcept {
  if (wanted == asking_) return;
  asking_ = wanted;
  bus::step("lane.ask.want_room");
  // Pairs with: lane_in::take_back, load of want_room after its fetch_xor; all four are seq_cst.
  head().want_room.store(wanted ? 1 : 0, std::memory_order_seq_cst);
}

}  // namespace transports::shared
