// The real-time feed as the demo's messages. Pure but for reading the file; nulls stay absent,
// repeated and disordered reports are counted and kept: what the feed says is not ours to mend.
#pragma once

#include "schemas/demo/quake.pb.h"

#include <cstddef>
#include <iosfwd>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace demo {

// What is unusual in a feed, counted.
struct findings {
  std::size_t out_of_order = 0;  // neighbours of which the later one happened earlier
  std::size_t negative_magnitudes = 0;
  std::size_t revisions = 0;                 // reports of an event that has another report
  std::size_t repeats = 0;                   // reports that are there already, word for word
  std::map<std::string, std::size_t> nulls;  // by field: absent or null
};

struct feed {
  std::vector<Quake> quakes;  // one for each feature, in the order of the file
  findings found;

  // Keys of all reports; quakes.size() - found.repeats of them.
  [[nodiscard]] std::set<std::string> keys() const;
  [[nodiscard]] std::set<std::string> networks() const;
  // One network's reports, the earliest event first; of one event, the earliest revision first.
  [[nodiscard]] std::vector<const Quake*> in_event_order(const std::string& network) const;
};

// Throws std::runtime_error, which names the feature, when the text is no feed.
[[nodiscard]] feed read_feed(std::istream& text);
[[nodiscard]] feed read_feed_file(const std::string& path);

// Which report this is: "ci37868143@1517966996303".
[[nodiscard]] std::string key_of(const Quake& quake);
[[nodiscard]] std::string key_of(const Alert& alert);
// "quakes/ci/ml"; what the feed does not say is the level "unknown".
[[nodiscard]] std::string topic_of(const Quake& quake);
// "alerts/warning"
[[nodiscard]] std::string topic_of(const Alert& alert);
// One level of a topic's name: lower case; "unknown" when empty, and '_' for what no name may hold.
[[nodiscard]] std::string level_of(const std::string& word);

}  // namespace demo
