#include "bus/tool/message.hpp"

#include "bus/tool/console.hpp"
#include "bus/tool/verb.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <compare>
#include <optional>
#include <string_view>
#include <utility>

namespace bus::tool {
namespace {

using json = nlohmann::ordered_json;

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::optional<double> number_in(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// "numbers[2]" or "counts[key]" or "name": one step down, null if it leads nowhere.
const json* step_down(const json* at, std::string_view step) {
  const std::size_t bracket = step.find('[');
  const std::string name(step.substr(0, bracket));
  if (!at->is_object() || !at->contains(name)) return nullptr;
  at = &(*at)[name];
  if (bracket == std::string_view::npos) return at;
  if (step.back() != ']') return nullptr;
  const std::string key(step.substr(bracket + 1, step.size() - bracket - 2));
  if (at->is_object()) return at->contains(key) ? &(*at)[key] : nullptr;
  const auto index = number_in(key);
  if (!at->is_array() || !index || *index < 0 || *index >= static_cast<double>(at->size())) {
    return nullptr;
  }
  return &(*at)[static_cast<std::size_t>(*index)];
}

}  // namespace

result<type_info> complete_type(const rendezvous& place, const wire::Type& words) {
  type_info made{.name = words.name(),
                 .encoding = static_cast<encoding>(words.encoding()),
                 .hash = words.hash(),
                 .schema = {}};
  if (made.hash == 0) return made;
  auto schema = place.read_schema(made.hash);
  if (!schema) return unexpected(schema.error());
  made.schema = std::move(*schema);
  return made;
}

const message_reader::known_type& message_reader::known(const wire::Type& type) {
  const auto [at, fresh] = types_.try_emplace(type.hash());
  if (!fresh) return at->second;
  const auto complete = complete_type(place_, type);
  if (!complete) {
    at->second.trouble =
        "the schema of " + type.name() + " is not on the bus: " + complete.error().message();
    return at->second;
  }
  auto made = dynamic_type::from_schema(*complete);
  if (made) {
    at->second.type = std::make_unique<dynamic_type>(std::move(*made));
  } else if (made.error() != errc::unsupported) {
    at->second.trouble = "the schema of " + type.name() + " is refused: " + made.error().message();
  }
  return at->second;
}

message_reader::shown message_reader::read(const wire::Type& type,
                                           std::span<const std::byte> payload) {
  shown made;
  if (type.hash() != 0) {
    const known_type& how = known(type);
    made.trouble = how.trouble;
    if (how.type) {
      const auto text = how.type->to_json(payload);
      if (text) made.value = json::parse(*text, nullptr, false);
      made.decoded = text && !made.value.is_discarded();
      if (made.decoded) return made;
      made.trouble = "not a " + type.name() + ": the payload does not decode";
    }
  }
  const std::string_view text = text_of(payload);
  // A plain struct is never text, even if its bytes happen to be.
  const bool is_text = type.hash() == 0 && printable(text);
  made.value = is_text ? std::string(text) : "hex:" + hex_text(payload);
  return made;
}

json value_at(const json& message, const std::string& path) {
  const json* at = &message;
  std::string_view rest = path;
  while (at && !rest.empty()) {
    // A key in brackets may hold dots.
    const std::size_t bracket = rest.find('[');
    std::size_t end = rest.find('.');
    if (bracket < end) end = rest.find('.', std::min(rest.find(']', bracket), rest.size()));
    at = step_down(at, rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
  }
  return at ? *at : json();
}

condition::condition(const std::string& text) {
  constexpr std::array<std::string_view, 7> operators = {"==", "!=", "<=", ">=", "<", ">", "~"};
  const std::size_t at = text.find_first_of("=!<>~");
  for (const std::string_view each : operators) {
    if (at == std::string::npos || text.compare(at, each.size(), each) != 0) continue;
    path_ = trimmed(std::string_view(text).substr(0, at));
    operator_ = each;
    value_ = trimmed(std::string_view(text).substr(at + each.size()));
    break;
  }
  if (operator_.empty() || path_.empty()) {
    throw failure(exit_code::usage, "'" + text +
                                        "' is no condition: write FIELD OPERATOR VALUE, as in "
                                        "'magnitude >= 5'; operators: == != < <= > >= ~");
  }
}

bool condition::holds(const json& message) const {
  const json value = value_at(message, path_);
  const std::string left = plain_text(value);
  if (operator_ == "~") return left.find(value_) != std::string::npos;
  if (value.is_null() && value_ != "null") return operator_ == "!=";
  const auto left_number = number_in(left);
  const auto right_number = number_in(value_);
  const auto order = left_number && right_number ? std::partial_order(*left_number, *right_number)
                                                 : std::partial_ordering(left <=> value_);
  if (operator_ == "==") return std::is_eq(order);
  if (operator_ == "!=") return std::is_neq(order);
  if (operator_ == "<") return std::is_lt(order);
  if (operator_ == "<=") return std::is_lteq(order);
  if (operator_ == ">") return std::is_gt(order);
  return std::is_gteq(order);
}

std::string plain_text(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string hex_text(std::span<const std::byte> bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::byte each : bytes) {
    text += digits[std::to_integer<std::size_t>(each) >> 4U];
    text += digits[std::to_integer<std::size_t>(each) & 15U];
  }
  return text;
}

}  // namespace bus::tool
