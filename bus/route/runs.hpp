// Ascending numbers as runs: first, last, first, last. Publishers are numbered in turn, so a
// million of them are mostly a few runs.
#pragma once

#include <cstdint>

#include <google/protobuf/repeated_field.h>

namespace bus {

using runs = google::protobuf::RepeatedField<std::uint32_t>;

// Requires: `number` is greater than all that were added before.
inline void add_to_runs(runs& to, std::uint32_t number) {
  if (!to.empty() && to[to.size() - 1] + 1 == number) {
    to[to.size() - 1] = number;
    return;
  }
  to.Add(number);
  to.Add(number);
}

// Whether the number is in one of them. Whoever wrote them may have broken the rules: then the
// answer means nothing, and comes as fast.
[[nodiscard]] inline bool in_runs(const runs& said, std::uint32_t number) {
  int first = 0;
  for (int end = said.size() / 2; first < end;) {
    const int middle = first + (end - first) / 2;
    if (said[2 * middle + 1] < number) {
      first = middle + 1;
    } else {
      end = middle;
    }
  }
  return first < said.size() / 2 && said[2 * first] <= number;
}

}  // namespace bus
