// What a topic says of its messages, and the ways in which a message becomes bytes:
//
//   raw       bytes as they are
//   plain     a trivially copyable struct: its own memory, read in place
//   protobuf  a protobuf message: encoded into lent memory, decoded on an arena
//   attached  a protobuf message and a large binary part, which is read in place (LAYOUT.md)
//
// A type is known by its name and its hash; the schema travels with the topic, so that a tool that
// has never heard of the type can show it (dynamic.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace bus {

// The numbers travel in cards: none is ever reused.
enum class encoding : std::uint8_t { raw = 0, plain = 1, protobuf = 2, attached = 3 };

struct type_info {
  std::string name;  // "demo.Quake"; "raw" for raw bytes
  bus::encoding encoding = bus::encoding::raw;
  std::uint64_t hash = 0;  // see schema.hpp and plain.hpp; 0 for raw, and for nothing else
  // protobuf and attached: a serialised FileDescriptorSet, each file after its imports;
  // plain: "name size align"; raw: empty.
  std::string schema = {};

  bool operator==(const type_info&) const = default;
};

// The type of a topic that carries bytes as they are.
struct raw {};

// A message and the bytes that belong to it. For publishing: `binary` is the caller's memory, which
// encoding copies into the loan. To fill the loan itself, see attachment_loan (attachment.hpp).
template <class Message>
struct attached {
  Message message;
  std::span<const std::byte> binary;
};

}  // namespace bus
