// Ascending numbers as runs: first, last, first, last. Publishers are numbered in turn, so a
// million of them are mostly a few runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

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

// Calls visit(number) for each of `all`, ascending, that is in one of the runs; whatever else the
// runs say is passed over.
template <class Visitor>
void for_each_in_runs(const runs& said, const std::vector<std::uint32_t>& all, Visitor&& visit) {
  auto at = all.begin();
  for (int i = 0; i + 1 < said.size(); i += 2) {
    at = std::lower_bound(at, all.end(), said[i]);
    for (; at != all.end() && *at <= said[i + 1]; ++at) visit(*at);
  }
}

}  // namespace bus
