#include "examples/quakes/watch.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <fmt/format.h>

namespace demo {
namespace {

constexpr double earth_km = 6371.0;
constexpr double km_per_degree = earth_km * std::numbers::pi / 180.0;

Alert alert_of(Alert::Level level, const Quake& cause, std::string reason) {
  Alert made;
  made.set_level(level);
  made.set_reason(std::move(reason));
  made.add_quake_ids(cause.id());
  made.set_time_ms(cause.time_ms());
  made.set_longitude(cause.longitude());
  made.set_latitude(cause.latitude());
  if (cause.has_magnitude()) made.set_magnitude(cause.magnitude());
  return made;
}

bool is_earthquake(const Quake& quake) {
  return quake.type() == "earthquake" && quake.status() != Quake::STATUS_DELETED;
}

}  // namespace

double distance_km(position one, position other) {
  const double to_radians = std::numbers::pi / 180.0;
  const double half_height = std::sin((other.latitude - one.latitude) * to_radians / 2);
  const double half_width = std::sin((other.longitude - one.longitude) * to_radians / 2);
  const double chord = half_height * half_height + std::cos(one.latitude * to_radians) *
                                                       std::cos(other.latitude * to_radians) *
                                                       half_width * half_width;
  return 2 * earth_km * std::asin(std::min(1.0, std::sqrt(chord)));
}

std::vector<Alert> watch::see(const Quake& quake) {
  std::vector<Alert> raised;
  const auto [known, is_new] = by_id_.try_emplace(quake.id(), events_.size());
  if (is_new) {
    events_.push_back({.quake = quake, .parent = events_.size()});
    if (is_earthquake(quake)) gather(known->second, raised);
  } else {
    event& one = events_[known->second];
    if (quake.updated_ms() <= one.quake.updated_ms()) return raised;
    // A revision may make it stronger; the cluster that it belongs to was decided already.
    one.quake = quake;
  }
  alarm(events_[known->second], raised);
  return raised;
}

void watch::alarm(event& one, std::vector<Alert>& into) const {
  const Quake& quake = one.quake;
  if (quake.status() == Quake::STATUS_DELETED) return;
  const double magnitude = quake.has_magnitude() ? quake.magnitude() : -10;
  int level = 0;
  std::string reason;
  if (magnitude >= limits_.strong) {
    level = magnitude >= limits_.great ? Alert::LEVEL_DANGER : Alert::LEVEL_WARNING;
    reason = fmt::format("magnitude {:.1f}, {}", magnitude, quake.place());
    if (quake.tsunami()) reason += "; tsunami information was issued";
  } else if (quake.tsunami()) {
    level = Alert::LEVEL_WARNING;
    reason = "tsunami information was issued, " + quake.place();
  }
  if (level <= one.alarmed) return;
  one.alarmed = level;
  into.push_back(alert_of(static_cast<Alert::Level>(level), quake, std::move(reason)));
}

bool watch::are_near(const Quake& one, const Quake& other) const {
  if (std::abs(one.time_ms() - other.time_ms()) > limits_.near_ms) return false;
  // Most are far in latitude, which needs no trigonometry.
  if (std::abs(one.latitude() - other.latitude()) * km_per_degree > limits_.near_km) return false;
  return distance_km({one.longitude(), one.latitude()}, {other.longitude(), other.latitude()}) <=
         limits_.near_km;
}

std::size_t watch::root_of(std::size_t at) {
  while (events_[at].parent != at) {
    events_[at].parent = events_[events_[at].parent].parent;
    at = events_[at].parent;
  }
  return at;
}

void watch::gather(std::size_t at, std::vector<Alert>& into) {
  for (std::size_t other = 0; other < events_.size(); ++other) {
    if (other == at || !is_earthquake(events_[other].quake)) continue;
    if (!are_near(events_[at].quake, events_[other].quake)) continue;
    const std::size_t ours = root_of(at);
    const std::size_t theirs = root_of(other);
    if (ours == theirs) continue;
    event& joined = events_[std::min(ours, theirs)];
    event& absorbed = events_[std::max(ours, theirs)];
    absorbed.parent = std::min(ours, theirs);
    joined.size += absorbed.size;
    joined.said = std::max(joined.said, absorbed.said);
  }
  event& root = events_[root_of(at)];
  int level = 0;
  if (root.size >= limits_.notice_at) level = Alert::LEVEL_NOTICE;
  if (root.size >= limits_.warning_at) level = Alert::LEVEL_WARNING;
  if (level <= root.said) return;
  root.said = level;
  into.push_back(alert_of(static_cast<Alert::Level>(level), events_[at].quake,
                          fmt::format("{} quakes belong together, the latest {}", root.size,
                                      events_[at].quake.place())));
}

std::vector<Cluster> watch::clusters() const {
  std::map<std::size_t, Cluster> by_root;
  std::map<std::size_t, std::vector<const Quake*>> members;
  for (std::size_t i = 0; i < events_.size(); ++i) {
    std::size_t root = i;
    while (events_[root].parent != root) root = events_[root].parent;
    if (events_[root].size >= limits_.notice_at) members[root].push_back(&events_[i].quake);
  }
  std::vector<Cluster> found;
  for (auto& [root, quakes] : members) {
    std::sort(quakes.begin(), quakes.end(), [](const Quake* one, const Quake* other) {
      return one->time_ms() < other->time_ms();
    });
    Cluster& made = found.emplace_back();
    made.set_id(quakes.front()->id());
    made.set_first_ms(quakes.front()->time_ms());
    made.set_last_ms(quakes.back()->time_ms());
    const auto count = static_cast<double>(quakes.size());
    for (const Quake* const one : quakes) {
      made.add_quake_ids(one->id());
      // Members are within a few hundred kilometres: relative to the first one, the plain mean is
      // right even where the longitude jumps from 180 to -180.
      const double east =
          std::remainder(one->longitude() - quakes.front()->longitude(), 360.0) / count;
      made.set_longitude(made.longitude() + east);
      made.set_latitude(made.latitude() + one->latitude() / count);
      if (one->has_magnitude() &&
          (!made.has_magnitude_max() || one->magnitude() > made.magnitude_max())) {
        made.set_magnitude_max(one->magnitude());
      }
    }
    made.set_longitude(std::remainder(made.longitude() + quakes.front()->longitude(), 360.0));
    for (const Quake* const one : quakes) {
      made.set_radius_km(std::max(
          made.radius_km(),
          distance_km({made.longitude(), made.latitude()}, {one->longitude(), one->latitude()})));
    }
  }
  return found;
}

}  // namespace demo
