// A batch: several messages of one publisher in one sample. They share one frame, one place in a
// queue, one wakeup and one reference to the memory, so that each of them costs little more than
// its bytes. A subscriber sees messages, never batches.
//
// The payload, little-endian (LAYOUT.md has a worked example):
//
//   message 0 | to the next 64 | message 1 | ... | to the next 4 | end of each, u32 | count, u32
//
// Every message stands at a multiple of payload_align, as if it had come alone. Whoever reads the
// table reads data from a stranger, who may change it at any time: each place is checked when it is
// used, and a broken one is an empty message.
#pragma once

#include "bus/base/check.hpp"
#include "bus/link/frame.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace bus::batch {

// A batch is one slot, and is held while anybody holds one of its messages: small enough to be
// given back soon, large enough to make the frame's share of a message a few bytes.
inline constexpr std::uint32_t messages_max = 256;
// Of what is put together from single messages. A publisher that fills a batch in place may go
// beyond.
inline constexpr std::uint64_t bytes_usual = 32 << 10;

[[nodiscard]] constexpr std::uint64_t next_place(std::uint64_t end) noexcept {
  return (end + payload_align - 1) / payload_align * payload_align;
}
// Payload bytes of a batch whose last message ends at `end`.
[[nodiscard]] constexpr std::uint64_t bytes_for(std::uint64_t end, std::uint32_t count) noexcept {
  return (end + 3) / 4 * 4 + std::uint64_t{4} * count + 4;
}
// Payload bytes of `count` messages of `bytes` each.
[[nodiscard]] constexpr std::uint64_t bytes_for_equal(std::uint32_t count,
                                                      std::uint64_t bytes) noexcept {
  return bytes_for((count - 1) * next_place(bytes) + bytes, count);
}

// How many messages the payload says it has; 0 when there is no room for so many.
[[nodiscard]] inline std::uint32_t count_in(std::span<const std::byte> payload) noexcept {
  std::uint32_t count = 0;
  if (payload.size() < sizeof count) return 0;
  std::memcpy(&count, payload.data() + payload.size() - sizeof count, sizeof count);
  return bytes_for(0, count) <= payload.size() ? count : 0;
}

// Message `index` of `count`. Empty when the table does not hold. Requires: index < count, and
// `count` is what count_in() has said of this payload.
[[nodiscard]] inline std::span<const std::byte> message_in(std::span<const std::byte> payload,
                                                           std::uint32_t index,
                                                           std::uint32_t count) noexcept {
  const std::uint64_t table = payload.size() - sizeof(std::uint32_t) * (std::uint64_t{count} + 1);
  const std::byte* const own = payload.data() + table + sizeof(std::uint32_t) * index;
  std::uint32_t before = 0;
  std::uint32_t end = 0;
  if (index > 0) std::memcpy(&before, own - sizeof before, sizeof before);
  std::memcpy(&end, own, sizeof end);
  const std::uint64_t begin = next_place(before);
  if (begin > end || end > table) return {};
  return payload.subspan(begin, end - begin);
}

// Fills the payload of a batch from the front; the table stands where it will be from the start.
class writer {
 public:
  // `into`: the payload, of the size that bytes_for() tells. Not owned.
  writer(std::span<std::byte> into, std::uint32_t count) noexcept
      : into_(into), table_(into.size() - sizeof(std::uint32_t) * (std::uint64_t{count} + 1)) {
    BUS_CHECK(count > 0 && bytes_for(0, count) <= into.size());
    std::memcpy(into_.data() + into_.size() - sizeof count, &count, sizeof count);
  }
  // The memory of the next message. Requires: it fits, and no more than `count` are added.
  [[nodiscard]] std::span<std::byte> add(std::uint64_t bytes) noexcept {
    const std::uint64_t begin = next_place(end_);
    BUS_CHECK(begin + bytes <= table_ &&
              table_ + sizeof(std::uint32_t) * added_ < into_.size() - 4);
    end_ = static_cast<std::uint32_t>(begin + bytes);
    std::memcpy(into_.data() + table_ + sizeof end_ * added_++, &end_, sizeof end_);
    return into_.subspan(begin, bytes);
  }

 private:
  std::span<std::byte> into_;
  std::uint64_t table_;
  std::uint32_t end_ = 0;
  std::uint64_t added_ = 0;
};

}  // namespace bus::batch
