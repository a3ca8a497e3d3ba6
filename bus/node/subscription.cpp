#include "bus/node/subscription.hpp"

#include <algorithm>
#include <utility>

namespace bus {

subscription::subscription(setup wanted, ledger_row& row)
    : interest_(std::move(wanted.interest)),
      options_(wanted.options),
      callback_(std::move(wanted.callback)),
      row_(row),
      ring_(callback_ ? 0 : std::max<std::uint32_t>(1, wanted.options.depth)) {
  interest_.set_subscription(wanted.number);
  interest_.set_depth(options_.depth);
  interest_.set_when_full(static_cast<std::uint32_t>(options_.when_full));
}

void subscription::accept(sample&& arrived) {
  row_.add(column::received_bytes, arrived.head().bytes);
  if (callback_) {
    // settle() or spoil() is the callback's to call: it knows whether the bytes decoded.
    callback_(std::move(arrived));
    return;
  }
  if (count_ == ring_.size()) {
    if (options_.when_full == drop::newest) {
      row_.lose(loss::queue_full, 1);
      return;
    }
    static_cast<void>(take());
    row_.lose(loss::overwritten, 1);
  }
  std::size_t last = first_ + count_;
  if (last >= ring_.size()) last -= ring_.size();
  ring_[last] = std::move(arrived);
  ++count_;
  row_.set(column::queued, count_);
  if (on_arrival) on_arrival();
}

sample subscription::take() noexcept {
  sample oldest = std::move(ring_[first_]);
  if (++first_ == ring_.size()) first_ = 0;
  --count_;
  row_.set(column::queued, count_);
  return oldest;
}

}  // namespace bus
