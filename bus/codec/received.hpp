// received<T>: a message as a subscriber holds it. It keeps the sample, so that what is read in
// place stays in place, and the arena on which a protobuf message was decoded; both go home when it
// is destroyed, on whatever thread.
//
// It is moved, not copied. References that it gave out stay good when it is moved, and end with it.
// Holding one holds the publisher's memory: copy out what is kept for long.
#pragma once

#include "bus/codec/codec.hpp"

#include <span>
#include <utility>

namespace bus {

template <class T>
class received {
 public:
  // Decodes. `shelf` is the subscription's and may end before the message does. On failure the
  // sample is dropped. Errors: those of codec<T>::decode. Requires: a sample.
  [[nodiscard]] static result<received> from(sample whole, arena_shelf& shelf) noexcept {
    BUS_CHECK(static_cast<bool>(whole));
    auto seen = codec<T>::decode(whole, shelf);
    if (!seen) return unexpected(seen.error());
    return received(std::move(whole), *std::move(seen));
  }

  received(received&&) noexcept = default;
  received& operator=(received&&) noexcept = default;

  // plain: in place in the sample. protobuf: on the arena.
  [[nodiscard]] const T& operator*() const noexcept requires requires(typename codec<T>::view v) {
    v.value;
  }
  { return *view_.value; }
  [[nodiscard]] const T* operator->() const noexcept requires requires(typename codec<T>::view v) {
    v.value;
  }
  { return view_.value; }

  // attached only. binary() is in place in the sample, aligned to 64 where the transport can.
  [[nodiscard]] const auto& message() const noexcept requires detail::is_attached<T> {
    return *view_.message;
  }
  [[nodiscard]] std::span<const std::byte> binary() const noexcept requires detail::is_attached<T> {
    return view_.binary;
  }

  // The payload as it came.
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return whole_.payload(); }
  [[nodiscard]] frame head() const noexcept { return whole_.message_head(); }
  [[nodiscard]] const sample& whole() const noexcept { return whole_; }

 private:
  received(sample whole, typename codec<T>::view view) noexcept
      : whole_(std::move(whole)), view_(std::move(view)) {}

  sample whole_;
  typename codec<T>::view view_;  // after the sample: it ends first
};

}  // namespace bus
