#include "bus/node/subscription.hpp"

#include <algorithm>
#include <exception>
#include <utility>

namespace bus {

subscription::subscription(setup wanted, ledger_row& row, shelter& spare)
    : interest_(std::move(wanted.interest)),
      options_(wanted.options),
      callback_(std::move(wanted.callback)),
      how_(std::move(wanted.how)),
      row_(row),
      ring_(callback_ ? 0 : std::max<std::uint32_t>(1, wanted.options.depth)),
      spare_(spare),
      places_(wanted.options.depth) {
  interest_.set_subscription(wanted.number);
  interest_.set_depth(options_.depth);
  interest_.set_when_full(static_cast<std::uint32_t>(options_.when_full));
  if (blocks()) interest_.set_block_for_ns(options_.block_for.count());
}

bool subscription::holds(node_id node, std::uint32_t publisher) const noexcept {
  for (std::size_t i = 0; i < runs_; ++i) {
    const std::size_t at = first_ + i;
    const frame& head = ring_[at < ring_.size() ? at : at - ring_.size()].whole.head();
    if (head.node == node.value && head.publisher == publisher) return true;
  }
  return false;
}

void subscription::make_room() {
  if (callback_ || ring_.size() >= places_.most()) return;
  std::vector<run> larger(places_.most());
  for (std::size_t i = 0; i < runs_; ++i) larger[i] = std::move(place(i));
  ring_ = std::move(larger);
  first_ = 0;
}

subscription::~subscription() { drop_oldest(count_); }

// settle() or spoil() is the callback's to call: it knows whether the bytes decoded.
void subscription::call(sample&& arrived, std::uint32_t messages, std::uint32_t stale) {
  if ((arrived.head().flags & frame_flag::batch) == 0) {
    callback_(std::move(arrived));
    return;
  }
  std::exception_ptr trouble;
  arrived.borrow(messages - stale);
  std::uint32_t next = stale;
  while (next < messages && !ended_) {
    try {
      callback_(arrived.part(next++));
    } catch (...) {
      // The rest of the batch is not to suffer for it.
      if (!trouble) trouble = std::current_exception();
    }
  }
  arrived.repay(messages - next);
  if (trouble) std::rethrow_exception(trouble);
}

// There is no room for all of it, or it is a batch, or it may not stay where it came.
void subscription::enqueue_specially(sample&& arrived, std::uint32_t messages,
                                     std::uint32_t stale) {
  const std::size_t depth = ring_.size();
  std::size_t fresh = messages - stale;
  if (options_.when_full != drop::oldest) {
    if (count_ >= depth) {
      row_.lose(loss::queue_full, fresh);
      return;
    }
  } else if (count_ + fresh > depth) {
    const std::size_t too_many = count_ + fresh - depth;
    row_.lose(loss::overwritten, too_many);
    drop_oldest(std::min(too_many, count_));
    stale += static_cast<std::uint32_t>(fresh > depth ? fresh - depth : 0);
    fresh = messages - stale;
  }
  if (runs_ >= spare_.each()) {
    arrived = spare_.take_in(std::move(arrived));
    row_.add(column::copied, 1);
  }
  const bool is_batch = (arrived.head().flags & frame_flag::batch) != 0;
  if (is_batch) arrived.borrow(static_cast<std::uint32_t>(fresh));
  append(std::move(arrived), fresh, stale, is_batch ? messages : 0);
}

// Lets go of so many messages, unread. Requires: so many wait.
void subscription::drop_oldest(std::size_t messages) noexcept {
  count_ -= messages;
  while (messages > 0) {
    run& oldest = ring_[first_];
    const std::size_t here = oldest.end == 0 ? 1 : oldest.end - oldest.next;
    const std::size_t going = std::min(messages, here);
    if (oldest.end != 0) {
      oldest.whole.repay(static_cast<std::uint32_t>(going));
      oldest.next += static_cast<std::uint32_t>(going);
    }
    if (going == here) end_run();
    messages -= going;
  }
}

sample subscription::take_part(run& oldest) noexcept {
  sample one = oldest.whole.part(oldest.next++);
  if (oldest.next == oldest.end) end_run();
  return one;
}

void subscription::leave_place() noexcept {
  if (++left_ < places_.worth() && count_ != 0) return;
  left_ = 0;
  if (on_room) on_room();
}

}  // namespace bus
