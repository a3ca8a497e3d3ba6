// `bus hz` and `bus bw`: how often, and how much. Real subscribers; what they could not keep up
// with is in the last column and not hidden in the rate.
#include "bus/tool/console.hpp"
#include "bus/tool/session.hpp"
#include "bus/tool/verbs.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace bus::tool {
namespace {

using json = nlohmann::ordered_json;

struct rate_options : common_options {
  std::string pattern;
  double window_s = 1;
  std::uint64_t count = 0;
  double timeout_s = -1;
};

// What one topic did in one window. Intervals are between arrivals, also of the window before.
struct topic_tally {
  std::uint64_t samples = 0;
  std::uint64_t bytes = 0;
  std::uint64_t bytes_least = UINT64_MAX;
  std::uint64_t bytes_most = 0;
  std::uint64_t intervals = 0;
  double interval_sum_ns = 0;
  double interval_squares = 0;
  double interval_least_ns = 0;
  double interval_most_ns = 0;
  std::int64_t last_ns = 0;

  void add(std::uint64_t size, std::int64_t now_ns) {
    ++samples;
    bytes += size;
    bytes_least = std::min(bytes_least, size);
    bytes_most = std::max(bytes_most, size);
    if (last_ns != 0) {
      const auto interval = static_cast<double>(now_ns - last_ns);
      interval_least_ns = intervals == 0 ? interval : std::min(interval_least_ns, interval);
      interval_most_ns = std::max(interval_most_ns, interval);
      interval_sum_ns += interval;
      interval_squares += interval * interval;
      ++intervals;
    }
    last_ns = now_ns;
  }
  [[nodiscard]] double mean_ns() const {
    return intervals == 0 ? 0 : interval_sum_ns / static_cast<double>(intervals);
  }
  [[nodiscard]] double deviation_ns() const {
    if (intervals == 0) return 0;
    const double mean = mean_ns();
    return std::sqrt(
        std::max(0.0, interval_squares / static_cast<double>(intervals) - mean * mean));
  }
  void begin_window() {
    const std::int64_t last = last_ns;
    *this = topic_tally{};
    last_ns = last;
  }
};

std::string hz_line(const topic_tally& one, double per_second) {
  return fmt::format("{:.1f} Hz  interval mean {:.3f} ms, min {:.3f}, max {:.3f}, deviation {:.3f}",
                     per_second, one.mean_ns() / 1e6, one.interval_least_ns / 1e6,
                     one.interval_most_ns / 1e6, one.deviation_ns() / 1e6);
}

std::string bw_line(const topic_tally& one, double span_s) {
  const double mean =
      one.samples == 0 ? 0 : static_cast<double>(one.bytes) / static_cast<double>(one.samples);
  return fmt::format("{}/s  messages {}, size mean {}, min {}, max {}",
                     bytes_text(static_cast<double>(one.bytes) / span_s), one.samples,
                     bytes_text(mean),
                     bytes_text(one.samples == 0 ? 0 : static_cast<double>(one.bytes_least)),
                     bytes_text(static_cast<double>(one.bytes_most)));
}

json tally_json(const std::string& topic, const topic_tally& one, double span_s) {
  const auto samples = static_cast<double>(one.samples);
  return {{"topic", topic},
          {"window_s", span_s},
          {"messages", one.samples},
          {"per_second", samples / span_s},
          {"bytes_per_second", static_cast<double>(one.bytes) / span_s},
          {"bytes_mean", one.samples == 0 ? 0 : static_cast<double>(one.bytes) / samples},
          {"interval_mean_ns", one.mean_ns()},
          {"interval_min_ns", one.interval_least_ns},
          {"interval_max_ns", one.interval_most_ns},
          {"interval_deviation_ns", one.deviation_ns()}};
}

exit_code measure(const rate_options& options, bool bandwidth) {
  if (!(options.window_s > 0)) {
    throw failure(exit_code::usage, "--window wants a number of seconds above 0");
  }
  session joined(bandwidth ? "bus bw" : "bus hz", options);
  console out;
  std::map<std::string, topic_tally> tallies;
  const auto listening =
      joined.node().subscribe<raw>(options.pattern, [&](const received<raw>& message) {
        const auto from = joined.inside().provenance_of(message.head());
        if (from.topic) tallies[*from.topic].add(message.bytes().size(), steady_ns());
      });
  const std::int64_t begun_ns = steady_ns();
  const auto left = [&] {
    if (options.timeout_s < 0) return options.window_s;
    const double gone_s = static_cast<double>(steady_ns() - begun_ns) / 1e9;
    return std::min(options.window_s, options.timeout_s - gone_s);
  };
  std::uint64_t windows = 0;
  std::uint64_t lost_before = 0;
  while (options.count == 0 || windows < options.count) {
    const double window_s = left();
    if (window_s <= 0) break;
    const std::int64_t from_ns = steady_ns();
    const auto how = joined.run(seconds(window_s), [&] { return out.broken(); });
    if (how != session::ending::timeout) return exit_code::done;
    const double span_s = static_cast<double>(steady_ns() - from_ns) / 1e9;
    const std::uint64_t lost = listening.accounts().lost_in_all();
    // Silence before the first message is no window.
    windows += tallies.empty() ? 0 : 1;
    for (auto& [topic, one] : tallies) {
      if (options.json) {
        json line = tally_json(topic, one, span_s);
        line["lost"] = lost - lost_before;
        out.line(line.dump(-1, ' ', false, json::error_handler_t::replace));
      } else {
        const std::string told = bandwidth
                                     ? bw_line(one, span_s)
                                     : hz_line(one, static_cast<double>(one.samples) / span_s);
        out.line(out.bold(clean(topic)) + "  " + told +
                 (lost > lost_before ? fmt::format(", lost {}", lost - lost_before) : ""));
      }
      one.begin_window();
    }
    lost_before = lost;
    out.flush();
  }
  if (!tallies.empty()) return exit_code::done;
  throw failure(exit_code::timeout,
                fmt::format("no message of {} came in {} s; try: bus why '{}'", options.pattern,
                            options.timeout_s, options.pattern));
}

verb rate_verb(std::string name, std::string summary, std::string example, bool bandwidth) {
  return {
      .name = std::move(name),
      .summary = std::move(summary),
      .example = std::move(example),
      .declare = [bandwidth](CLI::App& parser) {
        const auto options = std::make_shared<rate_options>();
        parser.add_option("pattern", options->pattern, "A topic, or a pattern")->required();
        parser.add_option("--window", options->window_s, "Seconds per line")->capture_default_str();
        parser.add_option("--count", options->count, "Ends after so many windows");
        parser.add_option("--timeout", options->timeout_s,
                          "Ends after so many seconds; exit code 3 if nothing came");
        add_json(parser, *options);
        add_directory(parser, *options);
        return [options, bandwidth] { return measure(*options, bandwidth); };
      }};
}

}  // namespace

verb hz_verb() {
  return rate_verb("hz", "How many messages a second, and how evenly",
                   "  bus hz quakes/ak/ml --window 5", false);
}

verb bw_verb() {
  return rate_verb("bw", "How many bytes a second", "  bus bw 'camera/**' --count 10 --json", true);
}

}  // namespace bus::tool
