#include "examples/quakes/board.hpp"

#include "examples/quakes/desk.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>

namespace demo {
namespace {

const TopicFigures* figures_of(const Status& from, const std::string& topic) {
  for (const TopicFigures& one : from.topics()) {
    if (one.topic() == topic) return &one;
  }
  return nullptr;
}

std::string latency_columns(const TopicFigures* figures) {
  if (!figures) return fmt::format("{:>9} {:>9}", "-", "-");
  return fmt::format("{:>9.0f} {:>9.0f}", figures->p50_us(), figures->p99_us());
}

// How quakes come to somebody: "shm".
std::string scheme_to(const std::vector<link_line>& links, const std::string& to) {
  std::set<std::string> schemes;
  for (const link_line& line : links) {
    if (line.from == "replay" && line.to == to && !line.scheme.empty()) schemes.insert(line.scheme);
  }
  std::string text;
  for (const std::string& one : schemes) text += (text.empty() ? "" : "+") + one;
  return text.empty() ? "no link" : text;
}

void name_some(lines& into, const std::string& what, const std::vector<std::string>& keys) {
  constexpr std::size_t some = 5;
  if (keys.empty()) return;
  std::string text = fmt::format("    {} {}:", keys.size(), what);
  for (std::size_t i = 0; i < std::min(some, keys.size()); ++i) text += " " + keys[i];
  if (keys.size() > some) text += " ...";
  into.push_back(text);
}

}  // namespace

std::string with_commas(std::uint64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (std::size_t at = 0; at < digits.size(); ++at) {
    if (at > 0 && (digits.size() - at) % 3 == 0) text += ',';
    text += digits[at];
  }
  return text;
}

const Status& latest(const reports& heard, const std::string& name) {
  const auto at = heard.find(name);
  if (at == heard.end() || at->second.empty()) return Status::default_instance();
  return at->second.rbegin()->second;
}

std::uint64_t published(const reports& heard) {
  std::uint64_t sum = 0;
  for (const auto& [name, incarnations] : heard) sum += latest(heard, name).position();
  return sum;
}

std::string losses(const reports& heard, const std::string& name) {
  std::map<std::string, std::uint64_t> sums;
  if (const auto at = heard.find(name); at != heard.end()) {
    for (const auto& [incarnation, status] : at->second) {
      for (const Loss& one : status.losses()) sums[one.cause()] += one.count();
    }
  }
  std::string text;
  for (const auto& [cause, count] : sums) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", cause, count);
  }
  return text.empty() ? "none" : text;
}

lines show_feed(const feed& input) {
  const findings& found = input.found;
  lines out;
  out.push_back(fmt::format(
      "{} features of {} networks; {} neighbours out of the order of time, {} revisions, {} "
      "repeats, {} negative magnitudes",
      with_commas(input.quakes.size()), input.networks().size(), with_commas(found.out_of_order),
      found.revisions, found.repeats, found.negative_magnitudes));
  std::string nulls;
  for (const auto& [field, count] : found.nulls) {
    nulls += fmt::format("{}{} {}", nulls.empty() ? "" : ", ", field, with_commas(count));
  }
  out.push_back("null fields: " + (nulls.empty() ? "none" : nulls));
  return out;
}

std::string show_progress(const reports& heard, std::size_t features, double seconds) {
  const auto known = [&](const char* name) {
    return with_commas(distinct(latest(heard, name).quakes()));
  };
  return fmt::format(
      "{:6.1f} s  published {} of {}   archive {}   detector {}   observer {}   alerts {}   "
      "clusters {}",
      seconds, with_commas(published(heard)), with_commas(features), known("archive"),
      known("detector"), known("observer"), distinct(latest(heard, "archive").alerts()),
      latest(heard, "detector").clusters());
}

lines show_topics(const reports& heard, const std::vector<link_line>& links) {
  const Status& near = latest(heard, "archive");
  const Status& far = latest(heard, "observer");
  std::set<std::string> topics;
  for (const Status* const one : {&near, &far}) {
    for (const TopicFigures& figures : one->topics()) topics.insert(figures.topic());
  }
  lines out;
  out.push_back(fmt::format("{:<22} {:>6} {:>8}   {:^19}   {:^19}", "", "", "",
                            "archive, " + scheme_to(links, "archive"),
                            "observer, " + scheme_to(links, "observer")));
  out.push_back(fmt::format("{:<22} {:>6} {:>8}   {:>9} {:>9}   {:>9} {:>9}", "topic", "count",
                            "per s", "p50 us", "p99 us", "p50 us", "p99 us"));
  for (const std::string& topic : topics) {
    const TopicFigures* const here = figures_of(near, topic);
    const TopicFigures* const there = figures_of(far, topic);
    const TopicFigures* const any = here ? here : there;
    out.push_back(fmt::format("{:<22} {:>6} {:>8.1f}   {}   {}", topic, any->count(), any->rate(),
                              latency_columns(here), latency_columns(there)));
  }
  return out;
}

lines show_replays(const reports& heard) {
  constexpr std::size_t per_line = 6;
  lines out;
  std::size_t at = 0;
  for (const auto& [name, incarnations] : heard) {
    if (!name.starts_with("replay-")) continue;
    const Status& status = latest(heard, name);
    if (at++ % per_line == 0) out.emplace_back(out.empty() ? "replays  " : "         ");
    out.back() += fmt::format(
        "{:<16}", fmt::format("{} {}/{}", name.substr(7), status.position(), status.features()));
  }
  return out;
}

lines show_links_briefly(const std::vector<link_line>& links) {
  lines out;
  for (const link_line& line : links) {
    const bool is_source = line.from == "replay" || line.from == "detector";
    if (!is_source || line.to == "orchestra" || line.from == line.to) {
      continue;
    }
    if (line.scheme.empty()) continue;
    out.push_back(fmt::format("{:<8} -> {:<8} {:>2} x {:<5} {}", line.from, line.to, line.count,
                              line.scheme, line.briefly));
  }
  return out;
}

lines show_links(const std::vector<link_line>& links) {
  lines out;
  // A process that was killed far away is looked for during some seconds.
  std::map<std::string, std::size_t> closed;
  for (const link_line& line : links) {
    if (line.scheme.empty()) {
      closed[line.to] += line.count;
      continue;
    }
    out.push_back(
        fmt::format("{:<12} -> {:<10} {:>2} x {}", line.from, line.to, line.count, line.scheme));
    for (const std::string& why : line.why) out.push_back("      " + why);
    if (!line.proof.empty()) out.push_back("      there, for one: " + line.proof);
  }
  for (const auto& [to, count] : closed) {
    out.push_back(
        fmt::format("to {}: {} links to a life that is over, or has only begun", to, count));
  }
  return out;
}

lines show_accounts(const std::vector<account>& accounts, const reports& heard, const feed& input,
                    std::size_t alerts) {
  lines out;
  out.push_back(fmt::format("{:<10} {:>9} {:>8} {:>10} {:>8} {:>6} {:>8} {:>6} {:>9} {:>6}  {}", "",
                            "features", "= live", "+recovered", "missing", "twice", "revised",
                            "stale", "alerts", "lives", "lost on the bus, by cause"));
  for (const account& one : accounts) {
    const auto at = heard.find(one.name);
    const std::size_t lives = at == heard.end() ? 0 : at->second.rbegin()->first;
    const std::string of_alerts =
        one.name == "detector" ? "raises" : fmt::format("{}/{}", distinct(one.alerts), alerts);
    out.push_back(fmt::format("{:<10} {:>9} {:>8} {:>10} {:>8} {:>6} {:>8} {:>6} {:>9} {:>6}  {}",
                              one.name, with_commas(distinct(one.quakes) + input.found.repeats),
                              with_commas(one.quakes.live()), with_commas(one.quakes.recovered()),
                              one.missing.size(), one.quakes.twice(), one.quakes.revised(),
                              one.quakes.stale(), of_alerts, lives, losses(heard, one.name)));
    name_some(out, "are missing", one.missing);
    name_some(out, "are not of the feed", one.foreign);
    name_some(out, "alerts are missing", one.alerts_missing);
    name_some(out, "alerts were never raised", one.alerts_foreign);
    const Status& books = latest(heard, one.name);
    out.push_back(fmt::format(
        "           the bus's books of its last life: {} published to it = {} delivered + lost; {}",
        with_commas(books.expected()), with_commas(books.delivered()),
        books.balanced() ? "balanced" : "NOT BALANCED"));
  }
  return out;
}

}  // namespace demo
