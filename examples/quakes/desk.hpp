// The subscribing half of "at least once": a desk writes each report into its journal and then
// counts it, once, however often it is told; and when a roll is called, it asks for what it misses.
// A desk that was killed goes on from its journal.
//
//   new, not asked for   live         known already        twice
//   new, asked for       recovered
#pragma once

#include "bus/bus.hpp"
#include "examples/quakes/feed.hpp"
#include "examples/quakes/journal.hpp"
#include "examples/quakes/latencies.hpp"
#include "examples/quakes/words.pb.h"

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>

namespace demo {

class desk {
 public:
  struct setup {
    std::string name;
    std::string journal;
    bool hears_alerts = true;
    // Called with each report that is new, after it was written down; also with those of the
    // journal, in their order, before the constructor returns.
    std::function<void(const Quake&)> on_quake = {};
  };
  // The node outlives the desk.
  desk(bus::node& node, setup wanted);

  // Fills in what a subscriber has to say of itself.
  void describe(Status& into);

 private:
  struct shelf {
    Tally tally;
    std::unordered_set<std::string> known;
    std::unordered_set<std::string> asked;
  };
  struct figures {
    latencies latency;
    std::uint64_t counted = 0;  // at the last report
    double rate = 0;
  };
  void recall(const Entry& entry);
  // Whether the report is new.
  bool take(shelf& into, Entry& entry, const std::string& key);
  void hear(const bus::received<Quake>& quake);
  void hear(const bus::received<Alert>& alert);
  void measure(const std::string& topic, const bus::frame& head);
  void note_revision(const Quake& quake);
  void check(const Roll& roll);

  bus::node& node_;
  setup wanted_;
  journal journal_;
  shelf quakes_;
  shelf alerts_;
  std::unordered_map<std::string, std::int64_t> latest_;  // revision of each event
  std::map<std::string, figures> topics_;
  std::int64_t described_ns_ = 0;
  std::map<std::string, bus::publisher<Again>> askers_;
  // Last: their callbacks use all of the above.
  std::optional<bus::listener> quake_listener_;
  std::optional<bus::listener> alert_listener_;
  std::optional<bus::listener> roll_listener_;
};

// Adds one to what the kind of entry says.
void count(Tally& into, Entry::Kind kind);
// How many different reports.
[[nodiscard]] inline std::uint64_t distinct(const Tally& tally) {
  return tally.live() + tally.recovered();
}

}  // namespace demo
