// The words that two nodes exchange over one connection: LAYOUT.md draws them. Everything here came
// from or goes to a stranger: fixed width, little-endian, copied out before it is looked at.
//
//   sender (DEALER)                              receiver (ROUTER)
//     hello {node, target}          ------->
//                                   <-------     welcome {node, limits} | refusal {why}
//     packet {records} ...          ------->
//     begin {record}, chunk, ...    ------->
//                                   <-------     release {credits} ...
//     bye                           ------->
//
// The sender dials (DEALER) and the receiver is called (ROUTER), unless the receiver listens
// nowhere: then it dials with an offer, and what is drawn above follows over that connection.
#pragma once

#include "bus/link/credits.hpp"
#include "bus/link/frame.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>

namespace transports::zeromq {

enum class word : std::uint8_t { hello = 1, welcome, refusal, packet, begin, release, bye, offer };

enum class refusal_reason : std::uint32_t {
  version = 1,  // the prefix names the version that would have been accepted
  not_me,       // the hello was meant for another node
  crowded,      // peers_max is reached
  stranger,     // data without a hello, or after the link ended
  broken_rule,  // a message that no correct sender sends
};

// Opens every message but a chunk. Prefix, hello and refusal keep their layout in all versions, so
// that two versions can tell each other that they differ.
struct prefix_layout {
  static constexpr std::uint32_t magic_value = 0x5a53554f;  // "OUSZ"
  static constexpr std::uint16_t current_version = 1;
  std::uint32_t magic = magic_value;
  std::uint16_t version = current_version;
  std::uint8_t kind = 0;  // a word
  std::uint8_t reserved = 0;
};
static_assert(sizeof(prefix_layout) == 8);

// Kind bye: nothing else to say.
struct bye_layout {
  prefix_layout prefix;
};
static_assert(sizeof(bye_layout) == 8);

struct hello_layout {
  prefix_layout prefix;
  std::uint64_t node = 0;    // who is calling
  std::uint64_t target = 0;  // who is meant; 0: whoever is there
};
static_assert(sizeof(hello_layout) == 24);

// Kind offer, laid out like a hello: "I am `node`; `target`, send to me over this connection".
using offer_layout = hello_layout;

struct welcome_layout {
  prefix_layout prefix;
  std::uint64_t node = 0;
  std::uint64_t bytes_max = 0;       // largest payload
  std::uint64_t link_bytes_max = 0;  // payload bytes in flight
  std::uint32_t depth = 0;           // samples in flight: credits 0 to depth - 1
  std::uint32_t reserved = 0;
};
static_assert(sizeof(welcome_layout) == 40);

struct refusal_layout {
  prefix_layout prefix;
  std::uint32_t why = 0;  // a refusal_reason
  std::uint32_t reserved = 0;
};
static_assert(sizeof(refusal_layout) == 16);

// Kinds packet and begin. A packet's `count` records follow, each with its payload, padded to 8. A
// begin has one record, whose payload follows in chunks: messages that are nothing but payload.
struct packet_layout {
  prefix_layout prefix;
  std::uint32_t count = 0;
  std::uint32_t reserved = 0;
  std::uint64_t first = 0;  // number of the first record on this link: 1, 2, 3 ...
};
static_assert(sizeof(packet_layout) == 24);

struct record_layout {
  std::uint32_t credit = 0;  // comes back in a release when the receiver has let go
  std::uint32_t reserved = 0;
  bus::frame head;
};
static_assert(sizeof(record_layout) == 72 && offsetof(record_layout, head) == 8);

// Kind release: `runs` runs of credits follow.
struct release_layout {
  prefix_layout prefix;
  std::uint32_t runs = 0;
  std::uint32_t reserved = 0;
};
using bus::credit_run;
static_assert(sizeof(release_layout) == 16 && sizeof(credit_run) == 8);

// libzmq gathers smaller messages into writes of 8 KiB by copying, so up to half of that a copy of
// ours into a packet costs nothing that libzmq would not have cost, and saves a message.
inline constexpr std::uint64_t inline_bytes_max = 4096;
// A packet is one turn of its peer and one malloc in libzmq: large enough to make the price per
// message vanish, small enough to stay in the first-level cache.
inline constexpr std::size_t packet_bytes_max = 32UL * 1024;
// Heartbeats pass only between messages: a chunk must get through in less than heartbeat_lost_ms,
// which at this size needs 64 KB/s.
inline constexpr std::size_t chunk_bytes_max = 256UL * 1024;
static_assert(packet_bytes_max >= sizeof(packet_layout) + sizeof(record_layout) + inline_bytes_max);

// libzmq's own heartbeats, in its I/O thread, so that a busy node is not taken for a dead one.
inline constexpr int heartbeat_every_ms = 1000;
inline constexpr int heartbeat_lost_ms = 4000;

[[nodiscard]] constexpr std::uint64_t padded(std::uint64_t bytes) noexcept {
  return (bytes + 7) & ~std::uint64_t{7};
}

template <class Layout>
[[nodiscard]] Layout make(word kind) noexcept {
  Layout made;
  made.prefix.kind = static_cast<std::uint8_t>(kind);
  return made;
}

// Copies a T from `from`, if it is there in full.
template <class T>
[[nodiscard]] std::optional<T> read(std::span<const std::byte> from) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  if (from.size() < sizeof(T)) return std::nullopt;
  T copy;
  std::memcpy(&copy, from.data(), sizeof copy);
  return copy;
}

template <class T>
[[nodiscard]] std::span<const std::byte> bytes_of(const T& value) noexcept {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace transports::zeromq
