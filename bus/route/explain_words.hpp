// How an explanation names things: nodes, types, counts, and the two parties of a path. One place,
// so that the same thing is called the same in every sentence.
#pragma once

#include "bus/route/explain.hpp"

#include <cstdint>
#include <string>

namespace bus::explaining {

// "1 sample", "2 samples".
[[nodiscard]] std::string plural(std::uint64_t count, const std::string& noun);
// "1.5 s"; more exactly below a second.
[[nodiscard]] std::string seconds_of(std::int64_t ns);
// "seismograph (00000000000000a1)".
[[nodiscard]] std::string called(const node_report& node);
// "camera, pid 4711"; empty for nobody.
[[nodiscard]] std::string called(const wire::Kin& child);
// A type with its hash, "raw" for bytes.
[[nodiscard]] std::string shown(const wire::Type& type);

// Whose card is in this bus directory.
[[nodiscard]] explanation::party party_of(const node_report& node,
                                          const wire::Advertisement& words);
[[nodiscard]] explanation::party party_of(const node_report& node, const wire::Interest& words);
// Whose card is on another machine.
[[nodiscard]] explanation::party party_elsewhere(node_id node, std::string node_name);

}  // namespace bus::explaining
