#include "examples/quakes/feed.hpp"

#include <algorithm>
#include <fstream>
#include <stdexcept>
#include <tuple>

#include <nlohmann/json.hpp>

namespace demo {
namespace {

using nlohmann::json;

// One feature's fields; remembers which of them were null.
class fields {
 public:
  fields(const json& object, findings& found) : object_(object), found_(found) {}

  // Calls set(value) unless the field is null or missing.
  template <class T, class Set>
  void take(const char* name, Set set) {
    const auto at = object_.find(name);
    if (at == object_.end() || at->is_null()) {
      ++found_.nulls[name];
      return;
    }
    set(at->get<T>());
  }

 private:
  const json& object_;
  findings& found_;
};

// ",ci1,us2," as a list
void split(const std::string& text, google::protobuf::RepeatedPtrField<std::string>& into) {
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    if (end != begin) into.Add()->assign(text, begin, end - begin);
    begin = end + 1;
  }
}

Quake::Status status_of(const std::string& word) {
  if (word == "automatic") return Quake::STATUS_AUTOMATIC;
  if (word == "reviewed") return Quake::STATUS_REVIEWED;
  if (word == "deleted") return Quake::STATUS_DELETED;
  return Quake::STATUS_UNKNOWN;
}

Quake::Impact impact_of(const std::string& word) {
  if (word == "green") return Quake::IMPACT_GREEN;
  if (word == "yellow") return Quake::IMPACT_YELLOW;
  if (word == "orange") return Quake::IMPACT_ORANGE;
  if (word == "red") return Quake::IMPACT_RED;
  return Quake::IMPACT_UNKNOWN;
}

void take_place(const json& feature, Quake& quake, findings& found) {
  const auto geometry = feature.find("geometry");
  const json none = json::array();
  const json& at =
      geometry == feature.end() || geometry->is_null() ? none : geometry->at("coordinates");
  const auto number = [&](std::size_t which, const char* name, auto set) {
    if (which < at.size() && at[which].is_number()) {
      set(at[which].get<double>());
    } else {
      ++found.nulls[name];
    }
  };
  number(0, "longitude", [&](double v) { quake.set_longitude(v); });
  number(1, "latitude", [&](double v) { quake.set_latitude(v); });
  number(2, "depth", [&](double v) { quake.set_depth_km(v); });
}

void take_measurements(fields& from, Quake& quake) {
  from.take<double>("mag", [&](double v) { quake.set_magnitude(v); });
  from.take<std::string>("magType", [&](const auto& v) { quake.set_magnitude_type(v); });
  from.take<std::uint32_t>("felt", [&](auto v) { quake.set_felt(v); });
  from.take<double>("cdi", [&](double v) { quake.set_felt_intensity(v); });
  from.take<double>("mmi", [&](double v) { quake.set_instrument_intensity(v); });
  from.take<std::string>("alert", [&](const auto& v) { quake.set_impact(impact_of(v)); });
  from.take<std::uint32_t>("nst", [&](auto v) { quake.set_stations(v); });
  from.take<double>("dmin", [&](double v) { quake.set_nearest_station_degrees(v); });
  from.take<double>("rms", [&](double v) { quake.set_residual_s(v); });
  from.take<double>("gap", [&](double v) { quake.set_gap_degrees(v); });
}

Quake quake_of(const json& feature, findings& found) {
  Quake quake;
  quake.set_id(feature.at("id").get<std::string>());
  fields from(feature.at("properties"), found);
  from.take<std::string>("net", [&](const auto& v) { quake.set_network(v); });
  from.take<std::string>("place", [&](const auto& v) { quake.set_place(v); });
  from.take<std::int64_t>("time", [&](auto v) { quake.set_time_ms(v); });
  from.take<std::int64_t>("updated", [&](auto v) { quake.set_updated_ms(v); });
  from.take<int>("tz", [&](int v) { quake.set_utc_offset_minutes(v); });
  from.take<int>("tsunami", [&](int v) { quake.set_tsunami(v != 0); });
  from.take<std::uint32_t>("sig", [&](auto v) { quake.set_significance(v); });
  from.take<std::string>("status", [&](const auto& v) { quake.set_status(status_of(v)); });
  from.take<std::string>("type", [&](const auto& v) { quake.set_type(v); });
  from.take<std::string>("title", [&](const auto& v) { quake.set_title(v); });
  from.take<std::string>("url", [&](const auto& v) { quake.set_url(v); });
  from.take<std::string>("ids", [&](const auto& v) { split(v, *quake.mutable_ids()); });
  from.take<std::string>("sources", [&](const auto& v) { split(v, *quake.mutable_sources()); });
  take_measurements(from, quake);
  take_place(feature, quake, found);
  if (quake.has_magnitude() && quake.magnitude() < 0) ++found.negative_magnitudes;
  return quake;
}

}  // namespace

feed read_feed(std::istream& text) {
  feed made;
  std::size_t at = 0;
  try {
    const json whole = json::parse(text);
    for (const json& feature : whole.at("features")) {
      made.quakes.push_back(quake_of(feature, made.found));
      ++at;
    }
  } catch (const json::exception& failure) {
    throw std::runtime_error("this is no earthquake feed, at feature " + std::to_string(at) + ": " +
                             failure.what());
  }
  std::set<std::string> ids;
  std::set<std::string> keys;
  for (std::size_t i = 0; i < made.quakes.size(); ++i) {
    const Quake& quake = made.quakes[i];
    const bool new_id = ids.insert(quake.id()).second;
    const bool new_key = keys.insert(key_of(quake)).second;
    if (!new_key) ++made.found.repeats;
    if (new_key && !new_id) ++made.found.revisions;
    if (i > 0 && quake.time_ms() < made.quakes[i - 1].time_ms()) ++made.found.out_of_order;
  }
  return made;
}

feed read_feed_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path + "; name the feed with --data");
  return read_feed(file);
}

std::set<std::string> feed::keys() const {
  std::set<std::string> all;
  for (const Quake& quake : quakes) all.insert(key_of(quake));
  return all;
}

std::set<std::string> feed::networks() const {
  std::set<std::string> all;
  for (const Quake& quake : quakes) all.insert(level_of(quake.network()));
  return all;
}

std::vector<const Quake*> feed::in_event_order(const std::string& network) const {
  std::vector<const Quake*> chosen;
  for (const Quake& quake : quakes) {
    if (level_of(quake.network()) == network) chosen.push_back(&quake);
  }
  std::stable_sort(chosen.begin(), chosen.end(), [](const Quake* one, const Quake* other) {
    return std::tuple(one->time_ms(), one->updated_ms()) <
           std::tuple(other->time_ms(), other->updated_ms());
  });
  return chosen;
}

std::string key_of(const Quake& quake) {
  return quake.id() + "@" + std::to_string(quake.updated_ms());
}

std::string key_of(const Alert& alert) {
  const std::string cause = alert.quake_ids().empty() ? "" : alert.quake_ids(0);
  return topic_of(alert) + " " + cause + " " + alert.reason();
}

std::string topic_of(const Quake& quake) {
  return "quakes/" + level_of(quake.network()) + "/" + level_of(quake.magnitude_type());
}

std::string topic_of(const Alert& alert) {
  switch (alert.level()) {
    case Alert::LEVEL_NOTICE:
      return "alerts/notice";
    case Alert::LEVEL_WARNING:
      return "alerts/warning";
    case Alert::LEVEL_DANGER:
      return "alerts/danger";
    default:
      return "alerts/unknown";
  }
}

std::string level_of(const std::string& word) {
  if (word.empty()) return "unknown";
  std::string level = word;
  for (char& c : level) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    if (!plain) c = '_';
  }
  return level;
}

}  // namespace demo
