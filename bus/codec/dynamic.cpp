#include "bus/codec/dynamic.hpp"

#include "bus/codec/attachment.hpp"
#include "bus/codec/json.hpp"
#include "bus/codec/protobuf.hpp"
#include "bus/codec/schema.hpp"

#include <utility>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/util/json_util.h>

namespace bus {

namespace pb = google::protobuf;

struct dynamic_type::parts {
  type_info info;
  pb::DescriptorPool pool;
  pb::DynamicMessageFactory factory;  // before the pool whose types it makes
  const pb::Descriptor* type = nullptr;
  const pb::Message* prototype = nullptr;

  // Null when the payload does not decode.
  [[nodiscard]] std::unique_ptr<pb::Message> decode(std::span<const std::byte> payload) const;
};

namespace {

// Refuses without writing to standard error, as the pool would do by itself.
class silent_collector final : public pb::DescriptorPool::ErrorCollector {
 public:
  void AddError(const std::string&, const std::string&, const pb::Message*, ErrorLocation,
                const std::string&) override {}
};

// A map's entry as protoc makes it; generic code believes that every entry is one.
bool is_sound_entry(const pb::Descriptor& type) {
  return type.field_count() == 2 && type.field(0)->name() == "key" &&
         type.field(0)->number() == 1 && type.field(1)->name() == "value" &&
         type.field(1)->number() == 2 && !type.field(0)->is_repeated() &&
         !type.field(1)->is_repeated() && type.containing_type() != nullptr &&
         type.field(0)->cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE &&
         type.extension_range_count() == 0 && type.nested_type_count() == 0;
}

bool is_well_known_or_ours(const pb::Descriptor& type) {
  if (type.full_name().rfind("google.protobuf.", 0) != 0) return true;
  const auto* known = pb::DescriptorPool::generated_pool()->FindMessageTypeByName(type.full_name());
  // descriptor.proto only describes; the JSON mapping gives it no meaning, and it differs between
  // protobuf's versions.
  if (type.file()->name() == "google/protobuf/descriptor.proto" && known &&
      known->file()->name() == type.file()->name()) {
    return true;
  }
  return known && canonical_lines(*known) == canonical_lines(type);
}

// Counts and checks all messages of a file, nested ones included. False: refuse the schema.
bool check_types(const pb::FileDescriptor& file, int& count) {
  std::vector<const pb::Descriptor*> ahead;
  ahead.reserve(static_cast<std::size_t>(file.message_type_count()));
  for (int i = 0; i < file.message_type_count(); ++i) ahead.push_back(file.message_type(i));
  while (!ahead.empty()) {
    const pb::Descriptor& type = *ahead.back();
    ahead.pop_back();
    if (++count > dynamic_type::types_max) return false;
    if (type.options().map_entry() && !is_sound_entry(type)) return false;
    if (!is_well_known_or_ours(type)) return false;
    for (int i = 0; i < type.nested_type_count(); ++i) ahead.push_back(type.nested_type(i));
  }
  return true;
}

// Declared messages, so that a hostile schema is refused before the pool spends time on it.
int declared_types(const pb::FileDescriptorProto& file) {
  std::vector<const pb::DescriptorProto*> ahead;
  for (const auto& type : file.message_type()) ahead.push_back(&type);
  int count = 0;
  while (!ahead.empty()) {
    const pb::DescriptorProto& type = *ahead.back();
    ahead.pop_back();
    ++count;
    for (const auto& nested : type.nested_type()) ahead.push_back(&nested);
  }
  return count;
}

// Each file after its imports: the pool then never has to look for one, and a cycle cannot be said.
result<void> build(const pb::FileDescriptorSet& all, pb::DescriptorPool& pool) {
  int declared = 0;
  if (all.file_size() > dynamic_type::files_max) return unexpected(errc::too_big);
  for (const auto& file : all.file()) declared += declared_types(file);
  if (declared > dynamic_type::types_max) return unexpected(errc::too_big);
  int count = 0;
  silent_collector collector;
  for (const auto& file : all.file()) {
    const auto* built = pool.BuildFileCollectingErrors(file, &collector);
    if (!built || !check_types(*built, count)) return unexpected(errc::bad_message);
  }
  return {};
}

// What JsonUtil reports, without its code's name: "(quake.id): invalid value ...".
std::string without_code(const std::string& status) {
  const std::size_t colon = status.find(':');
  return colon == std::string::npos ? status : status.substr(colon + 1);
}

}  // namespace

std::unique_ptr<pb::Message> dynamic_type::parts::decode(std::span<const std::byte> payload) const {
  std::unique_ptr<pb::Message> made(prototype->New());
  if (info.encoding == encoding::attached) {
    const auto opened = attachment_open(payload);
    if (!opened) return nullptr;
    payload = opened->message;
  }
  if (!detail::decode_into(*made, payload)) return nullptr;
  return made;
}

dynamic_type::dynamic_type(std::unique_ptr<parts> made) noexcept : parts_(std::move(made)) {}
dynamic_type::dynamic_type(dynamic_type&&) noexcept = default;
dynamic_type& dynamic_type::operator=(dynamic_type&&) noexcept = default;
dynamic_type::~dynamic_type() = default;

const type_info& dynamic_type::info() const noexcept { return parts_->info; }

result<dynamic_type> dynamic_type::from_schema(const type_info& claimed) {
  if (claimed.encoding != encoding::protobuf && claimed.encoding != encoding::attached)
    return unexpected(errc::unsupported);
  if (claimed.schema.size() > schema_bytes_max) return unexpected(errc::too_big);
  pb::FileDescriptorSet all;
  if (!detail::decode_into(all, std::as_bytes(std::span(claimed.schema))))
    return unexpected(errc::bad_message);
  auto made = std::make_unique<parts>();
  if (const auto built = build(all, made->pool); !built) return unexpected(built.error());
  made->type = made->pool.FindMessageTypeByName(claimed.name);
  if (!made->type) return unexpected(errc::not_found);
  if (made->type->options().map_entry()) return unexpected(errc::bad_message);
  made->info = claimed;
  made->info.hash = type_hash_of(*made->type, claimed.encoding);
  if (claimed.hash != 0 && claimed.hash != made->info.hash) return unexpected(errc::type_mismatch);
  made->prototype = made->factory.GetPrototype(made->type);
  if (!made->prototype) return unexpected(errc::bad_message);
  return dynamic_type(std::move(made));
}

result<std::string> dynamic_type::to_json(std::span<const std::byte> payload) const {
  return to_json(payload, json_options{});
}

result<std::string> dynamic_type::to_json(std::span<const std::byte> payload,
                                          json_options how) const {
  const auto message = parts_->decode(payload);
  if (!message) return unexpected(errc::bad_message);
  auto text = json::of_message(*message, {.indented = how.indented, .zeros = how.zeros});
  if (!text || parts_->info.encoding != encoding::attached) return text;
  if (parts_->type->FindFieldByName("binary_bytes") || text->find('{') != 0) return text;
  const auto binary_bytes = std::to_string(attachment_open(payload)->binary.size());
  const bool alone = text->find('"') == std::string::npos;
  std::string more = how.indented ? (alone ? "\n \"" : ",\n \"") : (alone ? "\"" : ",\"");
  more += "binary_bytes\":" + std::string(how.indented ? " " : "") + binary_bytes;
  // Before what ends the object: "}", or "\n}\n" when indented.
  const std::size_t last = text->find_last_not_of(" \n", text->rfind('}') - 1);
  text->insert(last + 1, more + (alone && how.indented ? "\n" : ""));
  return text;
}

result<std::string> dynamic_type::from_json(std::string_view text, std::string* error_text) const {
  const auto failed = [&](std::string why) {
    if (error_text) *error_text = std::move(why);
    return unexpected(errc::bad_message);
  };
  std::unique_ptr<pb::Message> made(parts_->prototype->New());
  const auto status = pb::util::JsonStringToMessage({text.data(), text.size()}, made.get());
  if (!status.ok()) return failed(without_code(status.ToString()));
  const auto message_bytes = detail::encoded_bytes(*made);
  if (!message_bytes) {
    return failed(made->IsInitialized() ? "2 GiB or more"
                                        : "missing: " + made->InitializationErrorString());
  }
  const bool attached = parts_->info.encoding == encoding::attached;
  const attachment_layout both{.binary_bytes = 0, .message_bytes = *message_bytes};
  std::string payload(attached ? sizeof both + *message_bytes : *message_bytes, '\0');
  std::span<std::byte> into = std::as_writable_bytes(std::span(payload));
  if (attached) into = attachment_lay_out(into, both).message;
  detail::encode_cached(*made, into);
  return payload;
}

result<std::string> dynamic_type::field(std::span<const std::byte> payload,
                                        std::string_view path) const {
  if (path.size() > path_bytes_max) return unexpected(errc::bad_name);
  const auto message = parts_->decode(payload);
  if (!message) return unexpected(errc::bad_message);
  return json::of_field(*message, path);
}

}  // namespace bus
