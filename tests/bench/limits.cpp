// What this machine can do at all: each limit of bus/tool/limits.hpp, one JSON object a line, with
// the keys that `bus bench --json` has.
//
//   bench_limits [WORKLOAD ...]     cache-line, semaphore, signalfd, tcp, ring or stream; none: all
#include "bus/tool/limits.hpp"

#include "bus/tool/figures.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace {

using namespace bus::tool;

constexpr std::size_t awake_trips = 200'000;
constexpr std::size_t asleep_trips = 5'000;

bool print(const std::string& what, std::size_t size, std::vector<std::int64_t> trips) {
  figures all;
  all.add_trips(std::move(trips));
  fmt::print("{}\n",
             line_of({what, "limit", size, what == "cache-line" ? "spin" : "sleep"}, all).dump());
  return all.count > 0;
}

bool print(const std::string& what, std::size_t size, std::size_t count, double per_second) {
  figures all;
  all.per_second.push_back(per_second);
  all.count = count;
  fmt::print("{}\n", line_of({what, "limit", size, what == "ring" ? "spin" : "sleep"}, all).dump());
  return per_second > 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> chosen(argv + 1, argv + argc);
  const auto wanted = [&](const char* what) {
    return chosen.empty() || std::find(chosen.begin(), chosen.end(), what) != chosen.end();
  };
  bool all = true;
  if (wanted("cache-line")) all &= print("cache-line", 8, cache_line_trips(awake_trips));
  if (wanted("semaphore")) all &= print("semaphore", 0, semaphore_trips(asleep_trips));
  if (wanted("signalfd")) all &= print("signalfd", 0, signalfd_trips(asleep_trips));
  if (wanted("tcp")) all &= print("tcp", 64, tcp_trips(asleep_trips, 64));
  for (const std::size_t size : {std::size_t{64}, std::size_t{1024}}) {
    const std::size_t count = size == 64 ? 4'000'000 : 2'000'000;
    if (wanted("ring")) all &= print("ring", size, count, ring_rate(count, size));
    if (wanted("stream")) all &= print("stream", size, count / 10, tcp_rate(count / 10, size));
  }
  return all ? 0 : 1;
}
