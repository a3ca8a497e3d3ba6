// Messages of types that this program was not compiled with: a tool makes the type from the schema
// that travels with the topic, and shows payloads as JSON, or makes payloads out of JSON.
//
// JSON is protobuf's mapping with the fields' names as the schema spells them (time_ms, not timeMs;
// both are read): 64-bit integers are strings, bytes are base64, enums are names. Of an attached
// topic it is the message's, with one more member "binary_bytes", unless the message has a field of
// that name itself.
//
// The schema is data from a stranger. It is bounded (below), its imports must come before what
// imports them, and what it calls google.protobuf.* must be what we know by that name, because the
// JSON mapping treats those types by their names.
#pragma once

#include "bus/base/result.hpp"
#include "bus/codec/type.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace bus {

class dynamic_type {
 public:
  static constexpr std::uint64_t schema_bytes_max = 1 << 20;  // ours are below 20 KiB; a guess
  static constexpr int files_max = 1024;
  // Protobuf builds prototypes recursively, some 500 bytes of stack for each type in a chain.
  static constexpr int types_max = 2048;
  static constexpr std::size_t path_bytes_max = 1024;
  // google.protobuf.Any in Any in Any: the JSON mapping has no limit of its own.
  static constexpr int any_depth_max = 8;

  // `claimed` names the type and brings its schema; its hash is compared unless it is 0. Errors:
  // unsupported (raw or plain), too_big, not_found (no such message in the schema), type_mismatch
  // (another hash), bad_message (all else). Milliseconds: keep what you made.
  [[nodiscard]] static result<dynamic_type> from_schema(const type_info& claimed);

  // Movable; a moved-from one may only be destroyed or assigned to.
  dynamic_type(dynamic_type&&) noexcept;
  dynamic_type& operator=(dynamic_type&&) noexcept;
  ~dynamic_type();

  // All below: any thread, several at once. Never blocks on I/O.

  // As it was claimed, with the hash.
  [[nodiscard]] const type_info& info() const noexcept;

  struct json_options {
    bool indented = false;
    bool zeros =
        true;  // shows numbers that are 0 and texts that are empty, though not optional ones
  };
  // Errors: bad_message.
  [[nodiscard]] result<std::string> to_json(std::span<const std::byte> payload,
                                            json_options how) const;
  [[nodiscard]] result<std::string> to_json(std::span<const std::byte> payload) const;

  // A payload; of an attached type one with an empty binary part. Errors: bad_message, and then
  // `error_text`, unless it is null, names the field and what is wrong with it.
  [[nodiscard]] result<std::string> from_json(std::string_view text, std::string* error_text) const;

  // One value as JSON. The path: "inner.numbers[2]", "counts[key]"; "" is the whole message. A
  // singular field that is not set shows its default; an optional one, null. A message in
  // it that is not set, null. Errors: not_found (no such field, index or key), bad_name (not a
  // path), bad_message (the payload does not decode).
  [[nodiscard]] result<std::string> field(std::span<const std::byte> payload,
                                          std::string_view path) const;

 private:
  struct parts;
  explicit dynamic_type(std::unique_ptr<parts> made) noexcept;
  std::unique_ptr<parts> parts_;
};

}  // namespace bus
