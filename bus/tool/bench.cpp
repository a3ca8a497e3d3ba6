#include "bus/tool/bench.hpp"

#include "bus/bus.hpp"
#include "bus/tool/limits.hpp"
#include "transports/standard.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

extern char** environ;

namespace bus::tool {
namespace {

using namespace std::chrono_literals;

constexpr auto patience = 30s;

// The first 8 bytes of each payload; stop ends a peer's part.
constexpr std::uint64_t stop_word = UINT64_MAX;

wait_policy policy_of(const std::string& name) {
  if (name == "spin") return wait_policy::spin;
  if (name == "sleep") return wait_policy::sleep;
  return wait_policy::spin_then_sleep;
}

bill_of_transports only(const std::string& scheme) {
  bill_of_transports bill;
  for (transport_maker& one : transports::standard()) {
    if (one.scheme == scheme) bill.push_back(std::move(one));
  }
  return bill;
}

node_options options_for(const bench_options& bench, const std::string& name,
                         const std::string& directory) {
  node_options options{.name = name, .transports = only(bench.transport), .directory = directory};
  options.waiting = policy_of(bench.wait);
  options.link_depth = static_cast<std::uint32_t>(bench.depth);
  options.memory_bytes_max = std::max<std::uint64_t>(1ULL << 30, 8 * bench.size);
  if (bench.transport == "zmq") options.listen = {"tcp://127.0.0.1:*"};
  return options;
}

std::uint64_t word_of(std::span<const std::byte> payload) {
  std::uint64_t word = 0;
  std::memcpy(&word, payload.data(), sizeof word);
  return word;
}

// Writes every byte of the payload, or only its first word.
published send(publisher<raw>& to, const bench_options& bench, std::uint64_t word) {
  auto memory = to.loan(bench.size);
  if (!memory) return {.links = 1, .taken = 0, .error = memory.error()};
  const auto bytes = memory->bytes().first(bench.size);
  if (!bench.untouched) std::memset(bytes.data(), static_cast<int>(word & 0xff), bytes.size());
  std::memcpy(bytes.data(), &word, sizeof word);
  return to.publish(std::move(*memory), bench.size);
}

// Reads every byte of the payload, or only its first word.
std::uint64_t read(const received<raw>& from, const bench_options& bench) {
  static thread_local std::vector<std::byte> into;
  const auto bytes = from.bytes();
  if (!bench.untouched) {
    into.resize(bytes.size());
    std::memcpy(into.data(), bytes.data(), bytes.size());
    asm volatile("" : : "r"(into.data()) : "memory");
  }
  return word_of(bytes);
}

// --- the peers

void echo(const bench_options& bench, const std::string& directory) {
  node here(options_for(bench, "bench-echo", directory));
  auto ping = here.subscribe<raw>("bench/ping", {.depth = 64, .when_full = drop::newest});
  auto pong = here.advertise<raw>("bench/pong");
  const auto answer = [&](const received<raw>& question) {
    const std::uint64_t word = read(question, bench);
    if (word == stop_word) return false;
    static_cast<void>(send(pong, bench, word));
    return true;
  };
  if (!pong.wait_matched(1, patience)) return;
  while (const auto question = ping.take(patience)) {
    if (!answer(*question)) break;
  }
}

void drain(const bench_options& bench, const std::string& directory) {
  node here(options_for(bench, "bench-drain", directory));
  auto data = here.subscribe<raw>(
      "bench/data", {.depth = static_cast<std::uint32_t>(bench.depth), .when_full = drop::newest});
  auto done = here.advertise<raw>("bench/done");
  if (!done.wait_matched(1, patience)) return;
  std::uint64_t round_first_ns = 0;
  std::uint64_t seen = 0;
  while (const auto one = data.take(patience)) {
    const std::uint64_t word = read(*one, bench);
    if (word == stop_word) break;
    if (word == 0) {  // the end of a round: report and begin again
      auto memory = done.loan(24);
      const auto now = static_cast<std::uint64_t>(steady_ns());
      const std::uint64_t report[3] = {seen, round_first_ns, now};
      std::memcpy(memory->bytes().data(), report, sizeof report);
      static_cast<void>(done.publish(std::move(*memory), sizeof report));
      seen = 0;
      continue;
    }
    if (seen++ == 0) round_first_ns = static_cast<std::uint64_t>(steady_ns());
  }
}

void play(const std::string& role, const bench_options& bench, const std::string& directory) {
  role == "echo" ? echo(bench, directory) : drain(bench, directory);
}

// A peer as a process, or, for inproc, as a thread.
class peer {
 public:
  peer(const std::string& role, const bench_options& bench, const std::string& directory) {
    if (bench.transport == "inproc") {
      thread_ = std::jthread([=] { play(role, bench, directory); });
      return;
    }
    std::vector<std::string> words = {"bus",
                                      "bench-peer",
                                      role,
                                      "--directory",
                                      directory,
                                      "--transport",
                                      bench.transport,
                                      "--wait",
                                      bench.wait,
                                      "--size",
                                      std::to_string(bench.size),
                                      "--depth",
                                      std::to_string(bench.depth)};
    if (bench.untouched) words.emplace_back("--untouched");
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    if (::posix_spawn(&pid_, "/proc/self/exe", nullptr, nullptr, arguments.data(), environ) != 0) {
      throw std::runtime_error("cannot start a peer process: the system has no room for one");
    }
  }
  ~peer() {
    if (pid_ <= 0) return;
    // It ends by itself after the stop word; what does not is ended.
    for (const auto until = deadline::after(5s); !until.passed();) {
      if (::waitpid(pid_, nullptr, WNOHANG) != 0) return;
      ::usleep(1000);
    }
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  peer(const peer&) = delete;
  peer& operator=(const peer&) = delete;

 private:
  pid_t pid_ = -1;
  std::jthread thread_;
};

class scratch {
 public:
  scratch() : path_(std::filesystem::temp_directory_path() / "omnibus-bench-XXXXXX") {
    if (!::mkdtemp(path_.data())) throw std::runtime_error("cannot make a directory in /tmp");
  }
  ~scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  scratch(const scratch&) = delete;
  scratch& operator=(const scratch&) = delete;
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

// --- figures

double quantile_us(std::vector<std::int64_t>& sorted, double at) {
  if (sorted.empty()) return 0;
  const auto index = static_cast<std::size_t>(at * static_cast<double>(sorted.size() - 1));
  return static_cast<double>(sorted[index]) / 1000.0;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct figures {
  std::vector<double> p50_us;
  std::vector<double> p99_us;
  std::vector<double> p999_us;
  std::vector<double> per_second;
  std::vector<double> limit;  // us for a trip, messages per second for a rate
  std::uint64_t count = 0;
  std::uint64_t lost = 0;
};

void add_trips(figures& into, std::vector<std::int64_t> trips) {
  std::sort(trips.begin(), trips.end());
  std::int64_t sum = 0;
  for (const std::int64_t trip : trips) sum += trip;
  into.p50_us.push_back(quantile_us(trips, 0.5));
  into.p99_us.push_back(quantile_us(trips, 0.99));
  into.p999_us.push_back(quantile_us(trips, 0.999));
  into.per_second.push_back(static_cast<double>(trips.size()) * 1e9 / static_cast<double>(sum));
  into.count += trips.size();
}

struct limit_kind {
  std::string name;
  bool is_rate;
  std::function<double()> measure;
};

double middle_us(std::vector<std::int64_t> trips) {
  std::sort(trips.begin(), trips.end());
  return quantile_us(trips, 0.5);
}

limit_kind limit_of(const bench_options& bench) {
  const bool network = bench.transport == "zmq";
  if (bench.workload == "latency") {
    if (network) {
      return {"tcp ping-pong", false,
              [size = bench.size] { return middle_us(tcp_trips(5000, size)); }};
    }
    if (bench.wait == "sleep") {
      return {"semaphore ping-pong", false, [] { return middle_us(semaphore_trips(5000)); }};
    }
    return {"cache-line ping-pong", false, [] { return middle_us(cache_line_trips(200'000)); }};
  }
  const std::uint64_t bytes_per_round = 1ULL << 30;
  const std::uint64_t count =
      std::clamp<std::uint64_t>(bytes_per_round / bench.size, 64, 2'000'000);
  if (network) {
    return {"tcp stream", true, [=, size = bench.size] { return tcp_rate(count / 4, size); }};
  }
  return {"shared-memory ring", true, [=, size = bench.size] { return ring_rate(count, size); }};
}

void print(const bench_options& bench, const figures& all, const limit_kind& limit) {
  const bool is_rate = limit.is_rate;
  const double ours = is_rate ? median(all.per_second) : median(all.p50_us);
  const double limit_value = median(all.limit);
  const double ratio = limit_value > 0 ? ours / limit_value : 0;
  if (bench.json) {
    nlohmann::ordered_json line = {
        {"workload", bench.workload},
        {"transport", bench.transport},
        {"size", bench.size},
        {"wait", bench.wait},
        {"count", all.count},
        {"lost", all.lost},
        {"p50_us", median(all.p50_us)},
        {"p99_us", median(all.p99_us)},
        {"p999_us", median(all.p999_us)},
        {"per_second", median(all.per_second)},
        {"per_second_min", all.per_second.empty()
                               ? 0
                               : *std::min_element(all.per_second.begin(), all.per_second.end())},
        {"per_second_max", all.per_second.empty()
                               ? 0
                               : *std::max_element(all.per_second.begin(), all.per_second.end())},
        {"rounds", bench.rounds},
        {"limit", limit.name},
        {"limit_value", limit_value},
        {"ratio", ratio}};
    if (bench.workload == "fanout") line["subscribers"] = bench.subscribers;
    fmt::print("{}\n", line.dump());
    return;
  }
  fmt::print("{} over {}, {} B, {}: ", bench.workload, bench.transport, bench.size, bench.wait);
  if (!is_rate) {
    fmt::print("p50 {:.2f} us, p99 {:.2f} us, p99.9 {:.2f} us", ours, median(all.p99_us),
               median(all.p999_us));
  } else {
    fmt::print("{:.3f} M messages/s, {:.2f} GB/s", ours / 1e6,
               ours * static_cast<double>(bench.size) / 1e9);
    if (all.lost != 0) fmt::print(", {} lost (counted)", all.lost);
  }
  if (limit_value > 0) {
    fmt::print("; {}: {:.2f} {}; ratio {:.2f}", limit.name,
               is_rate ? limit_value / 1e6 : limit_value, is_rate ? "M/s" : "us", ratio);
  }
  fmt::print("\n");
}

// --- the workloads

int latency(const bench_options& bench) {
  const scratch directory;
  const peer other("echo", bench, directory.path());
  node here(options_for(bench, "bench", directory.path()));
  auto pong = here.subscribe<raw>("bench/pong", {.depth = 64, .when_full = drop::newest});
  auto ping = here.advertise<raw>("bench/ping");
  if (!ping.wait_matched(1, patience) || !pong.wait_matched(1, patience)) {
    fmt::print(stderr, "bus bench: the peer did not come up within 30 s; try 'bus doctor'\n");
    return 1;
  }
  const std::uint64_t count =
      bench.count != 0 ? bench.count
                       : (bench.wait == "spin" && bench.transport != "zmq" ? 200'000 : 10'000);
  const limit_kind limit = limit_of(bench);
  figures all;
  std::uint64_t word = 0;
  const auto trip = [&] {
    if (!send(ping, bench, ++word)) return false;
    const auto answer = pong.take(patience);
    return answer && read(*answer, bench) == word;
  };
  for (std::uint64_t round = 0; round < bench.rounds; ++round) {
    for (std::uint64_t i = 0; i < count / 10; ++i) static_cast<void>(trip());
    std::vector<std::int64_t> trips(count);
    for (std::int64_t& time : trips) {
      const std::int64_t start = steady_ns();
      if (!trip()) {
        fmt::print(stderr, "bus bench: message {} was not answered\n", word);
        return 1;
      }
      time = steady_ns() - start;
    }
    add_trips(all, std::move(trips));
    if (bench.limits) all.limit.push_back(limit.measure());
  }
  static_cast<void>(send(ping, bench, stop_word));
  print(bench, all, limit);
  return 0;
}

// What a subscriber reports at the end of a round.
struct report {
  std::uint64_t seen;
  std::uint64_t first_ns;
  std::uint64_t last_ns;
};

int rate(const bench_options& bench, std::uint64_t subscribers) {
  const scratch directory;
  std::vector<std::unique_ptr<peer>> peers;
  for (std::uint64_t i = 0; i < subscribers; ++i) {
    peers.push_back(std::make_unique<peer>("drain", bench, directory.path()));
  }
  node here(options_for(bench, "bench", directory.path()));
  auto done = here.subscribe<raw>("bench/done", {.depth = 1024, .when_full = drop::newest});
  auto data = here.advertise<raw>("bench/data");
  if (!data.wait_matched(subscribers, patience) || !done.wait_matched(subscribers, patience)) {
    fmt::print(stderr, "bus bench: the peers did not come up within 30 s; try 'bus doctor'\n");
    return 1;
  }
  const std::uint64_t count =
      bench.count != 0 ? bench.count
                       : std::clamp<std::uint64_t>((2ULL << 30) / bench.size, 256, 4'000'000);
  const limit_kind limit = limit_of(bench);
  figures all;
  for (std::uint64_t round = 0; round < bench.rounds; ++round) {
    for (std::uint64_t i = 1; i <= count; ++i) {
      if (!data.has_room() && !data.wait_room(patience)) return 1;
      static_cast<void>(send(data, bench, i));
    }
    // The end of the round must arrive: offered again until every link has taken it.
    std::vector<report> reports;
    const auto until = deadline::after(patience);
    while (reports.size() < subscribers && !until.passed()) {
      static_cast<void>(send(data, bench, 0));
      while (const auto one = done.take(100ms)) {
        report told{};
        std::memcpy(&told, one->bytes().data(), sizeof told);
        if (told.seen != 0) reports.push_back(told);
        if (reports.size() == subscribers) break;
      }
    }
    if (reports.size() < subscribers) return 1;
    std::uint64_t seen = 0;
    std::uint64_t first = UINT64_MAX;
    std::uint64_t last = 0;
    for (const report& one : reports) {
      seen += one.seen;
      first = std::min(first, one.first_ns);
      last = std::max(last, one.last_ns);
    }
    all.per_second.push_back(static_cast<double>(seen) * 1e9 / static_cast<double>(last - first));
    all.count += seen;
    all.lost += count * subscribers - seen;
    if (bench.limits) all.limit.push_back(limit.measure());
  }
  static_cast<void>(send(data, bench, stop_word));
  print(bench, all, limit);
  return 0;
}

}  // namespace

int run_bench(const bench_options& options) {
  if (options.size < 8) {
    fmt::print(stderr,
               "bus bench: --size must be at least 8 bytes: each message carries a number\n");
    return 2;
  }
  if (only(options.transport).empty()) {
    fmt::print(stderr, "bus bench: no transport '{}': use inproc, shm or zmq\n", options.transport);
    return 2;
  }
  if (options.workload == "latency") return latency(options);
  if (options.workload == "throughput") return rate(options, 1);
  if (options.workload == "fanout") return rate(options, options.subscribers);
  fmt::print(stderr, "bus bench: no workload '{}': use latency, throughput or fanout\n",
             options.workload);
  return 2;
}

int run_bench_peer(const bench_peer_options& options) {
  play(options.role, options.bench, options.directory);
  return 0;
}

}  // namespace bus::tool
