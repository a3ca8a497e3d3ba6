#include "bus/codec/attachment.hpp"

#include "bus/base/check.hpp"
#include "bus/codec/protobuf.hpp"

#include <cstring>

namespace bus {
namespace {

// No object of more than 2^62 bytes can be lent, so sums of two of them do not wrap.
constexpr std::uint64_t part_bytes_max = 1ULL << 62;

// The message begins at the next multiple of 8, which costs at most 7 bytes.
constexpr std::uint64_t padded(std::uint64_t bytes) noexcept { return (bytes + 7) & ~7ULL; }

constexpr std::uint64_t message_offset(std::uint64_t binary_bytes) noexcept {
  return sizeof(attachment_layout) + padded(binary_bytes);
}

}  // namespace

result<std::uint64_t> attachment_bytes(const attachment_layout& parts) noexcept {
  if (parts.binary_bytes > part_bytes_max || parts.message_bytes > part_bytes_max)
    return unexpected(errc::too_big);
  return message_offset(parts.binary_bytes) + parts.message_bytes;
}

result<attachment_parts> attachment_open(std::span<const std::byte> payload) noexcept {
  attachment_layout parts;
  if (payload.size() < sizeof parts) return unexpected(errc::bad_message);
  std::memcpy(&parts, payload.data(), sizeof parts);
  if (parts.magic != attachment_layout::magic_value) return unexpected(errc::bad_message);
  if (parts.version != attachment_layout::current_version) return unexpected(errc::incompatible);
  for (const std::uint64_t word : parts.zero) {
    if (word != 0) return unexpected(errc::bad_message);
  }
  const auto bytes = attachment_bytes(parts);
  if (!bytes || *bytes != payload.size()) return unexpected(errc::bad_message);
  const std::uint64_t binary_end = sizeof parts + parts.binary_bytes;
  for (std::uint64_t at = binary_end; at < message_offset(parts.binary_bytes); ++at) {
    if (payload[at] != std::byte{0}) return unexpected(errc::bad_message);
  }
  return attachment_parts{
      .message = payload.last(parts.message_bytes),
      .binary = payload.subspan(sizeof parts, parts.binary_bytes),
  };
}

attachment_places attachment_lay_out(std::span<std::byte> payload,
                                     const attachment_layout& parts) noexcept {
  const auto bytes = attachment_bytes(parts);
  BUS_CHECK(bytes && *bytes <= payload.size());
  std::memcpy(payload.data(), &parts, sizeof parts);
  const std::uint64_t binary_end = sizeof parts + parts.binary_bytes;
  const std::uint64_t message_at = message_offset(parts.binary_bytes);
  std::memset(payload.data() + binary_end, 0, message_at - binary_end);
  return {.message = payload.subspan(message_at, parts.message_bytes),
          .binary = payload.subspan(sizeof parts, parts.binary_bytes)};
}

result<std::uint64_t> attachment_loan::bytes_for(room wanted) noexcept {
  return attachment_bytes(
      {.binary_bytes = wanted.binary_bytes, .message_bytes = wanted.message_bytes_max});
}

result<attachment_loan> attachment_loan::adopt(loan memory, std::uint64_t binary_bytes) noexcept {
  const auto least = bytes_for({.binary_bytes = binary_bytes});
  if (!least || *least > memory.bytes().size()) return unexpected(errc::too_big);
  return attachment_loan(std::move(memory), binary_bytes);
}

std::span<std::byte> attachment_loan::binary() const noexcept {
  return memory_.bytes().subspan(sizeof(attachment_layout), binary_bytes_);
}

std::uint64_t attachment_loan::message_bytes_max() const noexcept {
  return memory_.bytes().size() - message_offset(binary_bytes_);
}

result<sample> attachment_loan::commit(const google::protobuf::MessageLite& message,
                                       frame head) noexcept {
  const auto message_bytes = detail::encoded_bytes(message);
  if (!message_bytes) return unexpected(message_bytes.error());
  if (*message_bytes > message_bytes_max()) return unexpected(errc::too_big);
  const auto places = attachment_lay_out(
      memory_.bytes(), {.binary_bytes = binary_bytes_, .message_bytes = *message_bytes});
  detail::encode_cached(message, places.message);
  head.flags |= frame_flag::attachment;
  head.bytes = message_offset(binary_bytes_) + *message_bytes;
  return std::move(memory_).commit(head);
}

}  // namespace bus
