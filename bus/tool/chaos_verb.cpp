// `bus chaos`: the words of the command line for chaos.hpp. The hidden verb chaos-peer is what it
// starts itself as.
#include "bus/tool/chaos.hpp"
#include "bus/tool/chaos_party.hpp"
#include "bus/tool/verbs.hpp"

#include <memory>
#include <random>

#include <CLI/CLI.hpp>

namespace bus::tool {
namespace {

// What the director and its parties must agree on.
void add_shared(CLI::App& parser, chaos_options& into) {
  parser.add_option("--seed", into.seed, "What happens; drawn and printed if it is not given");
  parser.add_option("--transport", into.transport, "shm or zmq")->capture_default_str();
  parser.add_option("--publishers", into.publishers, "Processes that publish")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  parser.add_option("--subscribers", into.subscribers, "Processes that subscribe")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
}

}  // namespace

verb chaos_verb() {
  return {.name = "chaos",
          .summary = "Kill, stop and restart publishers and subscribers; do the accounts balance?",
          .example =
              "  bus chaos --seconds 60\n"
              "  bus chaos --seconds 10 --seed 42 --publishers 2 --subscribers 4 --json",
          .declare = [](CLI::App& parser) -> std::function<exit_code()> {
            auto options = std::make_shared<chaos_options>();
            options->seed = std::random_device{}();
            parser.add_option("--seconds", options->seconds, "How long, to the last fault")
                ->check(CLI::Range(1.0, 1e6))
                ->capture_default_str();
            add_shared(parser, *options);
            parser.add_flag("--json", options->json, "JSON, one object a line");
            return [options] { return static_cast<exit_code>(run_chaos(*options)); };
          }};
}

verb chaos_peer_verb() {
  return {.name = "chaos-peer",
          .summary = "One party of `bus chaos`, started by it",
          .example = "  bus chaos",
          .declare = [](CLI::App& parser) -> std::function<exit_code()> {
            parser.group("");  // not in --help
            auto options = std::make_shared<chaos_party_options>();
            add_shared(parser, options->chaos);
            parser.add_option("--folder", options->folder, "Where the records are")->required();
            parser.add_option("--seat", options->seat, "Which party")->required();
            parser.add_option("--life", options->life, "Which start of all")->required();
            parser.add_option("--lives", options->lives, "Starts in all")->required();
            parser.add_option("--character", options->character, "How it behaves")->required();
            return [options] { return static_cast<exit_code>(run_chaos_party(*options)); };
          }};
}

}  // namespace bus::tool
