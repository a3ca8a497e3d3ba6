#include "bus/route/credit.hpp"

#include <algorithm>
#include <utility>

namespace bus {

void places::join(window& one, std::uint64_t last) noexcept {
  ++publishers_;
  one = {.limit = last, .held = 0, .lapsed = false};
}

void places::leave(window& one) noexcept {
  --publishers_;
  held_ -= one.held;
  one = {};
}

void places::moved(window& one, std::uint64_t last) noexcept {
  const std::uint64_t held = one.limit > last ? one.limit - last : 0;
  held_ = held_ - one.held + held;
  one.held = held;
}

bool places::raise(window& one, std::uint64_t last, std::size_t queued) noexcept {
  moved(one, last);
  const std::size_t most_held = share();
  if (one.held > most_held / 2) return false;
  const std::size_t used = queued + static_cast<std::size_t>(held_);
  const std::size_t free = used < depth_ ? depth_ - used : 0;
  std::size_t more = std::min(most_held - static_cast<std::size_t>(one.held), free);
  const bool starving = one.held == 0 && queued == 0;
  if (starving && more == 0 && used < most()) more = 1;
  if (more == 0 || (more < worth() && !starving)) return false;
  one.limit = std::max(one.limit, last) + more;
  moved(one, last);
  return true;
}

bool gate::grant(std::uint64_t limit) noexcept {
  limit_ = std::max(limit_, limit);
  return !std::exchange(granted_, true);
}

void gate::forget(std::int64_t now_ns) noexcept {
  passed(now_ns);
  limit_ = 0;
  granted_ = false;
}

void gate::passed(std::int64_t now_ns) noexcept {
  if (since_ns_ == 0) return;
  waited_ns_ += now_ns - since_ns_;
  since_ns_ = 0;
  lapsed_ = false;
}

gate::state gate::stopped(std::int64_t now_ns) noexcept {
  if (since_ns_ == 0) {
    since_ns_ = now_ns;
    ++waits_;
  }
  lapsed_ = lapsed_ || now_ns - since_ns_ >= block_for_ns_;
  return lapsed_ ? state::lapsed : state::waiting;
}

std::int64_t gate::lapses_at_ns() const noexcept {
  if (since_ns_ == 0 || lapsed_) return INT64_MAX;
  return block_for_ns_ > INT64_MAX - since_ns_ ? INT64_MAX : since_ns_ + block_for_ns_;
}

}  // namespace bus
