#include "examples/quakes/account.hpp"

#include "examples/quakes/desk.hpp"
#include "examples/quakes/watch.hpp"

#include <algorithm>
#include <iterator>
#include <map>

namespace demo {
namespace {

std::vector<std::string> without(const std::set<std::string>& all,
                                 const std::set<std::string>& others) {
  std::vector<std::string> left;
  std::set_difference(all.begin(), all.end(), others.begin(), others.end(),
                      std::back_inserter(left));
  return left;
}

}  // namespace

std::set<std::string> alerts_of(const std::vector<Entry>& detector) {
  watch watching;
  std::set<std::string> raised;
  for (const Entry& entry : detector) {
    if (!entry.has_quake()) continue;
    for (const Alert& alert : watching.see(entry.quake())) raised.insert(key_of(alert));
  }
  return raised;
}

account settle(const std::string& name, const std::vector<Entry>& journal, const feed& input,
               const std::set<std::string>* alerts) {
  account made;
  made.name = name;
  std::set<std::string> heard;
  std::set<std::string> heard_alerts;
  std::map<std::string, std::int64_t> latest;
  for (const Entry& entry : journal) {
    const bool is_quake = entry.has_quake() || !entry.key().empty();
    count(is_quake ? made.quakes : made.alerts, entry.kind());
    if (entry.has_alert() && !heard_alerts.insert(key_of(entry.alert())).second) {
      ++made.torn_or_counted_twice;
    }
    if (!entry.has_quake()) continue;
    const Quake& quake = entry.quake();
    if (!heard.insert(key_of(quake)).second) ++made.torn_or_counted_twice;
    const auto [known, is_new] = latest.try_emplace(quake.id(), quake.updated_ms());
    if (is_new) continue;
    if (quake.updated_ms() < known->second) {
      made.quakes.set_stale(made.quakes.stale() + 1);
    } else {
      made.quakes.set_revised(made.quakes.revised() + 1);
      known->second = quake.updated_ms();
    }
  }
  const std::set<std::string> keys = input.keys();
  made.missing = without(keys, heard);
  made.foreign = without(heard, keys);
  if (alerts) {
    made.alerts_missing = without(*alerts, heard_alerts);
    made.alerts_foreign = without(heard_alerts, *alerts);
  }
  return made;
}

}  // namespace demo
