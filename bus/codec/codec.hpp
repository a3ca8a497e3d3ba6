// codec<T>: how a T becomes bytes and bytes become a T; the only place where typed meets bytes.
//
// Every codec<T> has
//   type()          the type_info, made once; any thread
//   frame_flags     what a frame of such a message carries besides
//   input           what is given to publish: a T, or the bytes themselves for raw
//   size(input)     payload bytes needed; the message must not change between size and encode
//   encode(input, into)   Requires: into.size() == *size(input)
//   view, decode(sample, shelf)   what a subscriber sees; it points into the sample, which has to
//                   outlive it, and into an arena, which it owns
//
// decode trusts nothing in the payload. It does not compare the frame's type_hash: the node matches
// types, once, before the first message. Data-path calls do not throw; out of memory ends the
// process.
#pragma once

#include "bus/codec/arena.hpp"
#include "bus/codec/attachment.hpp"
#include "bus/codec/plain.hpp"
#include "bus/codec/protobuf.hpp"
#include "bus/codec/schema.hpp"
#include "bus/codec/type.hpp"
#include "bus/link/sample.hpp"

#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace bus {
namespace detail {

template <class T>
inline constexpr bool is_attached = false;
template <class M>
inline constexpr bool is_attached<attached<M>> = protobuf_message<M>;

template <class M>
struct decoded {
  arena_lease lease;
  const M* message;
};

// Errors: those of decode_into.
template <protobuf_message M>
[[nodiscard]] result<decoded<M>> decode_on(arena_shelf& shelf,
                                           std::span<const std::byte> from) noexcept {
  arena_lease lease = shelf.take(from.size());
  M& made = static_cast<M&>(lease.message_like(M::default_instance()));
  if (const auto done = decode_into(made, from); !done) return unexpected(done.error());
  return decoded<M>{std::move(lease), &made};
}

}  // namespace detail

// What can travel.
template <class T>
concept message_type =
    std::is_same_v<T, raw> || protobuf_message<T> || plain_struct<T> || detail::is_attached<T>;

// Anything else is refused here, with the reason.
template <class T>
struct codec {
  static_assert(!std::is_pointer_v<T> && !detail::is_view<T>,
                "bus: a pointer, string_view or span cannot travel: it means nothing to another "
                "process. Publish what it refers to, as bus::raw or in a protobuf message.");
  static_assert(!std::is_polymorphic_v<T>,
                "bus: a class with virtual functions cannot travel: its table of functions is "
                "elsewhere in each process. Use a plain struct or a protobuf message.");
  static_assert(std::is_trivially_copyable_v<T>,
                "bus: this type cannot travel: its memory is not the whole of it (it is not "
                "trivially copyable). Use a plain struct with fixed-size members, a protobuf "
                "message, bus::raw for bytes, or bus::attached<protobuf message>.");
  static_assert(
      message_type<T>,
      "bus: this type cannot travel: a message is a plain struct (a class, enum or number "
      "without const, aligned to at most 64 bytes), a protobuf message, bus::raw, or "
      "bus::attached<protobuf message>.");
};

template <>
struct codec<raw> {
  using input = std::span<const std::byte>;
  struct view {};
  static constexpr std::uint16_t frame_flags = 0;

  [[nodiscard]] static const type_info& type() {
    static const type_info made{.name = "raw", .encoding = encoding::raw, .hash = 0, .schema = {}};
    return made;
  }
  [[nodiscard]] static result<std::uint64_t> size(input bytes) noexcept {
    return std::uint64_t{bytes.size()};
  }
  static void encode(input bytes, std::span<std::byte> into) noexcept {
    BUS_CHECK(into.size() == bytes.size());
    if (!bytes.empty()) std::memcpy(into.data(), bytes.data(), bytes.size());
  }
  // Any payload of any type is raw bytes to whoever asks for them.
  [[nodiscard]] static result<view> decode(const sample&, arena_shelf&) noexcept { return view{}; }
};

template <plain_struct T>
struct codec<T> {
  using input = const T&;
  struct view {
    const T* value;
  };
  static constexpr std::uint16_t frame_flags = 0;

  [[nodiscard]] static const type_info& type() {
    static const type_info made = plain_type_info<T>();
    return made;
  }
  [[nodiscard]] static result<std::uint64_t> size(input) noexcept {
    return std::uint64_t{sizeof(T)};
  }
  static void encode(input value, std::span<std::byte> into) noexcept {
    BUS_CHECK(into.size() == sizeof(T));
    std::memcpy(into.data(), &value, sizeof(T));
  }
  // Errors: bad_message, when the size differs or the payload is not aligned for T.
  [[nodiscard]] static result<view> decode(const sample& whole, arena_shelf&) noexcept {
    const std::span<const std::byte> payload = whole.payload();
    if (payload.size() != sizeof(T) || (whole.head().flags & frame_flag::attachment) != 0 ||
        reinterpret_cast<std::uintptr_t>(payload.data()) % alignof(T) != 0) {
      return unexpected(errc::bad_message);
    }
    // A trivially copyable object begins to live where its bytes are put (P0593, implicit
    // lifetime).
    return view{reinterpret_cast<const T*>(payload.data())};
  }
};

template <protobuf_message M>
struct codec<M> {
  using input = const M&;
  struct view {
    arena_lease lease;
    const M* value;
  };
  static constexpr std::uint16_t frame_flags = 0;

  [[nodiscard]] static const type_info& type() {
    static const type_info made = type_info_of(*M::descriptor(), encoding::protobuf);
    return made;
  }
  // Errors: bad_message (a required field is not set), too_big (2 GiB or more).
  [[nodiscard]] static result<std::uint64_t> size(input message) noexcept {
    return detail::encoded_bytes(message);
  }
  static void encode(input message, std::span<std::byte> into) noexcept {
    detail::encode_cached(message, into);
  }
  // Errors: bad_message, too_big; see detail::decode_into.
  [[nodiscard]] static result<view> decode(const sample& whole, arena_shelf& shelf) noexcept {
    if ((whole.head().flags & frame_flag::attachment) != 0) return unexpected(errc::bad_message);
    auto decoded = detail::decode_on<M>(shelf, whole.payload());
    if (!decoded) return unexpected(decoded.error());
    return view{std::move(decoded->lease), decoded->message};
  }
};

template <protobuf_message M>
struct codec<attached<M>> {
  using input = const attached<M>&;
  struct view {
    arena_lease lease;
    const M* message;
    std::span<const std::byte> binary;
  };
  static constexpr std::uint16_t frame_flags = frame_flag::attachment;

  [[nodiscard]] static const type_info& type() {
    static const type_info made = type_info_of(*M::descriptor(), encoding::attached);
    return made;
  }
  // Errors: as for the message; too_big.
  [[nodiscard]] static result<std::uint64_t> size(input both) noexcept {
    const auto message_bytes = detail::encoded_bytes(both.message);
    if (!message_bytes) return message_bytes;
    return attachment_bytes({.binary_bytes = both.binary.size(), .message_bytes = *message_bytes});
  }
  static void encode(input both, std::span<std::byte> into) noexcept {
    const auto message_bytes = static_cast<std::uint64_t>(both.message.GetCachedSize());
    const attachment_layout parts{.binary_bytes = both.binary.size(),
                                  .message_bytes = message_bytes};
    const auto bytes = attachment_bytes(parts);
    BUS_CHECK(bytes && *bytes == into.size());
    const auto places = attachment_lay_out(into, parts);
    if (!both.binary.empty())
      std::memcpy(places.binary.data(), both.binary.data(), both.binary.size());
    detail::encode_cached(both.message, places.message);
  }
  // Errors: bad_message, incompatible (another version of the layout), too_big.
  [[nodiscard]] static result<view> decode(const sample& whole, arena_shelf& shelf) noexcept {
    if ((whole.head().flags & frame_flag::attachment) == 0) return unexpected(errc::bad_message);
    const auto parts = attachment_open(whole.payload());
    if (!parts) return unexpected(parts.error());
    auto decoded = detail::decode_on<M>(shelf, parts->message);
    if (!decoded) return unexpected(decoded.error());
    return view{std::move(decoded->lease), decoded->message, parts->binary};
  }
};

}  // namespace bus
