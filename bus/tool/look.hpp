// How reports see the bus: a census of its directory, taken without joining.
#pragma once

#include "bus/node/census.hpp"
#include "bus/tool/verb.hpp"

#include <string>

namespace bus::tool {

[[nodiscard]] std::string directory_of(const common_options& where);
// Opens the bus directory to read. Throws failure (not_so when there is none, denied).
[[nodiscard]] rendezvous visit(const common_options& where);
// All nodes; none when there is no bus directory yet, which is how a fresh machine looks. Throws
// failure (denied).
[[nodiscard]] census look(const common_options& where);

// "raw", "any" or the type's name.
[[nodiscard]] std::string type_text(const wire::Advertisement& words);
[[nodiscard]] std::string type_text(const wire::Interest& words);
[[nodiscard]] std::string_view life_text(liveness life) noexcept;
// Where a node on another machine can be called, cleaned: "tcp://10.0.0.9:7400"; or that it cannot.
[[nodiscard]] std::string place_text(const wire::Card& card);
// The node's name, cleaned, or "?" when its card cannot be read.
[[nodiscard]] std::string name_text(const node_report& one);

}  // namespace bus::tool
