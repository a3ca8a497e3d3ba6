// The workloads of `bus bench` as a program of their own, for a tree in which the command is not
// built. Same options, same output.
#include "bus/tool/bench.hpp"

#include <csignal>

#include <CLI/CLI.hpp>

namespace {

void add_options(CLI::App& to, bus::tool::bench_options& bench) {
  to.add_option("--transport", bench.transport, "inproc, shm or zmq");
  to.add_option("--wait", bench.wait, "spin, sleep or spin_then_sleep");
  to.add_option("--size", bench.size, "payload bytes, at least 8");
  to.add_option("--depth", bench.depth, "samples in flight per link");
  to.add_option("--subscribers", bench.subscribers, "of fanout");
  to.add_flag("--untouched", bench.untouched, "hand payloads over, neither written nor read");
}

}  // namespace

int main(int argc, char** argv) {
  static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
  CLI::App parser("What the public API achieves, beside what the machine can do.", "bench_bus");
  parser.require_subcommand(1);
  bus::tool::bench_options bench;
  for (const char* const workload : {"latency", "throughput", "fanout"}) {
    CLI::App* const own = parser.add_subcommand(workload);
    add_options(*own, bench);
    own->add_option("--count", bench.count, "messages per round");
    own->add_option("--rounds", bench.rounds);
    own->add_flag("--json", bench.json);
    own->add_flag("!--no-limits", bench.limits, "do not measure the machine beside");
    own->callback([&bench, workload] { bench.workload = workload; });
  }
  bus::tool::bench_peer_options peer;
  CLI::App* const child = parser.add_subcommand("bench-peer");
  child->group("");
  child->add_option("role", peer.role)->required();
  child->add_option("--directory", peer.directory)->required();
  add_options(*child, peer.bench);
  CLI11_PARSE(parser, argc, argv);
  return child->parsed() ? bus::tool::run_bench_peer(peer) : bus::tool::run_bench(bench);
}
