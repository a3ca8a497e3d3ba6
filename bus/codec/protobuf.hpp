// Protobuf messages as bytes: measured once, encoded once, straight into lent memory; decoded on an
// arena that is used again.
//
// Limits: a message nests at most 100 deep and encodes to less than 2 GiB (protobuf's own limits);
// decoding reads nothing beyond the payload. What was decoded may need more memory than the
// payload (an empty submessage is 2 bytes on the wire and some 50 in memory), which the transports'
// bytes_max bounds with it.
#pragma once

#include "bus/base/result.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <google/protobuf/message.h>

namespace bus {

// A class that protoc generated, with its descriptor (not LITE_RUNTIME).
template <class T>
concept protobuf_message = std::derived_from<T, google::protobuf::Message> &&
                           !std::same_as<T, google::protobuf::Message> &&
                           requires {
  T::descriptor();
};

// Not templates, so that each message type adds no code of its own.
namespace detail {

// Measures, and leaves the sizes cached in the message for encode_cached.
// Errors: bad_message (a required field is not set), too_big (2 GiB or more).
[[nodiscard]] result<std::uint64_t> encoded_bytes(
    const google::protobuf::MessageLite& message) noexcept;

// Requires: encoded_bytes(message) == into.size(), and the message not changed since.
void encode_cached(const google::protobuf::MessageLite& message,
                   std::span<std::byte> into) noexcept;

// Replaces the message's content. Errors: bad_message (not this type, truncated, nested too deep, a
// required field missing), too_big.
[[nodiscard]] result<void> decode_into(google::protobuf::MessageLite& message,
                                       std::span<const std::byte> from) noexcept;

}  // namespace detail
}  // namespace bus
