#include "bus/codec/json.hpp"

#include "bus/codec/dynamic.hpp"
#include "bus/codec/protobuf.hpp"

#include <charconv>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <google/protobuf/any.pb.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/wrappers.pb.h>

namespace bus::json {
namespace {

namespace pb = google::protobuf;

constexpr int whole_field = -1;

// The JSON mapping opens each Any inside an Any by calling itself, without a limit: this is ours.
// It opens them as the mapping will, one level at a time. Linear in payload x any_depth_max.
class any_gauge {
 public:
  explicit any_gauge(const pb::Message& message) : pool_(*message.GetDescriptor()->file()->pool()) {
    factory_ = message.GetReflection()->GetMessageFactory();
    if (pool_.FindMessageTypeByName("google.protobuf.Any")) sound_ = scan(message, 0);
  }
  // Whether each Any in it can be shown.
  [[nodiscard]] bool sound() const noexcept { return sound_; }

 private:
  // Recursive as deep as messages nest, at most 100 for each level of Any.
  bool scan(const pb::Message& message, int depth) {
    if (message.GetDescriptor()->full_name() == "google.protobuf.Any") return open(message, depth);
    const pb::Reflection& look = *message.GetReflection();
    std::vector<const pb::FieldDescriptor*> set;
    look.ListFields(message, &set);
    for (const auto* field : set) {
      if (field->cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE) continue;
      if (!field->is_repeated()) {
        if (!scan(look.GetMessage(message, field), depth)) return false;
        continue;
      }
      for (int i = 0; i < look.FieldSize(message, field); ++i) {
        if (!scan(look.GetRepeatedMessage(message, field, i), depth)) return false;
      }
    }
    return true;
  }

  bool open(const pb::Message& any, int depth) {
    pb::Any copy;
    if (!copy.ParseFromString(any.SerializeAsString())) return false;
    if (copy.type_url().empty()) return copy.value().empty();
    if (depth == dynamic_type::any_depth_max) return false;
    const auto* type =
        pool_.FindMessageTypeByName(copy.type_url().substr(copy.type_url().rfind('/') + 1));
    if (!type || type->options().map_entry()) return false;
    const std::unique_ptr<pb::Message> inner(factory_->GetPrototype(type)->New());
    const auto decoded = detail::decode_into(*inner, std::as_bytes(std::span(copy.value())));
    return decoded && scan(*inner, depth + 1);
  }

  const pb::DescriptorPool& pool_;
  pb::MessageFactory* factory_;
  bool sound_ = true;
};

std::string plainly(const pb::Message& wrapper) {
  std::string text;
  const auto status = pb::util::MessageToJsonString(wrapper, &text);
  return status.ok() ? text : "null";
}

template <class Wrapper, class Value>
std::string wrapped(Value value) {
  Wrapper wrapper;
  wrapper.set_value(std::move(value));
  return plainly(wrapper);
}

std::string quoted(const std::string& text) { return wrapped<pb::StringValue>(text); }

std::string of_enum(const pb::FieldDescriptor& field, int number) {
  if (field.enum_type()->full_name() == "google.protobuf.NullValue") return "null";
  const auto* value = field.enum_type()->FindValueByNumber(number);
  return value ? quoted(value->name()) : std::to_string(number);
}

// One value of a field: the element at `index`, or the field itself when it is singular.
class element {
 public:
  element(const pb::Message& message, const pb::FieldDescriptor& field, int index)
      : message_(message), look_(*message.GetReflection()), field_(field), index_(index) {}

  [[nodiscard]] const pb::Message& message() const {
    return index_ == whole_field ? look_.GetMessage(message_, &field_)
                                 : look_.GetRepeatedMessage(message_, &field_, index_);
  }

  [[nodiscard]] std::string text() const {
    std::string copy;
    return index_ == whole_field
               ? look_.GetStringReference(message_, &field_, &copy)
               : look_.GetRepeatedStringReference(message_, &field_, index_, &copy);
  }

  [[nodiscard]] result<std::string> json() const {
    using reflection = pb::Reflection;
    switch (field_.cpp_type()) {
      case pb::FieldDescriptor::CPPTYPE_INT32:
        return std::to_string(get(&reflection::GetInt32, &reflection::GetRepeatedInt32));
      case pb::FieldDescriptor::CPPTYPE_UINT32:
        return std::to_string(get(&reflection::GetUInt32, &reflection::GetRepeatedUInt32));
      case pb::FieldDescriptor::CPPTYPE_INT64:
        return wrapped<pb::Int64Value>(get(&reflection::GetInt64, &reflection::GetRepeatedInt64));
      case pb::FieldDescriptor::CPPTYPE_UINT64:
        return wrapped<pb::UInt64Value>(
            get(&reflection::GetUInt64, &reflection::GetRepeatedUInt64));
      case pb::FieldDescriptor::CPPTYPE_DOUBLE:
        return wrapped<pb::DoubleValue>(
            get(&reflection::GetDouble, &reflection::GetRepeatedDouble));
      case pb::FieldDescriptor::CPPTYPE_FLOAT:
        return wrapped<pb::FloatValue>(get(&reflection::GetFloat, &reflection::GetRepeatedFloat));
      case pb::FieldDescriptor::CPPTYPE_BOOL:
        return std::string(get(&reflection::GetBool, &reflection::GetRepeatedBool) ? "true"
                                                                                   : "false");
      case pb::FieldDescriptor::CPPTYPE_ENUM:
        return of_enum(field_, get(&reflection::GetEnumValue, &reflection::GetRepeatedEnumValue));
      case pb::FieldDescriptor::CPPTYPE_STRING:
        return field_.type() == pb::FieldDescriptor::TYPE_BYTES ? wrapped<pb::BytesValue>(text())
                                                                : quoted(text());
      case pb::FieldDescriptor::CPPTYPE_MESSAGE:
        return of_message(message(), {});
    }
    return unexpected(errc::bad_message);
  }

 private:
  template <class Value>
  [[nodiscard]] Value get(Value (pb::Reflection::*one)(const pb::Message&,
                                                       const pb::FieldDescriptor*) const,
                          Value (pb::Reflection::*many)(const pb::Message&,
                                                        const pb::FieldDescriptor*, int)
                              const) const {
    return index_ == whole_field ? (look_.*one)(message_, &field_)
                                 : (look_.*many)(message_, &field_, index_);
  }

  const pb::Message& message_;
  const pb::Reflection& look_;
  const pb::FieldDescriptor& field_;
  int index_;
};

// The key of a map's entry, as it stands between the brackets of a path.
std::string key_of(const pb::Message& entry) {
  const pb::FieldDescriptor& key = *entry.GetDescriptor()->map_key();
  const element one(entry, key, whole_field);
  if (key.cpp_type() == pb::FieldDescriptor::CPPTYPE_STRING) return one.text();
  std::string text = one.json().value_or("null");
  if (text.front() == '"') text = text.substr(1, text.size() - 2);  // a 64-bit integer
  return text;
}

result<std::string> of_repeated(const pb::Message& message, const pb::FieldDescriptor& field) {
  const bool is_map = field.is_map();
  std::string text(1, is_map ? '{' : '[');
  const int count = message.GetReflection()->FieldSize(message, &field);
  for (int i = 0; i < count; ++i) {
    if (i != 0) text += ',';
    const element one(message, field, i);
    if (is_map) text += quoted(key_of(one.message())) + ':';
    auto value =
        is_map ? element(one.message(), *field.message_type()->map_value(), whole_field).json()
               : one.json();
    if (!value) return value;
    text += *value;
  }
  return text + (is_map ? '}' : ']');
}

result<std::string> of_value(const pb::Message& message, const pb::FieldDescriptor& field) {
  if (field.is_repeated()) return of_repeated(message, field);
  if (field.has_presence() && !message.GetReflection()->HasField(message, &field))
    return std::string("null");
  return element(message, field, whole_field).json();
}

// One step of a path: a field, and what stands in brackets behind it.
struct step {
  std::string name;
  std::optional<std::string> key;
};

// Takes the first step off `path`. Nothing if it does not begin with one.
std::optional<step> take_step(std::string_view& path) {
  const std::size_t name_end = std::min(path.find_first_of(".["), path.size());
  step taken{std::string(path.substr(0, name_end)), std::nullopt};
  path.remove_prefix(name_end);
  if (taken.name.empty()) return std::nullopt;
  if (!path.empty() && path.front() == '[') {
    const std::size_t close = path.find(']');
    if (close == std::string_view::npos) return std::nullopt;
    taken.key = path.substr(1, close - 1);
    path.remove_prefix(close + 1);
  }
  if (path.empty()) return taken;
  if (path.front() != '.' || path.size() == 1) return std::nullopt;
  path.remove_prefix(1);
  return taken;
}

// The place of a key or index in a repeated field. Errors: bad_name, not_found.
result<int> place_of(const pb::Message& message, const pb::FieldDescriptor& field,
                     const std::string& key) {
  const int count = message.GetReflection()->FieldSize(message, &field);
  if (field.is_map()) {
    for (int i = 0; i < count; ++i) {
      if (key_of(element(message, field, i).message()) == key) return i;
    }
    return unexpected(errc::not_found);
  }
  int index = 0;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), index);
  if (error != std::errc{} || end != key.data() + key.size() || index < 0)
    return unexpected(errc::bad_name);
  if (index >= count) return unexpected(errc::not_found);
  return index;
}

}  // namespace

result<std::string> of_message(const pb::Message& message, options how) {
  if (!any_gauge(message).sound()) return unexpected(errc::bad_message);
  pb::util::JsonPrintOptions print;
  print.add_whitespace = how.indented;
  print.always_print_primitive_fields = how.zeros;
  print.preserve_proto_field_names = true;
  std::string text;
  const auto status = pb::util::MessageToJsonString(message, &text, print);
  if (!status.ok()) return unexpected(errc::bad_message);
  return text;
}

result<std::string> of_field(const pb::Message& message, std::string_view path) {
  const pb::Message* at = &message;
  while (!path.empty()) {
    const auto next = take_step(path);
    if (!next) return unexpected(errc::bad_name);
    const pb::FieldDescriptor* field = at->GetDescriptor()->FindFieldByName(next->name);
    if (!field) return unexpected(errc::not_found);
    if (!next->key && path.empty()) return of_value(*at, *field);
    if (next->key.has_value() != field->is_repeated()) return unexpected(errc::bad_name);

    int index = whole_field;
    if (next->key) {
      const auto place = place_of(*at, *field, *next->key);
      if (!place) return unexpected(place.error());
      index = *place;
    } else if (field->has_presence() && !at->GetReflection()->HasField(*at, field)) {
      // What is not there has no fields that could be missing.
      return std::string("null");
    }
    const pb::Message* owner = at;
    if (field->is_map()) {
      owner = &element(*at, *field, index).message();
      field = field->message_type()->map_value();
      index = whole_field;
    }
    const element one(*owner, *field, index);
    if (path.empty()) return one.json();
    if (field->cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE)
      return unexpected(errc::not_found);
    at = &one.message();
  }
  return of_message(*at, {});
}

}  // namespace bus::json
