#include "bus/tool/bench.hpp"

#include "bus/base/child_process.hpp"
#include "bus/bus.hpp"
#include "bus/tool/figures.hpp"
#include "bus/tool/limits.hpp"
#include "bus/tool/private_folder.hpp"
#include "bus/tool/step_aside.hpp"
#include "transports/standard.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace bus::tool {
namespace {

using namespace std::chrono_literals;

constexpr auto patience = 30s;
constexpr auto a_life = std::chrono::hours(24);  // of a peer, which ends by its stop word
// How long a round lasts that is not told how many messages; and its part that is not counted.
constexpr std::chrono::nanoseconds a_round = 1s;
constexpr std::chrono::nanoseconds warm_up = 100ms;
// Trips that a round by time can hold: a trip takes 0.2 us at the least.
constexpr std::uint64_t trips_max = 5'000'000;

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
  if (bench.loop == "signal") options.woken_by = loop_wakeup::signal;
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
void fill(std::span<std::byte> bytes, const bench_options& bench, std::uint64_t word) {
  if (!bench.untouched) std::memset(bytes.data(), static_cast<int>(word & 0xff), bytes.size());
  std::memcpy(bytes.data(), &word, sizeof word);
}

// What is so small is built by its user, and published as it is; the rest is built in lent memory.
constexpr std::uint64_t small_bytes = 64;

published send(publisher<raw>& to, const bench_options& bench, std::uint64_t word) {
  if (bench.size <= small_bytes) {
    std::array<std::byte, small_bytes> own;
    const auto bytes = std::span(own).first(bench.size);
    fill(bytes, bench, word);
    return to.publish(bytes);
  }
  auto memory = to.loan(bench.size);
  if (!memory) return {.links = 1, .taken = 0, .messages = 0, .error = memory.error()};
  fill(memory->bytes().first(bench.size), bench, word);
  return to.publish(std::move(*memory), bench.size);
}

// Words from `first` on, in one batch.
published send_batch(publisher<raw>& to, const bench_options& bench, std::uint64_t first) {
  auto memory = to.loan({.messages = bench.batch, .bytes = bench.size});
  if (!memory) return {.links = 1, .taken = 0, .messages = 0, .error = memory.error()};
  for (std::uint32_t i = 0; i < bench.batch; ++i) fill((*memory)[i], bench, first + i);
  return to.publish(std::move(*memory));
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

// The same by a coroutine, which sleeps in the event loop.
asio::awaitable<void> echo_on_loop(const bench_options& bench, subscriber<raw>& ping,
                                   publisher<raw>& pong, node& here) {
  for (;;) {
    const auto question = co_await ping.next();
    const std::uint64_t word = read(question, bench);
    if (word == stop_word) break;
    static_cast<void>(send(pong, bench, word));
  }
  here.stop();
}

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
  if (bench.loop != "take") {
    asio::co_spawn(here.context(), echo_on_loop(bench, ping, pong, here), asio::detached);
    here.run();
    return;
  }
  while (const auto question = ping.take(a_life)) {
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
  while (const auto one = data.take(a_life)) {
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
  step_aside();
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
    child_plan plan{.command = {"/proc/self/exe", "bench-peer", role, "--directory", directory,
                                "--transport", bench.transport, "--wait", bench.wait, "--size",
                                std::to_string(bench.size), "--depth", std::to_string(bench.depth),
                                "--loop", bench.loop}};
    if (bench.untouched) plan.command.emplace_back("--untouched");
    auto started = child_process::start(plan);
    if (!started) {
      throw std::runtime_error("cannot start a peer process: " + started.error().message());
    }
    process_.emplace(std::move(*started));
  }
  ~peer() {
    if (process_) static_cast<void>(process_->wait_for(5s));  // it ends after the stop word
  }
  peer(const peer&) = delete;
  peer& operator=(const peer&) = delete;

  // Stands still until go_on(): the machine's own limit is not to share its cores with a peer that
  // spins. A thread cannot.
  void pause() const noexcept {
    if (!process_ || !process_->signal(SIGSTOP)) return;
    siginfo_t stopped{};
    const auto handle = static_cast<id_t>(process_->handle());
    while (::waitid(P_PIDFD, handle, &stopped, WSTOPPED) != 0 && errno == EINTR) {
    }
  }
  void go_on() const noexcept {
    if (process_) static_cast<void>(process_->signal(SIGCONT));
  }

 private:
  std::optional<child_process> process_;
  std::jthread thread_;
};

// --- figures

struct limit_kind {
  std::string name;
  bool is_rate;
  std::function<void(figures&)> measure;
};

limit_kind trips_limit(std::string name, std::function<std::vector<std::int64_t>()> trips) {
  return {std::move(name), false, [trips = std::move(trips)](figures& all) {
            std::vector<std::int64_t> sorted = trips();
            std::sort(sorted.begin(), sorted.end());
            all.limit.push_back(quantile_us(sorted, 0.5));
            all.limit_p999_us.push_back(quantile_us(sorted, 0.999));
          }};
}

limit_kind rate_limit(std::string name, std::function<double()> rate) {
  return {std::move(name), true,
          [rate = std::move(rate)](figures& all) { all.limit.push_back(rate()); }};
}

limit_kind limit_of(const bench_options& bench) {
  constexpr std::size_t trips = 20'000;  // enough for a thousandth of them
  const bool network = bench.transport == "zmq";
  if (bench.workload == "latency") {
    if (network) {
      return trips_limit("tcp ping-pong", [size = bench.size] { return tcp_trips(trips, size); });
    }
    if (bench.wait == "sleep" && bench.loop != "take") {
      return trips_limit("signalfd ping-pong", [] { return signalfd_trips(trips); });
    }
    if (bench.wait == "sleep") {
      return trips_limit("semaphore ping-pong", [] { return semaphore_trips(trips); });
    }
    return trips_limit("cache-line ping-pong", [] { return cache_line_trips(10 * trips); });
  }
  const std::uint64_t bytes_per_round = 1ULL << 30;
  const std::uint64_t count =
      std::clamp<std::uint64_t>(bytes_per_round / bench.size, 64, 2'000'000);
  if (network) {
    return rate_limit("tcp stream", [=, size = bench.size] { return tcp_rate(count / 4, size); });
  }
  return rate_limit("shared-memory ring",
                    [=, size = bench.size] { return ring_rate(count, size); });
}

void print(const bench_options& bench, const figures& all, const limit_kind& limit) {
  const bool is_rate = limit.is_rate;
  const double ours = is_rate ? median(all.per_second) : median(all.p50_us);
  const double limit_value = median(all.limit);
  const double ratio = limit_value > 0 ? ours / limit_value : 0;
  if (bench.json) {
    auto line = line_of({bench.workload, bench.transport, bench.size, bench.wait}, all);
    line["limit"] = limit.name;
    line["limit_value"] = limit_value;
    line["ratio"] = ratio;
    if (!is_rate) line["limit_p999_us"] = median(all.limit_p999_us);
    line["untouched"] = bench.untouched;
    line["batch"] = bench.batch;
    line["loop"] = bench.loop;
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
    if (!is_rate) fmt::print(", its p99.9 {:.2f} us", median(all.limit_p999_us));
  }
  fmt::print("\n");
}

// --- the workloads

// Round trips of one round, timed one by one.
class trips {
 public:
  trips(const bench_options& bench, publisher<raw>& ping, subscriber<raw>& pong, node& here)
      : bench_(bench),
        ping_(ping),
        pong_(pong),
        here_(here),
        count_(bench.count == 0 ? trips_max : bench.count) {
    taken_.reserve(count_);
  }

  // False: trouble() says why.
  [[nodiscard]] bool run() {
    taken_.clear();
    // Pages are touched, clocks speed up.
    warm_until_ = deadline::after(warm_up);
    until_ = deadline::after(warm_up + (bench_.count == 0 ? a_round : std::chrono::hours(1)));
    if (bench_.loop != "take") {
      asio::co_spawn(here_.context(), on_loop(), asio::detached);
      here_.run();
      return trouble_.empty();
    }
    while (wants_more()) {
      if (!begin()) return false;
      const auto answer = pong_.take(patience);
      if (!answer) trouble_ = fmt::format("message {} was not answered within 30 s", word_);
      if (!answer || !end(*answer)) return false;
    }
    return true;
  }
  [[nodiscard]] const std::string& trouble() const noexcept { return trouble_; }
  [[nodiscard]] const std::vector<std::int64_t>& taken() const noexcept { return taken_; }

 private:
  [[nodiscard]] asio::awaitable<void> on_loop() {
    while (wants_more() && begin()) {
      const auto answer = co_await pong_.next();
      if (!end(answer)) break;
    }
    here_.stop();
  }
  [[nodiscard]] bool wants_more() const noexcept {
    return taken_.size() < count_ && end_ns_ < until_.at_ns();
  }
  [[nodiscard]] bool begin() {
    start_ns_ = steady_ns();
    const published sent = send(ping_, bench_, ++word_);
    if (!sent) {
      trouble_ = fmt::format("message {} was not taken: {}", word_,
                             sent.error ? sent.error.message() : "no room in the link");
    }
    return static_cast<bool>(sent);
  }
  [[nodiscard]] bool end(const received<raw>& answer) {
    const std::uint64_t word = read(answer, bench_);
    end_ns_ = steady_ns();
    if (warm_until_.at_ns() <= start_ns_) taken_.push_back(end_ns_ - start_ns_);
    if (word != word_) trouble_ = fmt::format("message {} was answered by {}", word_, word);
    return word == word_;
  }

  const bench_options& bench_;
  publisher<raw>& ping_;
  subscriber<raw>& pong_;
  node& here_;
  std::uint64_t count_;
  deadline warm_until_ = deadline::never();
  deadline until_ = deadline::never();
  std::vector<std::int64_t> taken_;
  std::int64_t start_ns_ = 0;
  std::int64_t end_ns_ = 0;
  std::uint64_t word_ = 0;
  std::string trouble_;
};

int latency(const bench_options& bench) {
  const private_folder directory("omnibus-bench");
  const peer other("echo", bench, directory.path());
  node here(options_for(bench, "bench", directory.path()));
  auto pong = here.subscribe<raw>("bench/pong", {.depth = 64, .when_full = drop::newest});
  auto ping = here.advertise<raw>("bench/ping");
  if (!ping.wait_matched(1, patience) || !pong.wait_matched(1, patience)) {
    fmt::print(stderr, "bus bench: the peer did not come up within 30 s; try 'bus doctor'\n");
    return 1;
  }
  const limit_kind limit = limit_of(bench);
  figures all;
  trips there_and_back(bench, ping, pong, here);
  for (std::uint64_t round = 0; round < bench.rounds; ++round) {
    if (!there_and_back.run()) {
      fmt::print(stderr, "bus bench: {}\n", there_and_back.trouble());
      return 1;
    }
    all.add_trips(there_and_back.taken());
    if (!bench.limits) continue;
    other.pause();
    limit.measure(all);
    other.go_on();
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

// One publisher, in this process, and its subscribers, each in a process of its own.
class flood {
 public:
  flood(const bench_options& bench, std::uint64_t subscribers)
      : bench_(bench), subscribers_(subscribers) {
    for (std::uint64_t i = 0; i < subscribers; ++i) {
      peers_.push_back(std::make_unique<peer>("drain", bench, directory_.path()));
    }
    here_.emplace(options_for(bench, "bench", directory_.path()));
    done_.emplace(here_->subscribe<raw>("bench/done", {.depth = 1024, .when_full = drop::newest}));
    data_.emplace(here_->advertise<raw>("bench/data"));
  }

  [[nodiscard]] bool ready() {
    return data_->wait_matched(subscribers_, patience) &&
           done_->wait_matched(subscribers_, patience);
  }

  // Publishes `count` messages, or as many as the time allows, and asks what became of them. Empty:
  // the subscribers stand still.
  [[nodiscard]] std::optional<report> round(std::uint64_t count, std::chrono::nanoseconds time,
                                            std::uint64_t& sent) {
    const auto until = deadline::after(time);
    for (sent = 0; sent < count;) {
      if (!data_->has_room() && !data_->wait_room(patience)) return std::nullopt;
      // What finds no memory or no place after all is counted as sent, and comes out as lost.
      if (bench_.batch == 1) {
        static_cast<void>(send(*data_, bench_, ++sent));
      } else {
        static_cast<void>(send_batch(*data_, bench_, sent + 1));
        sent += bench_.batch;
      }
      if (sent % 64 < bench_.batch && until.passed()) break;
    }
    return ask();
  }

  void pause() const noexcept {
    for (const auto& one : peers_) one->pause();
  }
  void go_on() const noexcept {
    for (const auto& one : peers_) one->go_on();
  }

  void stop() {
    if (data_->wait_room(patience)) static_cast<void>(send(*data_, bench_, stop_word));
  }

 private:
  // The end of the round must arrive: it waits for room, and is offered again if nobody answers.
  [[nodiscard]] std::optional<report> ask() {
    report sum{.seen = 0, .first_ns = UINT64_MAX, .last_ns = 0};
    std::uint64_t heard = 0;
    const auto until = deadline::after(patience);
    while (!until.passed()) {
      if (!data_->wait_room(patience)) return std::nullopt;
      static_cast<void>(send(*data_, bench_, 0));
      while (const auto one = done_->take(1s)) {
        report told{};
        std::memcpy(&told, one->bytes().data(), sizeof told);
        if (told.seen == 0) continue;  // it had answered already
        sum.seen += told.seen;
        sum.first_ns = std::min(sum.first_ns, told.first_ns);
        sum.last_ns = std::max(sum.last_ns, told.last_ns);
        if (++heard == subscribers_) return sum;
      }
    }
    return std::nullopt;
  }

  const bench_options& bench_;
  std::uint64_t subscribers_;
  private_folder directory_{"omnibus-bench"};
  std::vector<std::unique_ptr<peer>> peers_;
  std::optional<node> here_;
  std::optional<subscriber<raw>> done_;
  std::optional<publisher<raw>> data_;
};

int rate(const bench_options& bench, std::uint64_t subscribers) {
  flood all_of_it(bench, subscribers);
  if (!all_of_it.ready()) {
    fmt::print(stderr, "bus bench: the peers did not come up within 30 s; try 'bus doctor'\n");
    return 1;
  }
  const bool by_time = bench.count == 0;
  const std::uint64_t count = by_time ? UINT64_MAX - 1 : bench.count;
  const limit_kind limit = limit_of(bench);
  figures all;
  // Round 0 touches the memory and is not counted.
  for (std::uint64_t round = 0; round <= bench.rounds; ++round) {
    std::uint64_t sent = 0;
    const auto time = round == 0 ? warm_up : by_time ? a_round : std::chrono::hours(1);
    const auto seen = all_of_it.round(count, time, sent);
    if (!seen) {
      fmt::print(stderr, "bus bench: a subscriber stands still after {} messages\n", sent);
      return 1;
    }
    if (round == 0) continue;
    all.add_rate(seen->seen, seen->first_ns, seen->last_ns);
    all.lost += sent * subscribers - seen->seen;
    if (!bench.limits) continue;
    all_of_it.pause();
    limit.measure(all);
    all_of_it.go_on();
  }
  all_of_it.stop();
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
  if (options.workload == "latency" && options.batch != 1) {
    fmt::print(stderr, "bus bench: --batch is for throughput and fanout: a trip is one message\n");
    return 2;
  }
  if (options.workload != "latency" && options.loop != "take") {
    fmt::print(stderr, "bus bench: --loop is for latency: only there the sleeper is measured\n");
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
