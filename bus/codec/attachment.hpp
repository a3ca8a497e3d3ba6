// The bytes of attached<M>: a header of 64 bytes, the binary part at 64 (so aligned to a cache line
// where the payload is), and behind it the message. The message comes last so that its size need
// not be known while the binary part is being filled. LAYOUT.md has the offsets and an example.
//
// A header that came from elsewhere is data from a stranger: both lengths are checked against what
// is there, and every byte of the payload has exactly one meaning.
#pragma once

#include "bus/base/result.hpp"
#include "bus/link/loan.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace google::protobuf {
class MessageLite;
}

namespace bus {

struct attachment_layout {
  static constexpr std::uint32_t magic_value = 0x61737562;  // "busa", as bytes in memory
  static constexpr std::uint32_t current_version = 1;

  std::uint32_t magic = magic_value;
  std::uint32_t version = current_version;
  std::uint64_t binary_bytes = 0;
  std::uint64_t message_bytes = 0;
  std::uint64_t zero[5] = {};  // refused if it is anything else
};
static_assert(sizeof(attachment_layout) == 64 && std::is_trivially_copyable_v<attachment_layout>);
static_assert(offsetof(attachment_layout, binary_bytes) == 8);
static_assert(offsetof(attachment_layout, message_bytes) == 16);

// The two parts of a payload, in place.
struct attachment_parts {
  std::span<const std::byte> message;
  std::span<const std::byte> binary;
};

// Payload bytes that the two parts need. Errors: too_big, when the sum does not fit 63 bits.
[[nodiscard]] result<std::uint64_t> attachment_bytes(const attachment_layout& parts) noexcept;

// Where the parts lie. Errors: incompatible (another version), bad_message (all else).
[[nodiscard]] result<attachment_parts> attachment_open(std::span<const std::byte> payload) noexcept;

// Writes header and padding around the two parts, and says where they go.
// Requires: payload.size() >= attachment_bytes(parts).
struct attachment_places {
  std::span<std::byte> message;
  std::span<std::byte> binary;
};
[[nodiscard]] attachment_places attachment_lay_out(std::span<std::byte> payload,
                                                   const attachment_layout& parts) noexcept;

// An attached message being made in lent memory: fill binary() in place, then commit with the
// message. Dropped uncommitted, the memory goes home unsent.
class attachment_loan {
 public:
  // How much room: `binary_bytes` exactly; the message may take up to `message_bytes_max`.
  struct room {
    std::uint64_t binary_bytes = 0;
    std::uint64_t message_bytes_max = 0;
  };
  // What to lend for that. Errors: too_big.
  [[nodiscard]] static result<std::uint64_t> bytes_for(room wanted) noexcept;

  // Adopts memory of at least bytes_for({binary_bytes, ...}); what it has beyond that is the
  // message's room. Errors: too_big, when not even an empty message fits.
  [[nodiscard]] static result<attachment_loan> adopt(loan memory,
                                                     std::uint64_t binary_bytes) noexcept;

  // Uninitialised memory, aligned to payload_align, that subscribers read in place.
  [[nodiscard]] std::span<std::byte> binary() const noexcept;
  // The largest message that still fits.
  [[nodiscard]] std::uint64_t message_bytes_max() const noexcept;

  // Encodes the message behind the binary part and seals both. `head` is complete but for bytes and
  // the attachment flag, which are set here. Errors, with the loan intact: too_big (the message
  // does not fit), bad_message (a required field is not set).
  [[nodiscard]] result<sample> commit(const google::protobuf::MessageLite& message,
                                      frame head) noexcept;

 private:
  attachment_loan(loan memory, std::uint64_t binary_bytes) noexcept
      : memory_(std::move(memory)), binary_bytes_(binary_bytes) {}
  loan memory_;
  std::uint64_t binary_bytes_;
};

}  // namespace bus
