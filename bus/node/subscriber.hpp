// subscriber<T>: what a subscription's user holds. Three habits of waiting, on the same
// subscription:
//
//   while (auto q = felt.take(1s)) use(*q);     blocking, on the caller's thread
//   auto q = co_await felt.next();              a coroutine on the node's event loop
//   node.subscribe<T>("a/**", [](const received<T>& q) { ... });     a callback, called by the node
//
// A message that does not decode is counted (decode_error) and passed over. Used from the node's
// thread; must not outlive its node.
#pragma once

#include "bus/base/clock.hpp"
#include "bus/codec/received.hpp"
#include "bus/node/core.hpp"
#include "bus/node/loop.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <asio/awaitable.hpp>

namespace bus {

// What a subscription's books say now; `bus info` shows the same.
struct accounts {
  std::uint64_t expected = 0;  // published by its sources since they were attached, as far as known
  std::uint64_t delivered = 0;  // handed to the user
  std::uint64_t queued = 0;     // waiting
  std::array<std::uint64_t, loss_count> lost{};

  [[nodiscard]] std::uint64_t lost_in_all() const noexcept {
    std::uint64_t sum = 0;
    for (const std::uint64_t each : lost) sum += each;
    return sum;
  }
  [[nodiscard]] std::uint64_t lost_by(loss cause) const noexcept {
    return lost[static_cast<std::size_t>(cause)];
  }
  // Every sample is accounted for.
  [[nodiscard]] bool balanced() const noexcept {
    return expected == delivered + queued + lost_in_all();
  }
};

class subscriber_base {
 public:
  subscriber_base(subscriber_base&& other) noexcept
      : core_(std::exchange(other.core_, nullptr)), subscription_(std::move(other.subscription_)) {}
  subscriber_base& operator=(subscriber_base&& other) noexcept {
    std::swap(core_, other.core_);
    std::swap(subscription_, other.subscription_);
    return *this;
  }
  ~subscriber_base() {
    if (core_ && subscription_) core_->retire(subscription_);
  }

  [[nodiscard]] const std::string& pattern() const noexcept {
    return subscription_->interest().pattern();
  }
  // Its number within the node, as it stands in ledgers.
  [[nodiscard]] std::uint32_t number() const noexcept { return subscription_->number(); }
  // How many publishers are attached now.
  [[nodiscard]] std::size_t matched() const { return core_->sources(*subscription_); }
  // How many were attached since ever; who comes back counts again. For whoever looks now and then,
  // and must not overlook one that came and went.
  [[nodiscard]] std::uint64_t matched_ever() const noexcept { return subscription_->met_ever(); }
  // Waits until `publishers` are attached or the time is over; true if they are. Turns the node.
  bool wait_matched(std::size_t publishers, std::chrono::nanoseconds timeout) {
    return core_->drive(deadline::after(timeout), 1, [&] { return matched() >= publishers; });
  }
  [[nodiscard]] bus::accounts accounts() const noexcept {
    const ledger_row& row = subscription_->row();
    bus::accounts now{.expected = row.get(column::expected),
                      .delivered = row.get(column::delivered),
                      .queued = row.get(column::queued),
                      .lost = {}};
    for (std::size_t i = 0; i < loss_count; ++i) now.lost[i] = row.get(column::lost + i);
    return now;
  }

 protected:
  subscriber_base(core& around, std::shared_ptr<subscription> one) noexcept
      : core_(&around), subscription_(std::move(one)) {}

  // How many samples one turn may take: all that is there, since what waits in a link delays every
  // other subscription of the node. If there is no other, what the newest would be dropped for
  // waits where the sender can see it; and few are taken at once, so that they are still in a near
  // cache when they are read, and the sender gets its places back meanwhile.
  [[nodiscard]] std::size_t budget() const noexcept {
    constexpr std::size_t turn = 4096;
    constexpr std::size_t few = 256;
    const bool leaves_some =
        subscription_->when_full() == drop::newest && core_->is_alone(*subscription_);
    return leaves_some ? std::clamp<std::size_t>(subscription_->room(), 1, few) : turn;
  }

  core* core_;
  std::shared_ptr<subscription> subscription_;
};

template <class T>
class subscriber : public subscriber_base {
 public:
  subscriber(core& around, std::shared_ptr<subscription> one) noexcept
      : subscriber_base(around, std::move(one)) {}

  // The next message; nothing when the time is over. Turns the node and sleeps by its policy.
  // Rethrows what a callback of this node threw meanwhile.
  [[nodiscard]] std::optional<received<T>> take(std::chrono::nanoseconds timeout) {
    // Of a batch, only the first message pays for a look at the clock.
    if (auto ready = pop()) return ready;
    const deadline until = deadline::after(timeout);
    while (core_->drive(until, budget(), [&] { return !subscription_->empty(); })) {
      if (auto ready = pop()) return ready;
    }
    return std::nullopt;
  }

  // The next message that is here already; turns the node once if none is. Never sleeps.
  [[nodiscard]] std::optional<received<T>> try_take() {
    if (subscription_->empty()) core_->pump(budget());
    return pop();
  }

  // The next message, for a coroutine on the node's event loop (see node::context()). One coroutine
  // at a time may wait on one subscriber. The subscriber must outlive the wait.
  [[nodiscard]] asio::awaitable<received<T>> next() {
    loop_signal arrival(*core_);
    subscription_->on_arrival = [&arrival] { arrival.raise(); };
    for (;;) {
      if (auto ready = pop()) {
        subscription_->on_arrival = nullptr;
        co_return std::move(*ready);
      }
      co_await arrival.wait();
    }
  }

 private:
  [[nodiscard]] std::optional<received<T>> pop() {
    while (!subscription_->empty()) {
      auto decoded = received<T>::from(subscription_->take(), shelf_);
      if (decoded) {
        subscription_->settle();
        return std::move(*decoded);
      }
      subscription_->spoil();
    }
    return std::nullopt;
  }

  arena_shelf shelf_;
};

// A subscription whose messages go to a callback; it lasts as long as this object.
class listener : public subscriber_base {
 public:
  listener(core& around, std::shared_ptr<subscription> one) noexcept
      : subscriber_base(around, std::move(one)) {}
};

}  // namespace bus
