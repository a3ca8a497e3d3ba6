// Samples as people and scripts want them, and back: JSON by the schema that lies in the bus
// directory under the type's hash; text where bytes are text; else hex. No generated code.
#pragma once

#include "bus/codec/dynamic.hpp"
#include "bus/codec/type.hpp"
#include "bus/node/rendezvous.hpp"
#include "schemas/bus/card.pb.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>

#include <nlohmann/json.hpp>

namespace bus::tool {

// The type that a card names, with its schema. Errors: not_found (nobody left the schema here), or
// the kernel's.
[[nodiscard]] result<type_info> complete_type(const rendezvous& place, const wire::Type& words);

class message_reader {
 public:
  // `place` outlives the reader.
  explicit message_reader(const rendezvous& place) : place_(place) {}

  // JSON of a protobuf or attached type, else a JSON string: text, or "hex:0a1b...". Never fails: a
  // payload that does not decode is shown as its bytes, and `trouble` says why.
  struct shown {
    nlohmann::ordered_json value;
    std::string trouble;
    bool decoded = false;  // by a schema; else value is a string of text or hex
  };
  [[nodiscard]] shown read(const wire::Type& type, std::span<const std::byte> payload);

 private:
  struct known_type {
    std::unique_ptr<dynamic_type> type;
    std::string trouble;
  };
  const known_type& known(const wire::Type& type);

  const rendezvous& place_;
  std::unordered_map<std::uint64_t, known_type> types_;
};

// The value at "a.b[2].c" in it; null when there is none.
[[nodiscard]] nlohmann::ordered_json value_at(const nlohmann::ordered_json& message,
                                              const std::string& path);

// A condition on a field: "magnitude >= 5", "status == STATUS_REVIEWED", "place ~ Alaska" (part of
// the text). Numbers are compared as numbers when both sides are.
class condition {
 public:
  // Throws failure (usage).
  explicit condition(const std::string& text);
  [[nodiscard]] bool holds(const nlohmann::ordered_json& message) const;

 private:
  std::string path_;
  std::string operator_;
  std::string value_;
};

// A value as it stands in a column: a string without quotes, anything else as JSON.
[[nodiscard]] std::string plain_text(const nlohmann::ordered_json& value);
[[nodiscard]] std::string hex_text(std::span<const std::byte> bytes);

}  // namespace bus::tool
