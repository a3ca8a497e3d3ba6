// What goes out over one pipe, in order: the hello, messages and byes as they were queued, and
// between two of them what is owed to the peer. A full pipe stops it anywhere, also in the middle
// of a record, and the next flush goes on there.
//
// Nothing is copied in advance: a queued message is a reference in the purse, and what is owed is a
// note in the tab until there is room for it. So a peer that does not read costs what its credits
// allow and no more, and whoever cannot write can still read.
//
// Messages that go by page and wait together go as a series: first all their heads, which lie side
// by side in memory where their credits do, then all their payloads. A pipe has room for so many
// pieces of memory, whatever their size, and each costs the kernel as much as a small copy.
#pragma once

#include "bus/link/credits.hpp"
#include "transports/pipe/ends.hpp"
#include "transports/pipe/wire.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

namespace transports::pipes {

class outflow {
 public:
  // `lends_pages`: large payloads, see ends::lend.
  explicit outflow(bool lends_pages);
  ~outflow();

  // Before anything else.
  void say(std::span<const std::byte> hello);
  // The peer's limits. Nothing has room before.
  void open(std::uint32_t depth, std::uint64_t bytes_max);
  // Queues `one` and returns its credit. Requires: purse().has_room(its bytes).
  std::uint32_t queue(const bus::sample& one);
  void queue_bye();

  // Writes what is queued, and what `owed` says, if there is something to write anyhow or
  // `report`. False: the pipe is full. Errors: gone, or the kernel's.
  [[nodiscard]] bus::result<bool> flush(ends& to, bus::tab& owed, bool report);
  // Whether all was written.
  [[nodiscard]] bool is_idle() const noexcept { return said_.empty() && queue_.empty(); }
  // Whether all messages of `run` were written to their ends, and so may be let go of. Requires:
  // its credits are the peer's.
  [[nodiscard]] bool has_left(bus::credit_run run) const noexcept;
  // Messages and byes that are queued, and the bytes of their payloads.
  [[nodiscard]] std::size_t waiting() const noexcept { return queue_.size(); }
  [[nodiscard]] std::uint64_t waiting_bytes() const noexcept { return waiting_bytes_; }
  // Byes that are queued.
  [[nodiscard]] std::size_t byes() const noexcept { return byes_; }

  [[nodiscard]] bus::purse& purse() noexcept { return purse_; }
  [[nodiscard]] const bus::purse& purse() const noexcept { return purse_; }
  // Whether a pipe in which so many bytes are unread refers to our pages.
  [[nodiscard]] bool lends(std::size_t unread) const noexcept {
    return has_lent_ && unread > copied_since_;
  }
  // Whether it ever did.
  [[nodiscard]] bool has_lent() const noexcept { return has_lent_; }
  // The link is over: lets go of everything. Pages that the pipe still refers to are lost: kept,
  // and never used again.
  void clear(bool lose_pages) noexcept;

 private:
  static constexpr std::uint32_t bye_entry = UINT32_MAX;

  struct gathered;
  [[nodiscard]] std::uint64_t bytes_of_entry(std::uint32_t entry) const noexcept;
  [[nodiscard]] bool goes_by_page(std::uint32_t entry) const noexcept;
  void note_owed(bus::tab& owed);
  void begin_series() noexcept;
  void gather(gathered& all) noexcept;
  void gather_series(gathered& all) noexcept;
  void advance(std::size_t bytes) noexcept;

  bus::purse purse_;
  std::vector<std::byte> said_;  // goes before the queue; at most the hello, or one release
  std::size_t said_at_ = 0;
  std::deque<std::uint32_t> queue_;  // credits, and byes
  std::vector<bool> is_queued_;      // by credit
  std::uint64_t waiting_bytes_ = 0;  // of the payloads in it
  std::uint64_t at_ = 0;             // bytes of the first entry that were written
  std::size_t series_ = 0;           // so many at the front are one series
  std::uint64_t heads_left_ = 0;     // bytes of its heads; they are not counted in at_
  std::size_t byes_ = 0;
  bool lends_pages_;
  bool has_lent_ = false;
  std::uint64_t copied_since_ = 0;     // bytes
  std::vector<message_layout> heads_;  // of messages that go by page, by credit
  std::unique_ptr<gathered> gathered_;
};

}  // namespace transports::pipes
