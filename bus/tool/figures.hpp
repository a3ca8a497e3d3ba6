// What a benchmark measured, and the one JSON line in which every benchmark says it: `bus bench`,
// the machine's limits and the peers of tests/bench. A figure that was not measured is null.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace bus::tool {

[[nodiscard]] inline double quantile_us(const std::vector<std::int64_t>& sorted_ns, double at) {
  if (sorted_ns.empty()) return 0;
  const auto index = static_cast<std::size_t>(at * static_cast<double>(sorted_ns.size() - 1));
  return static_cast<double>(sorted_ns[index]) / 1000.0;
}

[[nodiscard]] inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// One entry per round in each list.
struct figures {
  std::vector<double> p50_us;
  std::vector<double> p99_us;
  std::vector<double> p999_us;
  std::vector<double> per_second;
  std::vector<double> limit;          // us for a trip, messages per second for a rate
  std::vector<double> limit_p999_us;  // of trips only
  std::uint64_t count = 0;
  std::uint64_t lost = 0;

  void add_trips(std::vector<std::int64_t> trips_ns) {
    if (trips_ns.empty()) return;
    std::sort(trips_ns.begin(), trips_ns.end());
    std::int64_t sum_ns = 0;
    for (const std::int64_t trip : trips_ns) sum_ns += trip;
    p50_us.push_back(quantile_us(trips_ns, 0.5));
    p99_us.push_back(quantile_us(trips_ns, 0.99));
    p999_us.push_back(quantile_us(trips_ns, 0.999));
    const auto trips = static_cast<double>(trips_ns.size());
    per_second.push_back(trips * 1e9 / static_cast<double>(std::max<std::int64_t>(sum_ns, 1)));
    count += trips_ns.size();
  }

  void add_rate(std::uint64_t messages, std::uint64_t first_ns, std::uint64_t last_ns) {
    const std::uint64_t took_ns = last_ns > first_ns ? last_ns - first_ns : 1;
    per_second.push_back(static_cast<double>(messages) * 1e9 / static_cast<double>(took_ns));
    count += messages;
  }
};

// What was run.
struct run_name {
  std::string workload;
  std::string transport;
  std::uint64_t size = 0;
  std::string wait;
};

[[nodiscard]] inline nlohmann::ordered_json line_of(const run_name& what, const figures& all) {
  const auto middle = [](const std::vector<double>& values) -> nlohmann::ordered_json {
    if (values.empty()) return nullptr;
    return median(values);
  };
  nlohmann::ordered_json line = {{"workload", what.workload},
                                 {"transport", what.transport},
                                 {"size", what.size},
                                 {"wait", what.wait},
                                 {"count", all.count},
                                 {"lost", all.lost},
                                 {"p50_us", middle(all.p50_us)},
                                 {"p99_us", middle(all.p99_us)},
                                 {"p999_us", middle(all.p999_us)},
                                 {"per_second", middle(all.per_second)}};
  if (!all.per_second.empty()) {
    const auto [low, high] = std::minmax_element(all.per_second.begin(), all.per_second.end());
    line["per_second_min"] = *low;
    line["per_second_max"] = *high;
  }
  line["rounds"] = all.per_second.size();
  return line;
}

}  // namespace bus::tool
