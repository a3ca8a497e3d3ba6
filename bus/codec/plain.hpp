// Plain structs: a value whose own memory is the message. It is copied into the loan (or made
// there) and read in place by every subscriber.
//
// The compiler sees that a type is trivially copyable; it cannot see a pointer or a file descriptor
// inside it, which mean nothing to another process. Padding travels as it is. Whoever reads a plain
// struct believes its publisher: a bool or enum in it may hold any bit pattern.
//
// The type's identity is its name, size and alignment, and no more: who changes the meaning of a
// field changes the name, by specialising plain_name.
#pragma once

#include "bus/base/ids.hpp"
#include "bus/codec/type.hpp"
#include "bus/link/frame.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace bus {
namespace detail {

// Trivially copyable, and yet memory of somebody else.
template <class T>
inline constexpr bool is_view = false;
template <class Char, class Traits>
inline constexpr bool is_view<std::basic_string_view<Char, Traits>> = true;
template <class T, std::size_t extent>
inline constexpr bool is_view<std::span<T, extent>> = true;
template <class Message>
inline constexpr bool is_view<attached<Message>> = true;

// "image" out of "... pretty_name() [with T = image; ...]" (gcc) or "... [T = image]" (clang).
template <class T>
consteval std::string_view pretty_name() {
  const std::string_view text = __PRETTY_FUNCTION__;
  const std::size_t begin = text.find("T = ") + 4;
  const std::size_t end = text.find_first_of(";]", begin);
  // An array type inside the name has brackets of its own; the last one closes the list.
  return text.substr(begin, (text[end] == ']' ? text.rfind(']') : end) - begin);
}

}  // namespace detail

template <class T>
concept plain_struct =
    std::is_trivially_copyable_v<T> && std::is_object_v<T> && !std::is_array_v<T> &&
    !std::is_const_v<T> && !std::is_volatile_v<T> && !std::is_pointer_v<T> &&
    !std::is_member_pointer_v<T> && !std::is_null_pointer_v<T> && !detail::is_view<T> &&
    alignof(T) <= payload_align && !std::is_same_v<T, raw>;

// The name under which T travels; by default the compiler's. Specialise it where two compilers
// print a type differently (templates, anonymous namespaces), and to tell versions apart:
//   template <> inline constexpr std::string_view bus::plain_name<image> = "image/2";
template <class T>
inline constexpr std::string_view plain_name = detail::pretty_name<T>();

// The hash is that of "plain name size align".
template <plain_struct T>
[[nodiscard]] type_info plain_type_info() {
  const std::string name(plain_name<T>);
  const std::string schema =
      name + ' ' + std::to_string(sizeof(T)) + ' ' + std::to_string(alignof(T));
  const std::uint64_t hash = hash64("plain " + schema);
  return {
      .name = name, .encoding = encoding::plain, .hash = hash == 0 ? 1 : hash, .schema = schema};
}

}  // namespace bus
