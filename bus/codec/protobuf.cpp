#include "bus/codec/protobuf.hpp"

#include "bus/base/check.hpp"

#include <climits>

namespace bus::detail {

result<std::uint64_t> encoded_bytes(const google::protobuf::MessageLite& message) noexcept {
  if (!message.IsInitialized()) return unexpected(errc::bad_message);
  const std::size_t bytes = message.ByteSizeLong();
  if (bytes > INT_MAX) return unexpected(errc::too_big);
  return std::uint64_t{bytes};
}

void encode_cached(const google::protobuf::MessageLite& message,
                   std::span<std::byte> into) noexcept {
  BUS_CHECK(static_cast<std::size_t>(message.GetCachedSize()) == into.size());
  auto* const begin = reinterpret_cast<std::uint8_t*>(into.data());
  const std::uint8_t* const end = message.SerializeWithCachedSizesToArray(begin);
  BUS_CHECK(end == begin + into.size());
}

result<void> decode_into(google::protobuf::MessageLite& message,
                         std::span<const std::byte> from) noexcept {
  if (from.size() > INT_MAX) return unexpected(errc::too_big);
  // The partial form, because the other one logs each missing field for everybody to see.
  if (!message.ParsePartialFromArray(from.data(), static_cast<int>(from.size())) ||
      !message.IsInitialized()) {
    return unexpected(errc::bad_message);
  }
  return {};
}

}  // namespace bus::detail
