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

class subscription {
 public:
  struct setup {
    std::uint32_t number = 0;
    wire::Interest interest;  // pattern and type
    subscription_options options;
    std::function<void(sample&&)> callback = {};  // empty: samples wait in the queue
  };
  // `row` and `spare` outlive the subscription.
  subscription(setup wanted, ledger_row& row, shelter& spare);

  [[nodiscard]] std::uint32_t number() const noexcept { return interest_.subscription(); }
  [[nodiscard]] const wire::Interest& interest() const noexcept { return interest_; }
  [[nodiscard]] ledger_row& row() noexcept { return row_; }
  [[nodiscard]] bool has_callback() const noexcept { return static_cast<bool>(callback_); }

  // A sample has come; it is queued, handed to the callback, or dropped and counted.
  void accept(sample&& arrived);
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  [[nodiscard]] std::size_t queued() const noexcept { return count_; }
  [[nodiscard]] std::size_t room() const noexcept { return ring_.size() - count_; }
  [[nodiscard]] drop when_full() const noexcept { return options_.when_full; }
  [[nodiscard]] bool blocks() const noexcept { return options_.when_full == drop::none; }
  // Only what they have promised a place may be accepted, if it blocks.
  [[nodiscard]] places& credit() noexcept { return places_; }
  // A queue that blocks has a place for each publisher, whatever its depth.
  void make_room();
  // The oldest one waiting. Not yet counted as delivered: that is settle()'s or spoil()'s.
  // Requires: !empty().
  [[nodiscard]] sample take() noexcept;
  void settle() noexcept { row_.add(column::delivered, 1); }
  void spoil() noexcept { row_.lose(loss::decode_error, 1); }

  // Called after each arrival that was queued; for whoever waits in an event loop.
  std::function<void()> on_arrival;
  // Called after so many places were left that its publishers are to hear of it, if it blocks.
  std::function<void()> on_room;

 private:
  [[nodiscard]] std::size_t after(std::size_t steps) const noexcept {
    const std::size_t at = first_ + steps;
    return at >= ring_.size() ? at - ring_.size() : at;
  }

  wire::Interest interest_;
  subscription_options options_;
  std::function<void(sample&&)> callback_;
  ledger_row& row_;
  shelter& spare_;
  std::vector<sample> ring_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  places places_;
  std::size_t left_ = 0;  // places since the last on_room
};

}  // namespace bus
