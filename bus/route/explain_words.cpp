#include "bus/route/explain_words.hpp"

#include <array>
#include <cstdio>
#include <utility>

namespace bus::explaining {

std::string plural(std::uint64_t count, const std::string& noun) {
  return std::to_string(count) + ' ' + noun + (count == 1 ? "" : "s");
}

std::string seconds_of(std::int64_t ns) {
  std::array<char, 32> text{};
  const double seconds = static_cast<double>(ns) / 1e9;
  std::snprintf(text.data(), text.size(), seconds < 1 ? "%.3f s" : "%.1f s", seconds);
  return text.data();
}

std::string called(const node_report& node) {
  const std::string name = node.card.name().empty() ? "node" : node.card.name();
  return name + " (" + to_hex(node.id.value) + ')';
}

std::string shown(const wire::Type& type) {
  if (type.hash() == 0) return type.name().empty() ? "raw" : type.name();
  return type.name() + " (" + to_hex(type.hash()) + ')';
}

std::string called(const wire::Kin& child) {
  if (child.name().empty()) return {};
  return child.name() + ", pid " + std::to_string(child.pid());
}

explanation::party party_of(const node_report& node, const wire::Advertisement& words) {
  return {.node = node.id,
          .node_name = node.card.name(),
          .pid = node.card.pid(),
          .number = words.publisher(),
          .name = words.topic(),
          .type = words.type().name(),
          .type_hash = words.type().hash(),
          .here = true,
          .on_behalf_of = called(words.on_behalf_of())};
}

explanation::party party_of(const node_report& node, const wire::Interest& words) {
  return {.node = node.id,
          .node_name = node.card.name(),
          .pid = node.card.pid(),
          .number = words.subscription(),
          .name = words.pattern(),
          .type = words.has_type() ? words.type().name() : "any",
          .type_hash = words.has_type() ? words.type().hash() : 0,
          .here = true,
          .on_behalf_of = called(words.on_behalf_of())};
}

explanation::party party_elsewhere(node_id node, std::string node_name) {
  return {.node = node,
          .node_name = std::move(node_name),
          .pid = 0,
          .number = 0,
          .name = {},
          .type = "unknown",
          .type_hash = 0,
          .here = false,
          .on_behalf_of = {}};
}

}  // namespace bus::explaining
