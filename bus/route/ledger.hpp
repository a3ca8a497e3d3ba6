// The books: what was offered, taken, delivered and lost, as rows of numbers. A row has one writer,
// its node's own thread, and any number of readers in other processes, who map the node's ledger
// file and need nobody's help: a stopped or killed node's books can still be read.
//
// The sum that must come out, for every subscription and from the moment that it was attached:
//
//   published = delivered + queued + lost by each cause
//
// Layout of the file: one ledger_header of 4096 bytes, then rows of 128 bytes (LAYOUT.md).
#pragma once

#include "bus/base/ids.hpp"
#include "bus/link/refusal.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace bus {

// Why a sample that was published to a subscription did not reach its user.
enum class loss : std::uint8_t {
  queue_full,    // nobody took it in time: the link or the subscription had no room
  overwritten,   // a newer one took its place, as the subscription asked (drop::oldest)
  too_big,       // larger than the link carries
  no_link,       // the link was down
  expired,       // older than the subscription accepts
  decode_error,  // bytes that are not what the type says
  cut,           // the publisher died with samples that nobody can give any more
};
inline constexpr std::size_t loss_count = 7;
[[nodiscard]] std::string_view name_of(loss cause) noexcept;

enum class row_kind : std::uint32_t {
  unused = 0,
  publisher = 1,
  subscription = 2,
  link = 3,
  source = 4,
  refusals = 5,
  gate = 6,
  relay = 7
};

// The columns of each kind, as indices into ledger_row::counts.
namespace column {
// publisher: row.number is the publisher's number.
inline constexpr std::size_t published = 0;   // = the last sequence
inline constexpr std::size_t offered = 1;     // published x links attached at the time
inline constexpr std::size_t taken = 2;       // of the offered
inline constexpr std::size_t full = 3;        // of the offered, not taken for want of room
inline constexpr std::size_t sent_bytes = 4;  // payload bytes published
inline constexpr std::size_t attached = 5;    // links attached now
inline constexpr std::size_t refused = 6;     // publish calls that failed before they were numbered
// subscription: row.number is the subscription's number. Losses follow at lost + loss.
inline constexpr std::size_t delivered = 0;
inline constexpr std::size_t queued = 1;  // arrived, not yet taken by the user
inline constexpr std::size_t received_bytes = 2;
inline constexpr std::size_t expected = 3;  // published since attached, as far as known
inline constexpr std::size_t sources = 4;   // publishers attached now
inline constexpr std::size_t lost = 5;      // 5 .. 11
inline constexpr std::size_t copied = 12;   // while they waited, so that their links had places
// link: row.peer is the peer, row.other is unused.
inline constexpr std::size_t link_taken = 0;
inline constexpr std::size_t link_full = 1;
inline constexpr std::size_t link_bytes = 2;
inline constexpr std::size_t link_copied = 3;
inline constexpr std::size_t link_wakeups = 4;
inline constexpr std::size_t link_unsettled = 5;  // sent and not yet let go of by the peer
inline constexpr std::size_t link_moved_ns = 6;   // steady clock, when unsettled last shrank
inline constexpr std::size_t link_fallen = 7;  // wakeups by eventfd, because a signal was refused
// source: row.number is the subscription, row.peer the sending node, row.other its publisher.
inline constexpr std::size_t source_sequence = 0;  // the last one accounted for
inline constexpr std::size_t source_arrived = 1;
inline constexpr std::size_t source_lost = 2;
inline constexpr std::size_t source_gone = 3;  // 1 when the publisher has left
// refusals: whom one transport did not let in, by bus::refusal. row.peer is the user's number (or
// refusal_book::others), row.other the transport's scheme, as scheme_word() packs it.
inline constexpr std::size_t refused_for = 0;  // 0 .. 12
// gate: a subscription that blocks, as one of its publishers sees it. row.number is the publisher,
// row.peer the subscription's node, row.other the subscription.
inline constexpr std::size_t gate_limit = 0;      // the last number for which it has a place
inline constexpr std::size_t gate_waits = 1;      // how many times it had none
inline constexpr std::size_t gate_waited_ns = 2;  // in all, without the one that is going on
inline constexpr std::size_t gate_since_ns = 3;   // steady clock, since when it has none; 0: it has
inline constexpr std::size_t gate_lapsed = 4;     // 1: and its deadline is over
inline constexpr std::size_t gate_missed = 5;     // samples published while it had no place
inline constexpr std::size_t gate_expired = 6;    // of these, after its deadline
// relay: what is passed on for a child that is locked in. row.number is how often it was started
// again, row.peer its node, row.other its process.
inline constexpr std::size_t relay_out = 0;               // messages of its publishers
inline constexpr std::size_t relay_in = 1;                // messages to its subscriptions
inline constexpr std::size_t relay_refused_topics = 2;    // that it wished to publish
inline constexpr std::size_t relay_refused_patterns = 3;  // that it wished to subscribe to
inline constexpr std::size_t relay_refused_messages = 4;  // that it sent all the same
}  // namespace column

struct ledger_row {
  std::atomic<row_kind> kind;
  std::uint32_t number;
  std::uint64_t peer;
  std::uint64_t other;
  std::array<std::atomic<std::uint64_t>, 13> counts;

  // One writer, so no read-modify-write. Relaxed: each number stands for itself.
  void add(std::size_t which, std::uint64_t amount) noexcept {
    counts[which].store(counts[which].load(std::memory_order_relaxed) + amount,
                        std::memory_order_relaxed);
  }
  void set(std::size_t which, std::uint64_t value) noexcept {
    counts[which].store(value, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t get(std::size_t which) const noexcept {
    return counts[which].load(std::memory_order_relaxed);
  }
  void lose(loss cause, std::uint64_t amount) noexcept {
    add(column::lost + static_cast<std::size_t>(cause), amount);
  }
};
static_assert(sizeof(ledger_row) == 128 && std::is_standard_layout_v<ledger_row>);
static_assert(column::lost + loss_count <= column::copied && column::copied < 13);
static_assert(column::refused_for + refusal_count <= 13);

// Up to eight letters of a transport's scheme in one word, and back.
[[nodiscard]] std::uint64_t scheme_word(std::string_view scheme) noexcept;
[[nodiscard]] std::string scheme_of(std::uint64_t word);

struct ledger_header {
  static constexpr std::uint32_t magic_value = 0x4752444c;  // "LDRG"
  static constexpr std::uint32_t current_version = 1;
  std::uint32_t magic;
  std::uint32_t version;
  std::uint64_t node;
  std::int64_t born_ns;             // wall clock
  std::atomic<std::uint32_t> rows;  // rows in use or once used; each row's kind tells
};
inline constexpr std::size_t ledger_header_bytes = 4096;

// A copy of one row, as a reader sees it.
struct ledger_entry {
  row_kind kind = row_kind::unused;
  std::uint32_t number = 0;
  node_id peer;
  std::uint64_t other = 0;
  std::array<std::uint64_t, 13> counts{};
};

// A copy of a whole ledger.
struct ledger_reading {
  node_id node;
  std::int64_t born_ns = 0;
  std::vector<ledger_entry> entries;
};

// The row of that kind and number; null when there is none. `peer` and `other` as in ledger_row.
[[nodiscard]] const ledger_entry* find_entry(const ledger_reading& ledger, row_kind kind,
                                             std::uint32_t number, node_id peer = {},
                                             std::uint64_t other = 0) noexcept;

// The sequence numbers of one publisher, as one subscription sees them. Pure bookkeeping: it says
// how many are missing, the caller says why.
class source_account {
 public:
  explicit source_account(std::uint64_t next_sequence = 1) noexcept : next_(next_sequence) {}

  struct arrival {
    std::uint64_t stale = 0;    // so many of its first messages are duplicates, not to be delivered
    std::uint64_t missing = 0;  // how many were lost just before it
  };
  // So many messages came together, the first with this sequence.
  [[nodiscard]] arrival arrived(std::uint64_t sequence, std::uint64_t messages = 1) noexcept {
    if (sequence < next_) {
      const std::uint64_t stale = std::min(next_ - sequence, messages);
      next_ += messages - stale;
      return {.stale = stale, .missing = 0};
    }
    const std::uint64_t missing = sequence - next_;
    next_ = sequence + messages;
    return {.stale = 0, .missing = missing};
  }
  // The publisher said that `last` was the last one published so far; returns how many of them will
  // never come.
  [[nodiscard]] std::uint64_t published_up_to(std::uint64_t last) noexcept {
    if (last < next_) return 0;
    const std::uint64_t missing = last - next_ + 1;
    next_ = last + 1;
    return missing;
  }
  [[nodiscard]] std::uint64_t last() const noexcept { return next_ - 1; }

 private:
  std::uint64_t next_;
};

}  // namespace bus
