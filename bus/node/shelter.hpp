// Where samples wait that would hold up a link. A sample that waits in a queue keeps its place in
// the link that brought it: many of them would leave no place for the other topics of that link. So
// a subscription keeps only a fair part of a link's places; what waits beyond that is copied into
// memory of our own, and its place is free again. Only those who are behind pay for it.
#pragma once

#include "bus/link/pool.hpp"
#include "bus/link/sample.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace bus {

class shelter {
 public:
  // `bytes_max`: what may be copied at once; beyond that, samples stay where they are.
  explicit shelter(std::uint64_t bytes_max) : memory_(pool::make(bytes_max)) {}

  // So many subscriptions share the links, of which `queues` have a queue. One that is alone may
  // keep all: there is no other topic to leave a place for.
  void share(std::size_t subscriptions, std::size_t queues, std::uint32_t link_depth) noexcept {
    if (subscriptions <= 1 || queues == 0) {
      each_ = SIZE_MAX;
      return;
    }
    // Half of the places for all that wait, and half for what is on the way.
    each_ = std::max<std::size_t>(1, link_depth / 2 / queues);
  }
  // How many samples of a queue may stay where they came.
  [[nodiscard]] std::size_t each() const noexcept { return each_; }

  // The same sample in our own memory; as it is, if there is none left.
  [[nodiscard]] sample take_in(sample&& arrived) noexcept {
    auto lent = memory_->lend(arrived.head().bytes);
    if (!lent) return std::move(arrived);
    const auto from = arrived.payload();
    if (!from.empty()) std::memcpy(lent->bytes().data(), from.data(), from.size());
    return std::move(*lent).commit(arrived.head());
  }

 private:
  std::size_t each_ = SIZE_MAX;
  pool::owner memory_;
};

}  // namespace bus
