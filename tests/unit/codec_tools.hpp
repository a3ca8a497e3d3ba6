// What the codec's tests share: a message encoded into a loan of a pool, as a publisher does it.
#pragma once

#include "bus/codec/received.hpp"
#include "bus/link/pool.hpp"

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include <catch2/catch.hpp>

namespace codec_tools {

inline constexpr std::uint64_t pool_bytes_max = 64 << 20;

template <class T>
bus::sample encoded(bus::pool& memory, typename bus::codec<T>::input message) {
  const auto bytes = bus::codec<T>::size(message);
  REQUIRE(bytes);
  auto lent = memory.lend(*bytes);
  REQUIRE(lent);
  bus::codec<T>::encode(message, lent->bytes().first(*bytes));
  return std::move(*lent).commit({.flags = bus::codec<T>::frame_flags,
                                  .type_hash = bus::codec<T>::type().hash,
                                  .sequence = 1,
                                  .bytes = *bytes});
}

// Any bytes, as a stranger may send them.
inline bus::sample sent(bus::pool& memory, std::span<const std::byte> bytes,
                        std::uint16_t flags = 0) {
  auto lent = memory.lend(bytes.size());
  REQUIRE(lent);
  if (!bytes.empty()) std::memcpy(lent->bytes().data(), bytes.data(), bytes.size());
  return std::move(*lent).commit({.flags = flags, .sequence = 1, .bytes = bytes.size()});
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// splitmix64 (Steele, Lea, Flood 2014): a seed is a test case.
class dice {
 public:
  explicit dice(std::uint64_t seed) noexcept : state_(seed) {}
  std::uint64_t operator()() noexcept {
    std::uint64_t mixed = (state_ += 0x9e3779b97f4a7c15ULL);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    return mixed ^ (mixed >> 31);
  }
  std::uint64_t below(std::uint64_t end) noexcept { return (*this)() % end; }

 private:
  std::uint64_t state_;
};

}  // namespace codec_tools
