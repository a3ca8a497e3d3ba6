// A sample that is sent on: somebody else's payload, in place, under a frame of our own. Nothing is
// copied; the payload stays lent to us until the last one who was offered it has let go.
//
// To a transport it is foreign memory like any other: one that refers to payloads sends it as it
// is, one whose peers must map what they read copies it (docs/design/0006).
#pragma once

#include "bus/link/sample.hpp"

#include <new>
#include <utility>

namespace bus {

// Keeps `original` as long as anybody keeps the result. Empty when there is no memory for its
// bookkeeping. Requires: head.bytes == original.payload().size().
[[nodiscard]] inline sample relay(sample original, const frame& head) noexcept {
  struct relayed final : block, lender {
    relayed(sample from, const frame& ours) noexcept : copy(ours), kept(std::move(from)) {
      references.store(1, std::memory_order_relaxed);  // nobody else knows it
      home = this;
      block::head = &copy;
      payload = const_cast<std::byte*>(kept.payload().data());
      capacity = copy.bytes;
    }
    void take_back(block&) noexcept override { delete this; }

    frame copy;
    sample kept;
  };
  BUS_CHECK(head.bytes == original.payload().size());
  auto* const made = new (std::nothrow) relayed(std::move(original), head);
  return made ? sample(*made) : sample();
}

}  // namespace bus
