// What very many topics of one node cost: time and memory to advertise them, to match them with one
// subscriber in another process, and to retire them.
//
//   bench_topics                        10,000, 100,000 and 1,000,000 topics, matched by one `**`
//   bench_topics --patterns 1000        by a thousand exact patterns
//   bench_topics --topics 50000 --json
//
// A topic is one as people name them: "plant/l12/m345/sensor678". Memory is the process's own
// (anonymous pages, so without shared arenas) and its ledger's file.
#include "bus/bus.hpp"
#include "bus/node/ledger_file.hpp"
#include "tests/fault/processes.hpp"
#include "tests/scratch.hpp"
#include "transports/shm/shm.hpp"

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace {

using namespace std::chrono_literals;
constexpr auto patience = 600s;

struct options {
  std::vector<std::size_t> topics = {10'000, 100'000, 1'000'000};
  std::size_t patterns = 0;
  bool json = false;
};

std::string topic(std::size_t i) {
  return fmt::format("plant/l{}/m{}/sensor{}", i % 100, i / 100 % 1000, i);
}

std::uint64_t anonymous_kib() {
  std::ifstream lines("/proc/self/status");
  std::string word;
  while (lines >> word) {
    std::uint64_t kib = 0;
    if (word == "RssAnon:" && lines >> kib) return kib;
  }
  return 0;
}

double seconds_since(std::int64_t then_ns) {
  return static_cast<double>(bus::steady_ns() - then_ns) / 1e9;
}

bus::node_options node_options(const std::string& name, const std::string& directory) {
  bus::node_options made{.name = name, .transports = {transports::shm()}, .directory = directory};
  made.waiting = bus::wait_policy::sleep;
  return made;
}

// Subscribes, says so, and says when all are matched, and how much memory that took.
void hear(fault::channel& parent, const std::string& directory, std::size_t topics,
          std::size_t patterns) {
  bus::node node(node_options("hearer", directory));
  std::vector<bus::subscriber<bus::raw>> heard;
  const std::uint64_t before_kib = anonymous_kib();
  if (patterns == 0) heard.push_back(node.subscribe<bus::raw>("**"));
  for (std::size_t i = 0; i < patterns; ++i) {
    heard.push_back(node.subscribe<bus::raw>(topic(i * (topics / patterns))));
  }
  parent.say(0);
  for (auto& one : heard) {
    contract::must(one.wait_matched(patterns == 0 ? topics : 1, patience), "not matched in time");
  }
  parent.say(static_cast<std::uint64_t>(bus::steady_ns()));
  parent.say(anonymous_kib() - before_kib);
  while (!parent.has_news()) node.run_for(20ms);
}

nlohmann::ordered_json measure(std::size_t topics, std::size_t patterns) {
  const tests::scratch_directory scratch;
  fault::child hearer(
      [&](fault::channel& parent) { hear(parent, scratch.path(), topics, patterns); });
  static_cast<void>(hearer.pipe().hear(60s));
  nlohmann::ordered_json line = {{"topics", topics}, {"patterns", patterns}};
  {
    bus::node node(node_options("talker", scratch.path()));
    const std::uint64_t before_kib = anonymous_kib();
    std::vector<bus::publisher<bus::raw>> sources;
    sources.reserve(topics);
    const std::int64_t began_ns = bus::steady_ns();
    for (std::size_t i = 0; i < topics; ++i) sources.push_back(node.advertise<bus::raw>(topic(i)));
    line["advertised_s"] = seconds_since(began_ns);
    while (!hearer.pipe().has_news()) node.run_for(1ms);
    const auto matched_ns = static_cast<std::int64_t>(hearer.pipe().hear(60s));
    line["matched_s"] = static_cast<double>(matched_ns - began_ns) / 1e9;
    line["talker_bytes_per_topic"] = (anonymous_kib() - before_kib) * 1024 / topics;
    line["hearer_bytes_per_topic"] = hearer.pipe().hear(60s) * 1024 / topics;
    // The file of topics as it will be when the burst is over.
    node.run_for(6s);
    const std::string own = scratch.path() + '/' + bus::to_hex(node.id().value);
    line["file_bytes_per_topic"] = std::filesystem::file_size(own + ".topics") / topics;
    line["ledger_bytes_per_topic"] = std::filesystem::file_size(own + ".ledger") / topics;
    const std::int64_t retiring_ns = bus::steady_ns();
    sources.clear();
    line["retired_s"] = seconds_since(retiring_ns);
  }
  hearer.pipe().say(0);
  contract::must(hearer.wait() == 0, "the subscriber failed");
  return line;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App parser("Time and memory of very many topics in one node.");
  options wanted;
  parser.add_option("--topics", wanted.topics, "How many; may be repeated");
  parser.add_option("--patterns", wanted.patterns, "Exact patterns; 0: one `**`");
  parser.add_flag("--json", wanted.json, "JSON, one object a line");
  CLI11_PARSE(parser, argc, argv);
  if (!wanted.json) {
    fmt::print(
        "| topics | patterns | advertised s | matched s | retired s | talker B/topic | "
        "hearer B/topic | file B/topic | ledger B/topic "
        "|\n|---|---|---|---|---|---|---|---|---|\n");
  }
  for (const std::size_t topics : wanted.topics) {
    const auto line = measure(topics, wanted.patterns);
    if (wanted.json) {
      fmt::print("{}\n", line.dump());
    } else {
      fmt::print("| {} | {} | {:.2f} | {:.2f} | {:.2f} | {} | {} | {} | {} |\n", topics,
                 wanted.patterns == 0 ? "`**`" : std::to_string(wanted.patterns),
                 line["advertised_s"].get<double>(), line["matched_s"].get<double>(),
                 line["retired_s"].get<double>(), line["talker_bytes_per_topic"].dump(),
                 line["hearer_bytes_per_topic"].dump(), line["file_bytes_per_topic"].dump(),
                 line["ledger_bytes_per_topic"].dump());
    }
    std::fflush(stdout);
  }
  return 0;
}
