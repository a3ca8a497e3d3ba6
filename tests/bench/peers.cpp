// The workloads of `bus bench` on other libraries, with the same options and the same JSON line:
// what a user would have without Omnibus.
//
//   bench_peers latency|throughput|fanout --peer zmq-ipc|zmq-tcp|nng-ipc [--size N] [--count N] ...
//
// The peers shall look as good as they can. Each uses its leanest pattern: a pair of sockets for
// round trips, a pipeline for a stream. Messages are written in the library's own memory, so that
// only the library copies. Queues are as long as makes them faster, and nothing is dropped on the
// way: zmq publishes with XPUB_NODROP, and nng, whose publishers always drop, shares one message
// out over a pipeline for each subscriber.
//
// The other parties are children, forked before any library has a context or a thread. The parent
// binds, and tells them where through a pipe; they report through another. Every wait has an end.
#include "bus/base/clock.hpp"
#include "bus/base/fd.hpp"
#include "bus/tool/child.hpp"
#include "bus/tool/figures.hpp"
#include "bus/tool/private_folder.hpp"
#include "bus/tool/step_aside.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>
#include <zmq.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>

namespace {

using namespace std::chrono_literals;
using bus::deadline;
using bus::steady_ns;

constexpr int patience_ms = 20'000;
constexpr std::chrono::nanoseconds a_round = 1s;
constexpr std::chrono::nanoseconds warm_up = 100ms;
constexpr std::uint64_t trips_max = 1'000'000;
// The first 8 bytes of each message, as in bus/tool/bench.cpp: a number, or one of these.
constexpr std::uint64_t round_ends = 0;
constexpr std::uint64_t all_ends = UINT64_MAX;

struct settings {
  std::string workload;
  std::string peer = "zmq-ipc";
  std::string wait = "sleep";
  std::uint64_t size = 64;
  std::uint64_t count = 0;  // messages per round; 0: what fits a second
  std::uint64_t rounds = 5;
  std::uint64_t subscribers = 4;
  std::uint64_t queue = 0;  // messages that zmq may hold on either side; 0: as below
  bool untouched = false;
  bool json = false;
};

enum class part { pair, source, sink };

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

void write_payload(void* to, const settings& run, std::uint64_t word) {
  if (!run.untouched) std::memset(to, static_cast<int>(word & 0xff), run.size);
  std::memcpy(to, &word, sizeof word);
}

std::uint64_t read_payload(const void* from, const settings& run) {
  static std::vector<char> into(run.size);
  if (!run.untouched) {
    std::memcpy(into.data(), from, run.size);
    asm volatile("" : : "r"(into.data()) : "memory");
  }
  std::uint64_t word = 0;
  std::memcpy(&word, from, sizeof word);
  return word;
}

// One party's way to the others, over some library. send and receive wait, patience_ms at most.
class party {
 public:
  party() = default;
  virtual ~party() = default;
  party(const party&) = delete;
  party& operator=(const party&) = delete;

  // Where the others shall connect to, after binding: one address for each of them, or one for all.
  [[nodiscard]] virtual std::vector<std::string> bind(const std::string& folder) = 0;
  virtual void connect(const std::string& address) = 0;
  // Returns once all others are there, as far as the library can tell.
  virtual void gather() = 0;
  [[nodiscard]] virtual bool send(std::uint64_t word) = 0;
  [[nodiscard]] virtual std::optional<std::uint64_t> receive() = 0;
};

// --- libzmq

class zmq_party final : public party {
 public:
  zmq_party(part plays, const settings& run) : run_(run), plays_(plays), context_(::zmq_ctx_new()) {
    const bool fanout = run.workload == "fanout";
    const int type = plays == part::pair     ? ZMQ_PAIR
                     : plays == part::source ? (fanout ? ZMQ_XPUB : ZMQ_PUSH)
                                             : (fanout ? ZMQ_SUB : ZMQ_PULL);
    socket_ = ::zmq_socket(context_, type);
    if (socket_ == nullptr) fail("zmq_socket");
    // Pinned, load 5, 64 B, million/s: 1000 messages 4.6, 4000 5.0, 10,000 4.4, 30,000 3.2,
    // 131,072 2.5.
    const std::uint64_t usual = std::clamp<std::uint64_t>((64ULL << 20) / run.size, 16, 4000);
    const auto queue = static_cast<int>(run.queue != 0 ? run.queue : usual);
    set(ZMQ_SNDHWM, queue);
    set(ZMQ_RCVHWM, queue);
    set(ZMQ_SNDTIMEO, patience_ms);
    set(ZMQ_RCVTIMEO, patience_ms);
    set(ZMQ_LINGER, 1000);
    if (type == ZMQ_XPUB) {
      set(ZMQ_XPUB_NODROP, 1);
      set(ZMQ_XPUB_VERBOSE, 1);  // or it would not hear of the second equal subscription
    }
    if (type == ZMQ_SUB) ::zmq_setsockopt(socket_, ZMQ_SUBSCRIBE, "", 0);
  }
  ~zmq_party() override {
    ::zmq_close(socket_);
    ::zmq_ctx_term(context_);
  }
  zmq_party(const zmq_party&) = delete;
  zmq_party& operator=(const zmq_party&) = delete;

  std::vector<std::string> bind(const std::string& folder) override {
    const std::string wanted =
        run_.peer == "zmq-tcp" ? "tcp://127.0.0.1:*" : "ipc://" + folder + "/zmq";
    if (::zmq_bind(socket_, wanted.c_str()) != 0) fail("zmq_bind " + wanted);
    std::array<char, 256> bound{};
    std::size_t bytes = bound.size();
    ::zmq_getsockopt(socket_, ZMQ_LAST_ENDPOINT, bound.data(), &bytes);
    return {bound.data()};
  }
  void connect(const std::string& address) override {
    if (::zmq_connect(socket_, address.c_str()) != 0) fail("zmq_connect " + address);
  }
  void gather() override {
    // An XPUB hears of each subscription; the others wait in their first send.
    if (plays_ != part::source || run_.workload != "fanout") return;
    for (std::uint64_t i = 0; i < run_.subscribers; ++i) {
      std::array<char, 16> words{};
      if (::zmq_recv(socket_, words.data(), words.size(), 0) < 0) fail("no subscriber came");
    }
  }
  bool send(std::uint64_t word) override {
    zmq_msg_t message;
    if (::zmq_msg_init_size(&message, run_.size) != 0) return false;
    write_payload(::zmq_msg_data(&message), run_, word);
    if (::zmq_msg_send(&message, socket_, 0) >= 0) return true;
    ::zmq_msg_close(&message);
    return false;
  }
  std::optional<std::uint64_t> receive() override {
    zmq_msg_t message;
    ::zmq_msg_init(&message);
    if (!arrived(message) || ::zmq_msg_size(&message) != run_.size) return std::nullopt;
    const std::uint64_t word = read_payload(::zmq_msg_data(&message), run_);
    ::zmq_msg_close(&message);
    return word;
  }

 private:
  void set(int option, int value) {
    if (::zmq_setsockopt(socket_, option, &value, sizeof value) != 0) fail("zmq_setsockopt");
  }
  bool arrived(zmq_msg_t& message) {
    if (run_.wait == "sleep") return ::zmq_msg_recv(&message, socket_, 0) >= 0;
    const auto until = deadline::after(std::chrono::milliseconds(patience_ms));
    for (unsigned turns = 1; ::zmq_msg_recv(&message, socket_, ZMQ_DONTWAIT) < 0; ++turns) {
      if (turns % 256 == 0 && until.passed()) return false;
    }
    return true;
  }

  const settings& run_;
  part plays_;
  void* context_;
  void* socket_ = nullptr;
};

// --- nng

class nng_party final : public party {
 public:
  nng_party(part plays, const settings& run) : run_(run) {
    const bool fanout = run.workload == "fanout" && plays == part::source;
    sockets_.resize(fanout ? run.subscribers : 1);
    for (nng_socket& one : sockets_) {
      const int opened = plays == part::pair     ? ::nng_pair0_open(&one)
                         : plays == part::source ? ::nng_push0_open(&one)
                                                 : ::nng_pull0_open(&one);
      must(opened, "nng open");
      // Some patterns have no queues; nng says so, and that is as good as it gets.
      static_cast<void>(::nng_socket_set_int(one, NNG_OPT_SENDBUF, queue));
      static_cast<void>(::nng_socket_set_int(one, NNG_OPT_RECVBUF, queue));
      must(::nng_socket_set_ms(one, NNG_OPT_SENDTIMEO, patience_ms), "nng timeout");
      must(::nng_socket_set_ms(one, NNG_OPT_RECVTIMEO, patience_ms), "nng timeout");
      must(::nng_socket_set_size(one, NNG_OPT_RECVMAXSZ, 0), "nng size");
    }
  }
  ~nng_party() override {
    for (const nng_socket one : sockets_) ::nng_close(one);
  }
  nng_party(const nng_party&) = delete;
  nng_party& operator=(const nng_party&) = delete;

  std::vector<std::string> bind(const std::string& folder) override {
    std::vector<std::string> addresses;
    for (const nng_socket one : sockets_) {
      addresses.push_back("ipc://" + folder + "/nng" + std::to_string(addresses.size()));
      must(::nng_listen(one, addresses.back().c_str(), nullptr, 0), "nng_listen");
    }
    return addresses;
  }
  void connect(const std::string& address) override {
    must(::nng_dial(sockets_.front(), address.c_str(), nullptr, 0), "nng_dial");
  }
  void gather() override {}  // the first send waits

  bool send(std::uint64_t word) override {
    nng_msg* message = nullptr;
    if (::nng_msg_alloc(&message, run_.size) != 0) return false;
    write_payload(::nng_msg_body(message), run_, word);
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
      nng_msg* each = message;
      if (i + 1 < sockets_.size() && ::nng_msg_dup(&each, message) != 0) return false;
      if (::nng_sendmsg(sockets_[i], each, 0) != 0) return false;
    }
    return true;
  }
  std::optional<std::uint64_t> receive() override {
    nng_msg* message = nullptr;
    if (!arrived(message) || ::nng_msg_len(message) != run_.size) return std::nullopt;
    const std::uint64_t word = read_payload(::nng_msg_body(message), run_);
    ::nng_msg_free(message);
    return word;
  }

 private:
  static constexpr int queue = 8192;  // nng's own maximum

  static void must(int code, const std::string& what) {
    if (code != 0) fail(what + ": " + ::nng_strerror(code));
  }
  bool arrived(nng_msg*& message) {
    if (run_.wait == "sleep") return ::nng_recvmsg(sockets_.front(), &message, 0) == 0;
    const auto until = deadline::after(std::chrono::milliseconds(patience_ms));
    for (unsigned turns = 1;
         ::nng_recvmsg(sockets_.front(), &message, NNG_FLAG_NONBLOCK) == NNG_EAGAIN; ++turns) {
      if (turns % 256 == 0 && until.passed()) return false;
    }
    return message != nullptr;
  }

  const settings& run_;
  std::vector<nng_socket> sockets_;
};

std::unique_ptr<party> make(part plays, const settings& run) {
  if (run.peer == "nng-ipc") return std::make_unique<nng_party>(plays, run);
  return std::make_unique<zmq_party>(plays, run);
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
  explicit child(const settings& run) {
    pid_ = ::fork();
    if (pid_ < 0) fail("cannot fork: no room for another process");
    if (pid_ > 0) return;
    if (!life_.hold()) ::_exit(1);
    bus::tool::step_aside();
    int code = 1;
    try {
      live(run);
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
  void live(const settings& run) {
    address_text address{};
    if (!read_within(down_.out, address)) fail("no address came");
    const bool echoes = run.workload == "latency";
    const auto way = make(echoes ? part::pair : part::sink, run);
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
    fmt::print("{} over {}, {} B, {}: {:.3f} M messages/s\n", run.workload, run.peer, run.size,
               run.wait, bus::tool::median(all.per_second) / 1e6);
  }
}

void measure(const settings& run) {
  const bus::tool::private_folder place("omnibus-peers");
  const std::uint64_t children = run.workload == "fanout" ? run.subscribers : 1;
  std::vector<std::unique_ptr<child>> others;
  for (std::uint64_t i = 0; i < children; ++i) others.push_back(std::make_unique<child>(run));
  const bool trips = run.workload == "latency";
  bus::tool::figures all;
  {
    const auto way = make(trips ? part::pair : part::source, run);
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

}  // namespace

int main(int argc, char** argv) {
  static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
  CLI::App parser("The workloads of `bus bench` on other libraries.", "bench_peers");
  settings run;
  parser.add_option("workload", run.workload)
      ->required()
      ->check(CLI::IsMember({"latency", "throughput", "fanout"}));
  parser.add_option("--peer", run.peer)->check(CLI::IsMember({"zmq-ipc", "zmq-tcp", "nng-ipc"}));
  parser.add_option("--wait", run.wait)->check(CLI::IsMember({"sleep", "spin"}));
  parser.add_option("--size", run.size, "payload bytes")
      ->check(CLI::Range(std::uint64_t{8}, std::uint64_t{1} << 30));
  parser.add_option("--count", run.count, "messages per round")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{100'000'000}));
  parser.add_option("--rounds", run.rounds)->check(CLI::Range(1, 1000));
  parser.add_option("--subscribers", run.subscribers, "of fanout")->check(CLI::Range(1, 64));
  parser.add_option("--queue", run.queue, "zmq's high-water mark")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{10'000'000}));
  parser.add_flag("--untouched", run.untouched, "payloads are neither written nor read");
  parser.add_flag("--json", run.json);
  CLI11_PARSE(parser, argc, argv);
  try {
    measure(run);
    return 0;
  } catch (const std::exception& trouble) {
    fmt::print(stderr, "bench_peers: {} over {}: {}\n", run.workload, run.peer, trouble.what());
    return 1;
  }
}
