// What people see: text made of what is known, and nothing else. Nothing here asks or waits.
#pragma once

#include "examples/quakes/account.hpp"
#include "examples/quakes/feed.hpp"
#include "examples/quakes/link_report.hpp"
#include "examples/quakes/words.pb.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace demo {

using lines = std::vector<std::string>;

// The last report of each incarnation of each process.
using reports = std::map<std::string, std::map<unsigned, Status>>;
// The last report of the last incarnation; an empty one if there is none.
[[nodiscard]] const Status& latest(const reports& heard, const std::string& name);
// How many features all replays have published.
[[nodiscard]] std::uint64_t published(const reports& heard);
// Causes and counts over all incarnations: "cut 17, no_link 3", or "none".
[[nodiscard]] std::string losses(const reports& heard, const std::string& name);

[[nodiscard]] lines show_feed(const feed& input);
// One line that says how far it is.
[[nodiscard]] std::string show_progress(const reports& heard, std::size_t features, double seconds);
[[nodiscard]] lines show_topics(const reports& heard, const std::vector<link_line>& links);
[[nodiscard]] lines show_replays(const reports& heard);
// A line for each link that carries quakes or alerts.
[[nodiscard]] lines show_links_briefly(const std::vector<link_line>& links);
// All of them, with each way that was considered.
[[nodiscard]] lines show_links(const std::vector<link_line>& links);
[[nodiscard]] lines show_accounts(const std::vector<account>& accounts, const reports& heard,
                                  const feed& input, std::size_t alerts);

// "1,707"
[[nodiscard]] std::string with_commas(std::uint64_t number);

}  // namespace demo
