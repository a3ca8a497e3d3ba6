// `bus bench`: the words of the command line for bench.hpp. The hidden verb bench-peer is what it
// starts itself as.
#include "bus/link/batch.hpp"
#include "bus/tool/bench.hpp"
#include "bus/tool/verbs.hpp"

#include <memory>
#include <set>
#include <string>

#include <CLI/CLI.hpp>

namespace bus::tool {
namespace {

// What both parties must agree on.
void add_common(CLI::App& parser, bench_options& into) {
  parser.add_option("--transport", into.transport, "inproc, shm or zmq")
      ->check(CLI::IsMember(std::set<std::string>{"inproc", "shm", "zmq"}))
      ->capture_default_str();
  parser.add_option("--wait", into.wait, "spin, sleep or spin_then_sleep")
      ->check(CLI::IsMember(std::set<std::string>{"spin", "sleep", "spin_then_sleep"}))
      ->capture_default_str();
  parser
      .add_option("--loop", into.loop,
                  "How latency sleeps: in take (by semaphore), or in an event loop, woken by event "
                  "(eventfd) or signal")
      ->check(CLI::IsMember(std::set<std::string>{"take", "event", "signal"}))
      ->capture_default_str();
  parser.add_option("--size", into.size, "Payload bytes, at least 8")->capture_default_str();
  parser.add_option("--depth", into.depth, "Samples in flight per link, a power of two")
      ->capture_default_str();
  parser.add_flag("--untouched", into.untouched,
                  "Hand payloads over without writing and reading them");
}

exit_code as_exit_code(int code) { return static_cast<exit_code>(code); }

}  // namespace

verb bench_verb() {
  return {.name = "bench",
          .summary = "Measure the bus between real processes, beside what the machine can do",
          .example =
              "  bus bench latency --transport shm --size 64 --wait sleep\n"
              "  bus bench throughput --size 1024 --json\n"
              "  bus bench fanout --subscribers 4 --size 1024 --wait spin_then_sleep",
          .declare = [](CLI::App& parser) -> std::function<exit_code()> {
            auto options = std::make_shared<bench_options>();
            parser.add_option("WORKLOAD", options->workload, "latency, throughput or fanout")
                ->check(CLI::IsMember(std::set<std::string>{"latency", "throughput", "fanout"}))
                ->required();
            add_common(parser, *options);
            parser.add_option("--count", options->count, "Messages per round; 0: about a second's")
                ->capture_default_str();
            parser.add_option("--rounds", options->rounds, "Rounds; figures are their medians")
                ->check(CLI::Range(1, 1000))
                ->capture_default_str();
            parser
                .add_option("--batch", options->batch,
                            "Messages per publish call, of throughput and fanout")
                ->check(CLI::Range(1U, batch::messages_max))
                ->capture_default_str();
            parser.add_option("--subscribers", options->subscribers, "Of fanout")
                ->check(CLI::Range(1, 256))
                ->capture_default_str();
            parser.add_flag("!--no-limits", options->limits, "Leave out the machine's own limit");
            parser.add_flag("--json", options->json, "JSON, one object a line");
            return [options] { return as_exit_code(run_bench(*options)); };
          }};
}

verb bench_peer_verb() {
  return {.name = "bench-peer",
          .summary = "One party of `bus bench`, started by it",
          .example = "  bus bench latency",
          .declare = [](CLI::App& parser) -> std::function<exit_code()> {
            parser.group("");  // not in --help
            auto options = std::make_shared<bench_peer_options>();
            parser.add_option("ROLE", options->role, "echo or drain")->required();
            parser.add_option("--directory", options->directory, "The bus directory")->required();
            add_common(parser, options->bench);
            return [options] { return as_exit_code(run_bench_peer(*options)); };
          }};
}

}  // namespace bus::tool
