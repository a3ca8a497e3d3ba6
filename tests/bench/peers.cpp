// The workloads of `bus bench` on other libraries, with the same options and the same JSON line:
// what a user would have without Omnibus.
//
//   bench_peers latency|throughput|fanout --peer zmq-ipc|... [--size N] [--count N] ...
//
// The peers shall look as good as they can. Each uses its leanest pattern, and writes messages in
// the library's own memory where it lets us, so that only the library copies. Queues are as long as
// makes them faster, and nothing is dropped on the way. How each does this: its peer_*.cpp.
//
// The other parties are children, forked before any library has a context or a thread. The parent
// binds, and tells them where through a pipe; they report through another. Every wait has an end.
//
// The exit code is 3 if the peer cannot be measured here since something is not installed.
#include "bus/base/clock.hpp"
#include "bus/base/fd.hpp"
#include "bus/tool/child.hpp"
#include "bus/tool/figures.hpp"
#include "bus/tool/private_folder.hpp"
#include "bus/tool/step_aside.hpp"
#include "tests/bench/peer.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace peers {
namespace {

using namespace std::chrono_literals;
using bus::deadline;
using bus::steady_ns;

constexpr std::chrono::nanoseconds a_round = 1s;
constexpr std::chrono::nanoseconds warm_up = 100ms;
constexpr std::uint64_t trips_max = 1'000'000;

std::vector<library> all_libraries() { return {zmq(), nng(), redis(), nats(), cyclone()}; }

std::vector<std::string> all_names() {
  std::vector<std::string> names;
  for (const library& one : all_libraries()) {
    names.insert(names.end(), one.names.begin(), one.names.end());
  }
  return names;
}

// Requires: one of all_names(). Throws not_installed.
library library_of(const std::string& name) {
  for (const library& one : all_libraries()) {
    if (std::find(one.names.begin(), one.names.end(), name) == one.names.end()) continue;
    if (one.make != nullptr) return one;
    throw not_installed("not in this build: run 'apt-get install " + one.packages +
                        "' as root, and build again");
  }
  fail("no such peer");
}

// --- the other processes

struct report {
  std::uint64_t seen;
  std::uint64_t first_ns;
  std::uint64_t last_ns;
};

// Reads one whole T within the usual patience.
template <class T>
bool read_within(const bus::fd& from, T& into) {
  pollfd ready{.fd = from.get(), .events = POLLIN, .revents = 0};
  return ::poll(&ready, 1, patience_ms) == 1 &&
         ::read(from.get(), &into, sizeof into) == static_cast<ssize_t>(sizeof into);
}

template <class T>
void write_whole(const bus::fd& to, const T& value) {
  if (::write(to.get(), &value, sizeof value) != static_cast<ssize_t>(sizeof value)) fail("pipe");
}

struct pipe_pair {
  pipe_pair() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail("no descriptors left");
    out = bus::fd(ends[0]);
    in = bus::fd(ends[1]);
  }
  bus::fd out;
  bus::fd in;
};

using address_text = std::array<char, 256>;

class child {
 public:
  child(const library& over, const settings& run) {
    pid_ = ::fork();
    if (pid_ < 0) fail("cannot fork: no room for another process");
    if (pid_ > 0) return;
    if (!life_.hold()) ::_exit(1);
    bus::tool::step_aside();
    int code = 1;
    try {
      live(over, run);
      code = 0;
    } catch (const std::exception& trouble) {
      fmt::print(stderr, "bench_peers: child: {}\n", trouble.what());
    }
    ::_exit(code);
  }
  ~child() {
    bus::tool::reap(pid_, 3s);  // the last word ends it
  }
  child(const child&) = delete;
  child& operator=(const child&) = delete;

  void tell(const std::string& address) {
    address_text text{};
    address.copy(text.data(), text.size() - 1);
    write_whole(down_.in, text);
  }
  [[nodiscard]] std::optional<report> hear() {
    report told{};
    if (!read_within(up_.out, told)) return std::nullopt;
    return told;
  }

 private:
  void live(const library& over, const settings& run) {
    address_text address{};
    if (!read_within(down_.out, address)) fail("no address came");
    const bool echoes = run.workload == "latency";
    const auto way = over.make(echoes ? part::pair : part::sink, run);
    way->connect(address.data());
    report seen{};
    while (const auto word = way->receive()) {
      if (*word == all_ends) return;
      if (echoes) {
        if (!way->send(*word)) return;
      } else if (*word == round_ends) {
        seen.last_ns = static_cast<std::uint64_t>(steady_ns());
        write_whole(up_.in, std::exchange(seen, {}));
      } else if (seen.seen++ == 0) {
        seen.first_ns = static_cast<std::uint64_t>(steady_ns());
      }
    }
    fail("nothing came for a long time");
  }

  pipe_pair down_;
  pipe_pair up_;
  bus::tool::lifeline life_;
  pid_t pid_ = -1;
};

// --- the workloads

void measure_trips(party& way, const settings& run, bus::tool::figures& all) {
  std::uint64_t number = 0;
  const auto trip = [&] {
    if (!way.send(++number) || way.receive() != number) fail("a message was not answered");
  };
  const std::uint64_t count = run.count != 0 ? run.count : trips_max;
  std::vector<std::int64_t> trips(count);
  for (std::uint64_t round = 0; round < run.rounds; ++round) {
    for (const auto until = deadline::after(warm_up); !until.passed();) trip();
    const auto until = deadline::after(run.count != 0 ? std::chrono::hours(1) : a_round);
    std::size_t done = 0;
    while (done < count) {
      const std::int64_t start = steady_ns();
      trip();
      const std::int64_t end = steady_ns();
      trips[done++] = end - start;
      if (end >= until.at_ns()) break;
    }
    all.add_trips({trips.begin(), trips.begin() + static_cast<std::ptrdiff_t>(done)});
  }
}

void measure_rate(party& way, std::vector<std::unique_ptr<child>>& others, const settings& run,
                  bus::tool::figures& all) {
  // Round 0 warms up and is not counted.
  for (std::uint64_t round = 0; round <= run.rounds; ++round) {
    const auto until = deadline::after(round == 0       ? warm_up
                                       : run.count != 0 ? std::chrono::hours(1)
                                                        : a_round);
    const std::uint64_t count = run.count != 0 ? run.count : UINT64_MAX - 1;
    std::uint64_t sent = 0;
    while (sent < count) {
      if (!way.send(++sent)) fail("no room for the next message");
      if (sent % 64 == 0 && until.passed()) break;
    }
    if (!way.send(round_ends)) fail("no room for the next message");
    report sum{.seen = 0, .first_ns = UINT64_MAX, .last_ns = 0};
    for (const auto& other : others) {
      const auto told = other->hear();
      if (!told) fail("a subscriber did not report");
      sum.seen += told->seen;
      sum.first_ns = std::min(sum.first_ns, told->first_ns);
      sum.last_ns = std::max(sum.last_ns, told->last_ns);
    }
    if (round == 0) continue;
    all.add_rate(sum.seen, sum.first_ns, sum.last_ns);
    all.lost += sent * others.size() - sum.seen;
  }
}

void print(const settings& run, const bus::tool::figures& all) {
  auto line = bus::tool::line_of({run.workload, run.peer, run.size, run.wait}, all);
  line["untouched"] = run.untouched;
  if (run.workload == "fanout") line["subscribers"] = run.subscribers;
  if (run.json) {
    fmt::print("{}\n", line.dump());
  } else if (run.workload == "latency") {
    fmt::print("latency over {}, {} B, {}: p50 {:.2f} us, p99 {:.2f} us\n", run.peer, run.size,
               run.wait, bus::tool::median(all.p50_us), bus::tool::median(all.p99_us));
  } else {
    fmt::print("{} over {}, {} B, {}: {:.3f} M messages/s, {} lost\n", run.workload, run.peer,
               run.size, run.wait, bus::tool::median(all.per_second) / 1e6, all.lost);
  }
}

void measure(const settings& run) {
  const library over = library_of(run.peer);
  const bus::tool::private_folder place("omnibus-peers");
  const std::uint64_t children = run.workload == "fanout" ? run.subscribers : 1;
  std::vector<std::unique_ptr<child>> others;
  for (std::uint64_t i = 0; i < children; ++i) {
    others.push_back(std::make_unique<child>(over, run));
  }
  const bool trips = run.workload == "latency";
  bus::tool::figures all;
  {
    const auto way = over.make(trips ? part::pair : part::source, run);
    const auto addresses = way->bind(place.path());
    for (std::size_t i = 0; i < others.size(); ++i) {
      others[i]->tell(addresses[std::min(i, addresses.size() - 1)]);
    }
    way->gather();
    trips ? measure_trips(*way, run, all) : measure_rate(*way, others, run, all);
    // nng has no linger: the others end before the way to them does.
    static_cast<void>(way->send(all_ends));
    others.clear();
  }
  print(run, all);
}

// 0, 1, or 3: what is to be measured is not installed.
int run_program(int argc, char** argv) {
  CLI::App parser("The workloads of `bus bench` on other libraries.", "bench_peers");
  settings run;
  parser.add_option("workload", run.workload)
      ->required()
      ->check(CLI::IsMember({"latency", "throughput", "fanout"}));
  parser.add_option("--peer", run.peer)->check(CLI::IsMember(all_names()));
  parser.add_option("--wait", run.wait)->check(CLI::IsMember({"sleep", "spin"}));
  parser.add_option("--size", run.size, "payload bytes")
      ->check(CLI::Range(std::uint64_t{8}, std::uint64_t{1} << 30));
  parser.add_option("--count", run.count, "messages per round")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{100'000'000}));
  parser.add_option("--rounds", run.rounds)->check(CLI::Range(1, 1000));
  parser.add_option("--subscribers", run.subscribers, "of fanout")->check(CLI::Range(1, 64));
  parser.add_option("--queue", run.queue, "messages on the way, of zmq, redis, nats and cyclone")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{10'000'000}));
  parser.add_flag("--untouched", run.untouched, "payloads are neither written nor read");
  parser.add_flag("--json", run.json);
  CLI11_PARSE(parser, argc, argv);
  try {
    measure(run);
    return 0;
  } catch (const not_installed& trouble) {
    fmt::print(stderr, "bench_peers: {}: {}\n", run.peer, trouble.what());
    return 3;
  } catch (const std::exception& trouble) {
    fmt::print(stderr, "bench_peers: {} over {}: {}\n", run.workload, run.peer, trouble.what());
    return 1;
  }
}

}  // namespace
}  // namespace peers

int main(int argc, char** argv) {
  static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
  return peers::run_program(argc, argv);
}
