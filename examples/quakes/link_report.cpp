#include "examples/quakes/link_report.hpp"

#include "bus/node/error.hpp"
#include "bus/node/ledger_file.hpp"

#include <map>
#include <tuple>

#include <fmt/format.h>

namespace demo {
namespace {

// "replay-ci" is one of the replays.
std::string kind_of(const std::string& name) { return name.substr(0, name.find('-')); }

using grouping = std::map<std::tuple<std::string, std::string, std::string>, link_line>;

// The chosen way's verdict, and those of the ways that would have been cheaper.
std::string briefly(const bus::wire::Link& link) {
  std::string text;
  std::uint64_t cost_ns = 0;
  for (const bus::wire::Candidate& way : link.candidates()) {
    if (!way.chosen()) continue;
    cost_ns = way.cost_ns();
    text = way.verdict();
  }
  for (const bus::wire::Candidate& way : link.candidates()) {
    if (way.cost_ns() < cost_ns) text += "; not " + way.scheme() + ": " + way.verdict();
  }
  return text;
}

void group(grouping& into, const std::string& from, const bus::wire::Link& link) {
  link_line line{.from = kind_of(from), .to = kind_of(link.peer_name())};
  std::string key;
  for (const bus::wire::Candidate& way : link.candidates()) {
    if (way.chosen()) line.scheme = way.scheme();
    line.why.push_back(fmt::format("{} ({:.1f} us): {}", way.scheme(),
                                   static_cast<double>(way.cost_ns()) / 1000, way.verdict()));
    key += line.why.back() + "\n";
  }
  if (line.scheme.empty()) key += link.state() + link.reason();
  line.briefly = briefly(link);
  line.proof = link.proof();
  link_line& kept = into.try_emplace({line.from, line.to, key}, std::move(line)).first->second;
  ++kept.count;
}

}  // namespace

link_report::link_report(const std::vector<std::string>& directories) {
  for (const std::string& path : directories) {
    // Its nodes may not have made it yet.
    auto opened = bus::rendezvous::open(path, bus::node_id{});
    if (!opened) {
      throw bus::error(opened.error(), "cannot read the bus directory " + path + ": " +
                                           opened.error().message() + "; ask `bus doctor`");
    }
    places_.push_back(std::move(*opened));
  }
}

std::vector<link_line> link_report::read() const {
  grouping groups;
  for (const bus::rendezvous& place : places_) {
    for (const bus::node_id id : place.nodes()) {
      // A process that was killed leaves its files; they are no news.
      if (!bus::is_alive(place.directory(), id)) continue;
      const auto card = place.read_card(id);
      const auto links = place.read_links(id);
      if (!card || !links) continue;
      for (const bus::wire::Link& link : links->links()) {
        // Without a peer it is a call to an address, not yet to anybody.
        if (link.peer() != 0) group(groups, card->name(), link);
      }
    }
  }
  std::vector<link_line> lines;
  for (auto& [key, line] : groups) lines.push_back(std::move(line));
  return lines;
}

}  // namespace demo
