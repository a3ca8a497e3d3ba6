#include "bus/node/subscription.hpp"

#include <algorithm>
#include <utility>

namespace bus {

subscription::subscription(setup wanted, ledger_row& row, shelter& spare)
    : interest_(std::move(wanted.interest)),
      options_(wanted.options),
      callback_(std::move(wanted.callback)),
      row_(row),
      spare_(spare),
      ring_(callback_ ? 0 : std::max<std::uint32_t>(1, wanted.options.depth)),
      places_(wanted.options.depth) {
  interest_.set_subscription(wanted.number);
  interest_.set_depth(options_.depth);
  interest_.set_when_full(static_cast<std::uint32_t>(options_.when_full));
  if (blocks()) interest_.set_block_for_ns(options_.block_for.count());
}

void subscription::make_room() {
  if (callback_ || ring_.size() >= places_.most()) return;
  std::vector<sample> larger(places_.most());
  for (std::size_t i = 0; i < count_; ++i) larger[i] = std::move(ring_[after(i)]);
  ring_ = std::move(larger);
  first_ = 0;
}

void subscription::accept(sample&& arrived) {
  row_.add(column::received_bytes, arrived.head().bytes);
  if (callback_) {
    // settle() or spoil() is the callback's to call: it knows whether the bytes decoded.
    callback_(std::move(arrived));
    return;
  }
  if (count_ == ring_.size()) {
    if (options_.when_full != drop::oldest) {
      row_.lose(loss::queue_full, 1);
      return;
    }
    static_cast<void>(take());
    row_.lose(loss::overwritten, 1);
  }
  if (count_ >= spare_.each()) {
    arrived = spare_.take_in(std::move(arrived));
    row_.add(column::copied, 1);
  }
  ring_[after(count_)] = std::move(arrived);
  ++count_;
  row_.set(column::queued, count_);
  if (on_arrival) on_arrival();
}

sample subscription::take() noexcept {
  sample oldest = std::move(ring_[first_]);
  if (++first_ == ring_.size()) first_ = 0;
  --count_;
  row_.set(column::queued, count_);
  if (blocks() && (++left_ >= places_.worth() || count_ == 0)) {
    left_ = 0;
    if (on_room) on_room();
  }
  return oldest;
}

}  // namespace bus
