// Schemas of protobuf types: what travels with a topic, and the hash by which types are compared.
//
// The schema is a serialised FileDescriptorSet: the type's file and its transitive imports, each
// file after those that it imports, without comments and positions.
//
// The hash is hash64 of a canonical text (canonical_text) that names exactly what the type reaches:
// its fields, the messages and enums that they refer to, and theirs. So another message in the same
// file, an import, a comment, an option, the order of declarations or a file's name change nothing;
// a field's number, name, type, label, presence, default or oneof, and an enum's values, do. The
// encoding is part of it, since attached<M> and M differ in their bytes. The hash of a type made
// from its schema at run time equals that of the generated class.
#pragma once

#include "bus/codec/type.hpp"

#include <cstdint>
#include <string>

namespace google::protobuf {
class Descriptor;
}

namespace bus {

// Deterministic: the same bytes in each process that was built with the same schemas.
[[nodiscard]] std::string schema_of(const google::protobuf::Descriptor& type);

// One line for the encoding and the root, then each reachable type in the order of their full
// names, with its fields in the order of their numbers. Linear in the size of the schema.
[[nodiscard]] std::string canonical_text(const google::protobuf::Descriptor& type,
                                         encoding encoded);
// The same for one message alone, without what it refers to.
[[nodiscard]] std::string canonical_lines(const google::protobuf::Descriptor& type);

// Never 0.
[[nodiscard]] std::uint64_t type_hash_of(const google::protobuf::Descriptor& type,
                                         encoding encoded);

// All four fields. `encoded` is protobuf or attached.
[[nodiscard]] type_info type_info_of(const google::protobuf::Descriptor& type, encoding encoded);

}  // namespace bus
