// The reconciliation: every feature of the feed is looked for at every subscriber, in its journal
// and not in what it says of itself. Pure but for reading the journals.
#pragma once

#include "examples/quakes/feed.hpp"
#include "examples/quakes/words.pb.h"

#include <cstddef>
#include <set>
#include <string>
#include <vector>

namespace demo {

struct account {
  std::string name;
  Tally quakes;
  Tally alerts;
  std::vector<std::string> missing;  // keys in the feed and not here
  std::vector<std::string> foreign;  // keys here and not in the feed
  std::vector<std::string> alerts_missing;
  std::vector<std::string> alerts_foreign;
  std::size_t torn_or_counted_twice = 0;  // keys that were counted as new more than once

  [[nodiscard]] bool is_settled() const {
    return missing.empty() && foreign.empty() && alerts_missing.empty() && alerts_foreign.empty() &&
           torn_or_counted_twice == 0;
  }
};

// Alerts that a detector with this journal has raised.
[[nodiscard]] std::set<std::string> alerts_of(const std::vector<Entry>& detector);

// `alerts` is what should have come; nullptr for the detector, which hears none.
[[nodiscard]] account settle(const std::string& name, const std::vector<Entry>& journal,
                             const feed& input, const std::set<std::string>* alerts);

}  // namespace demo
