// What the detector thinks: which quakes are strong, which warn of a tsunami, and which belong
// together. Pure: the same reports in the same order raise the same alerts, so that a restarted
// detector finds out from its journal what it had raised.
//
// A cluster is what hangs together by steps of at most `near_km` and `near_ms`. Reports may come in
// any order: a late one can join two clusters into one. Blasts and deleted reports are no part.
#pragma once

#include "schemas/demo/quake.pb.h"

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace demo {

class watch {
 public:
  struct limits {
    double strong = 5.0;  // magnitude: a warning
    double great = 6.0;   // magnitude: danger
    double near_km = 25.0;
    std::int64_t near_ms = 12LL * 3600 * 1000;
    std::size_t notice_at = 10;   // quakes in a cluster: a notice
    std::size_t warning_at = 50;  // a warning
  };
  watch() : watch(limits{}) {}
  explicit watch(limits chosen) : limits_(chosen) {}

  // Takes a report and returns what it gives cause to say, which is said once.
  [[nodiscard]] std::vector<Alert> see(const Quake& quake);
  // Those with at least limits::notice_at quakes.
  [[nodiscard]] std::vector<Cluster> clusters() const;

 private:
  struct event {
    Quake quake;
    std::size_t parent;  // union-find: itself at a cluster's root
    std::size_t size = 1;
    int said = 0;     // of the cluster, at its root: the level
    int alarmed = 0;  // of the event: the level
  };
  [[nodiscard]] std::size_t root_of(std::size_t at);
  void alarm(event& one, std::vector<Alert>& into) const;
  void gather(std::size_t at, std::vector<Alert>& into);
  [[nodiscard]] bool are_near(const Quake& one, const Quake& other) const;

  limits limits_;
  std::vector<event> events_;
  std::map<std::string, std::size_t> by_id_;
};

// Over the surface of a sphere of the Earth's mean radius.
struct position {
  double longitude;
  double latitude;
};
[[nodiscard]] double distance_km(position one, position other);

}  // namespace demo
