// Credit for subscriptions that block (drop::none). Both ends of a link count the samples of a
// publisher that go over it. The subscription's side hands out places in its queue as a limit: the
// last number for which there is a place. The publisher's side looks at the limit before it
// publishes. Limits only rise and each one replaces those before it, so a grant that comes late,
// twice or never does no harm; and what was published and not sent uses no place up.
//
//   places + window   the subscription's: what is promised to whom, and always fits
//   gate              the publisher's: open, waiting, or lapsed after the subscription's deadline
//
// Pure bookkeeping: time is an argument, and messages are somebody else's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bus {

// What a subscription has promised to one of its publishers.
struct window {
  std::uint64_t limit = 0;  // the last number that is sure of a place
  std::uint64_t held = 0;   // places that are kept for what has not come yet
  bool lapsed = false;      // the publisher has said that it waits no longer
};

// The places of one blocking subscription. Kept places and waiting samples are never more than its
// depth, and one more for each of its publishers: whoever has no place at all gets one as soon as
// the queue is empty, though others hold all, so that nobody can starve it.
class places {
 public:
  explicit places(std::uint32_t depth) noexcept : depth_(depth == 0 ? 1 : depth) {}

  // A publisher came, of which `last` samples have come; or it left.
  void join(window& one, std::uint64_t last) noexcept;
  void leave(window& one) noexcept;
  // Its samples up to `last` have come: their places are in use by now, or free.
  void moved(window& one, std::uint64_t last) noexcept;
  // Whether there is a place that was promised to nobody.
  [[nodiscard]] bool has_spare(std::size_t queued) const noexcept {
    return queued + held_ < depth_;
  }
  // Raises its limit if that is worth a message: half of its share at least, so that a stream costs
  // few, or anything at all when nothing waits. True: the new limit is to be granted.
  [[nodiscard]] bool raise(window& one, std::uint64_t last, std::size_t queued) noexcept;
  // How many places must have been left since the last raise() for another to be worth a look.
  [[nodiscard]] std::size_t worth() const noexcept { return share() < 2 ? 1 : share() / 2; }
  // The most that can ever wait.
  [[nodiscard]] std::size_t most() const noexcept { return depth_ + publishers_; }
  [[nodiscard]] std::uint64_t held() const noexcept { return held_; }

 private:
  // What one publisher may hold and not use. All but the first leave something for the next one.
  [[nodiscard]] std::size_t share() const noexcept {
    const std::size_t each = depth_ / (publishers_ + 1);
    return each == 0 ? 1 : each;
  }
  std::size_t depth_;
  std::size_t publishers_ = 0;
  std::uint64_t held_ = 0;  // of all windows
};

// One blocking subscription, as one of its publishers sees it.
//
//   open --(no place for the next sample)--> waiting --(block_for is over)--> lapsed
//      ^------------------------(a grant)------------/--------------------------/
//
// A subscription is waited for once in a stall and not once for each sample: one that stands still
// would otherwise slow its publishers down for ever.
class gate {
 public:
  enum class state : std::uint8_t { open, waiting, lapsed };

  explicit gate(std::int64_t block_for_ns = 0) noexcept : block_for_ns_(block_for_ns) {}
  void block_for(std::int64_t ns) noexcept { block_for_ns_ = ns; }
  // A new counting begins: nothing is granted, and nothing is waited for.
  void forget(std::int64_t now_ns) noexcept;

  // True: this is the first grant.
  bool grant(std::uint64_t limit) noexcept;
  [[nodiscard]] bool granted() const noexcept { return granted_; }
  [[nodiscard]] bool has_place(std::uint64_t number) const noexcept { return number <= limit_; }
  // There is a place, so whatever was waited for is over.
  void passed(std::int64_t now_ns) noexcept;
  // There is none: from the first such call on it is waited for, until the deadline is over.
  state stopped(std::int64_t now_ns) noexcept;

  [[nodiscard]] bool lapsed() const noexcept { return lapsed_; }
  [[nodiscard]] std::uint64_t limit() const noexcept { return limit_; }
  // Since when it has been waited for; 0: it is not.
  [[nodiscard]] std::int64_t since_ns() const noexcept { return since_ns_; }
  // When it lapses, unless a grant comes before; INT64_MAX: it is not waited for, or has lapsed.
  [[nodiscard]] std::int64_t lapses_at_ns() const noexcept;
  [[nodiscard]] std::uint64_t waits() const noexcept { return waits_; }
  // In all, without the wait that is going on.
  [[nodiscard]] std::int64_t waited_ns() const noexcept { return waited_ns_; }

 private:
  std::int64_t block_for_ns_;
  std::uint64_t limit_ = 0;
  std::int64_t since_ns_ = 0;
  std::int64_t waited_ns_ = 0;
  std::uint64_t waits_ = 0;
  bool granted_ = false;
  bool lapsed_ = false;
};

}  // namespace bus
