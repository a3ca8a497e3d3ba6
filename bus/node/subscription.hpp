// A subscription as the node sees it: a pattern, a bounded queue or a callback, and its books.
// Samples wait in the order of their arrival; what finds the queue full is dropped as the
// subscription asked, and counted.
#pragma once

#include "bus/link/sample.hpp"
#include "bus/node/qos.hpp"
#include "bus/node/shelter.hpp"
#include "bus/route/credit.hpp"
#include "bus/route/ledger.hpp"
#include "schemas/bus/card.pb.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bus {

// A publisher that a subscription meets.
struct source_event {
  node_id node;
  std::uint32_t publisher;
  const std::string& topic;
  const wire::Type& type;
  std::uint64_t last;  // the last number that is accounted for
};

// What somebody who passes messages on for another one wants to know. Called while the node takes
// what has arrived.
struct relaying {
  wire::Kin on_behalf_of = {};
  std::function<void(const source_event&)> joined = {};
  // What is missing up to `last` was lost for this cause.
  std::function<void(const source_event&, loss cause)> left = {};
};

class subscription {
 public:
  struct setup {
    std::uint32_t number = 0;
    wire::Interest interest;  // pattern and type
    subscription_options options;
    std::function<void(sample&&)> callback = {};  // empty: samples wait in the queue
    relaying how = {};
  };
  // `row` and `spare` outlive the subscription.
  subscription(setup wanted, ledger_row& row, shelter& spare);
  ~subscription();
  subscription(const subscription&) = delete;
  subscription& operator=(const subscription&) = delete;

  [[nodiscard]] std::uint32_t number() const noexcept { return interest_.subscription(); }
  [[nodiscard]] const wire::Interest& interest() const noexcept { return interest_; }
  [[nodiscard]] ledger_row& row() noexcept { return row_; }
  [[nodiscard]] const ledger_row& row() const noexcept { return row_; }
  [[nodiscard]] bool has_callback() const noexcept { return static_cast<bool>(callback_); }

  // A sample has come, with `messages` messages, of which the first `stale` are not wanted; they
  // are queued, handed to the callback, or dropped and counted. A batch that finds any room with
  // drop::newest is taken whole, so that nobody has to split it: a queue may be longer than its
  // depth by a batch.
  void accept(sample&& arrived, std::uint32_t messages, std::uint32_t stale) {
    row_.add(column::received_bytes, arrived.head().bytes);
    if (callback_) {
      call(std::move(arrived), messages, stale);
    } else {
      enqueue(std::move(arrived), messages, stale);
    }
  }
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  [[nodiscard]] std::size_t queued() const noexcept { return count_; }
  [[nodiscard]] std::size_t room() const noexcept {
    return count_ < ring_.size() ? ring_.size() - count_ : 0;
  }
  [[nodiscard]] drop when_full() const noexcept { return options_.when_full; }
  [[nodiscard]] bool blocks() const noexcept { return options_.when_full == drop::none; }
  // Only what they have promised a place may be accepted, if it blocks.
  [[nodiscard]] places& credit() noexcept { return places_; }
  // A queue that blocks has a place for each publisher, whatever its depth.
  void make_room();
  // The frame of the oldest message waiting, or of its batch. Requires: !empty().
  [[nodiscard]] const frame& front() const noexcept { return ring_[first_].whole.head(); }
  // Whether a message of that publisher waits. Looks at all of them.
  [[nodiscard]] bool holds(node_id node, std::uint32_t publisher) const noexcept;
  // The oldest message waiting. Not yet counted as delivered: that is settle()'s or spoil()'s.
  // Requires: !empty().
  [[nodiscard]] sample take() noexcept {
    run& oldest = ring_[first_];
    row_.set(column::queued, --count_);
    sample one;
    if (oldest.end == 0) {
      one = std::move(oldest.whole);
      end_run();
    } else {
      one = take_part(oldest);
    }
    if (blocks()) leave_place();
    return one;
  }
  void settle() noexcept { row_.add(column::delivered, 1); }
  // A publisher was attached.
  void met() noexcept { ++met_; }
  [[nodiscard]] std::uint64_t met_ever() const noexcept { return met_; }
  void spoil() noexcept { row_.lose(loss::decode_error, 1); }

  // A publisher has met it, or will not be heard of any more.
  void joined_by(const source_event& one) const {
    if (how_.joined) how_.joined(one);
  }
  void left_by(const source_event& one, loss cause) const {
    if (how_.left) how_.left(one, cause);
  }

  // Nobody wants anything more; the rest of a batch that is being handed to the callback, neither.
  void end() noexcept { ended_ = true; }

  // Called after each arrival that was queued; for whoever waits in an event loop.
  std::function<void()> on_arrival;
  // Called after so many places were left that its publishers are to hear of it, if it blocks.
  std::function<void()> on_room;

 private:
  wire::Interest interest_;
  subscription_options options_;
  std::function<void(sample&&)> callback_;
  relaying how_;
  ledger_row& row_;
  std::uint64_t met_ = 0;  // publishers since ever; who comes back counts again
  // What came together: a message, or what is left of a batch.
  struct run {
    sample whole;
    std::uint32_t next = 0;  // of the batch, the first message that still waits
    std::uint32_t end = 0;   // 0: not a batch
  };
  void enqueue(sample&& arrived, std::uint32_t messages, std::uint32_t stale) {
    const bool is_usual = messages == 1 && count_ < ring_.size() && runs_ < spare_.each() &&
                          (arrived.head().flags & frame_flag::batch) == 0;
    if (is_usual) {
      append(std::move(arrived), 1, stale, 0);
    } else {
      enqueue_specially(std::move(arrived), messages, stale);
    }
  }
  void enqueue_specially(sample&& arrived, std::uint32_t messages, std::uint32_t stale);
  void append(sample&& arrived, std::size_t fresh, std::uint32_t stale, std::uint32_t end) {
    run& last = place(runs_++);
    last.whole = std::move(arrived);
    last.next = stale;
    last.end = end;
    row_.set(column::queued, count_ += fresh);
    if (on_arrival) on_arrival();
  }
  void call(sample&& arrived, std::uint32_t messages, std::uint32_t stale);
  [[nodiscard]] sample take_part(run& oldest) noexcept;
  void leave_place() noexcept;
  void drop_oldest(std::size_t messages) noexcept;
  void end_run() noexcept {
    ring_[first_].whole = sample();
    if (++first_ == ring_.size()) first_ = 0;
    --runs_;
  }
  [[nodiscard]] run& place(std::size_t after_first) noexcept {
    const std::size_t at = first_ + after_first;
    return ring_[at < ring_.size() ? at : at - ring_.size()];
  }

  std::vector<run> ring_;  // each is at least one message, so `depth` of them are enough
  std::size_t first_ = 0;
  std::size_t runs_ = 0;
  std::size_t count_ = 0;  // messages in all runs
  shelter& spare_;
  places places_;
  std::size_t left_ = 0;  // places since the last on_room
  bool ended_ = false;
};

}  // namespace bus
