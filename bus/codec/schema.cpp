#include "bus/codec/schema.hpp"

#include "bus/base/check.hpp"
#include "bus/base/ids.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

namespace bus {
namespace {

namespace pb = google::protobuf;

// Puts `file` behind its imports. As deep as the imports are, which are compiled in.
void add_file(const pb::FileDescriptor& file, std::set<const pb::FileDescriptor*>& known,
              pb::FileDescriptorSet& all) {
  if (!known.insert(&file).second) return;
  for (int i = 0; i < file.dependency_count(); ++i) add_file(*file.dependency(i), known, all);
  file.CopyTo(all.add_file());
}

std::string_view presence_of(const pb::FieldDescriptor& field) {
  if (field.is_repeated()) return "repeated";
  if (field.is_required()) return "required";
  return field.has_presence() ? "optional" : "implicit";
}

std::string_view syntax_of(const pb::FileDescriptor& file) {
  return file.syntax() == pb::FileDescriptor::SYNTAX_PROTO3 ? "proto3" : "proto2";
}

// "4 magnitude optional double". A default comes last and by its length, since it is any text.
std::string line_of(const pb::FieldDescriptor& field) {
  std::string line = std::to_string(field.number()) + ' ' + field.name() + ' ';
  line.append(presence_of(field)).append(" ").append(field.type_name());
  if (const auto* message = field.message_type()) line += ' ' + message->full_name();
  if (const auto* values = field.enum_type()) line += ' ' + values->full_name();
  if (const auto* choice = field.real_containing_oneof()) line += " oneof " + choice->name();
  if (field.has_default_value()) {
    pb::FieldDescriptorProto copy;
    field.CopyTo(&copy);
    const std::string& text = copy.default_value();
    line += " default " + std::to_string(text.size()) + ' ' + text;
  }
  return line + '\n';
}

std::string lines_of(const pb::EnumDescriptor& type) {
  std::vector<std::pair<int, std::string>> values;
  values.reserve(static_cast<std::size_t>(type.value_count()));
  for (int i = 0; i < type.value_count(); ++i) {
    values.emplace_back(type.value(i)->number(), type.value(i)->name());
  }
  std::sort(values.begin(), values.end());
  std::string text = "enum " + type.full_name() + ' ';
  text.append(syntax_of(*type.file())).append("\n");
  for (const auto& [number, name] : values) text += std::to_string(number) + ' ' + name + '\n';
  return text;
}

}  // namespace

std::string canonical_lines(const pb::Descriptor& type) {
  std::vector<const pb::FieldDescriptor*> fields;
  fields.reserve(static_cast<std::size_t>(type.field_count()));
  for (int i = 0; i < type.field_count(); ++i) fields.push_back(type.field(i));
  std::sort(fields.begin(), fields.end(),
            [](const auto* a, const auto* b) { return a->number() < b->number(); });
  std::string text = type.options().map_entry() ? "entry " : "message ";
  text.append(type.full_name()).append(" ").append(syntax_of(*type.file())).append("\n");
  for (const auto* field : fields) text += line_of(*field);
  return text;
}

std::string canonical_text(const pb::Descriptor& type, encoding encoded) {
  std::map<std::string, std::string> types;  // by full name, which is unique in a pool
  std::vector<const pb::Descriptor*> ahead{&type};
  while (!ahead.empty()) {
    const pb::Descriptor& next = *ahead.back();
    ahead.pop_back();
    if (!types.try_emplace(next.full_name(), canonical_lines(next)).second) continue;
    for (int i = 0; i < next.field_count(); ++i) {
      const pb::FieldDescriptor& field = *next.field(i);
      if (const auto* message = field.message_type(); message && !types.count(message->full_name()))
        ahead.push_back(message);
      if (const auto* values = field.enum_type(); values && !types.count(values->full_name()))
        types.emplace(values->full_name(), lines_of(*values));
    }
  }
  std::string text = encoded == encoding::attached ? "attached " : "protobuf ";
  text += type.full_name() + '\n';
  for (const auto& [name, lines] : types) text += lines;
  return text;
}

std::string schema_of(const pb::Descriptor& type) {
  pb::FileDescriptorSet all;
  std::set<const pb::FileDescriptor*> known;
  add_file(*type.file(), known, all);
  std::string bytes;
  {
    pb::io::StringOutputStream stream(&bytes);
    pb::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    BUS_CHECK(all.SerializeToCodedStream(&coded));
  }
  return bytes;
}

std::uint64_t type_hash_of(const pb::Descriptor& type, encoding encoded) {
  const std::uint64_t hash = hash64(canonical_text(type, encoded));
  return hash == 0 ? 1 : hash;
}

type_info type_info_of(const pb::Descriptor& type, encoding encoded) {
  return {.name = type.full_name(),
          .encoding = encoded,
          .hash = type_hash_of(type, encoded),
          .schema = schema_of(type)};
}

}  // namespace bus
