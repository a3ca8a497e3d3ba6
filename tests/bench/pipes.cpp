// The pipe transport beside the pipe itself, in turns: two processes, each measurement in a fresh
// pair of them. Both use pipes of the same size; nobody touches the payloads.
//
//   rate        one way, GB/s: write and read of a whole message; vmsplice and read; the transport
//               where it copies, and where it lends pages; whole nodes that lend pages, by the
//               public API, as they wait by default. Ours over the better of the raw two.
//   round trip  64 B there and back, us, both asleep in between: blocking read and write; the
//               transport under a node's habits (poll, arm, sleep on all descriptors); whole nodes,
//               by the public API: that sleep at once, and as they wait by default.
//
// Nodes aside, the seam is measured and nothing above it. Medians over the rounds, with the least
// and the most.
#include "bus/bus.hpp"
#include "tests/contract/pipe_switchboard.hpp"
#include "transports/pipe/pipe.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace {

using contract::loose_ends;
using contract::must;
using contract::party;

enum class way : std::size_t { write, vmsplice, copies, pages, nodes };  // the raw ones first
constexpr std::array<way, 5> all_ways = {way::write, way::vmsplice, way::copies, way::pages,
                                         way::nodes};

const char* name_of(way by) {
  constexpr std::array<const char*, 5> names = {"write", "vmsplice", "copies", "pages", "nodes"};
  return names[static_cast<std::size_t>(by)];
}

struct settings {
  std::uint64_t rounds = 7;
  std::uint64_t megabytes = 256;  // of each rate
  std::uint64_t trips = 3000;
  std::uint64_t batch = 1;      // messages of one send
  std::uint64_t raw_bytes = 0;  // of the raw pipes; 0: as the transport's
  std::vector<way> ways = {all_ways.begin(), all_ways.end()};
  bool pin = false;                // the two processes on cores 0 and 1
  std::uint64_t window = 1 << 20;  // bytes in flight, as of a subscription that blocks
};

// --- the raw pipe

void write_all(int to, const std::byte* from, std::size_t bytes) {
  while (bytes > 0) {
    const ssize_t wrote = ::write(to, from, bytes);
    must(wrote > 0, "write");
    from += wrote;
    bytes -= static_cast<std::size_t>(wrote);
  }
}

void lend_all(int to, std::byte* from, std::size_t bytes) {
  while (bytes > 0) {
    const iovec one{from, bytes};
    const ssize_t lent = ::vmsplice(to, &one, 1, 0);
    must(lent > 0, "vmsplice");
    from += lent;
    bytes -= static_cast<std::size_t>(lent);
  }
}

void read_all(int from, std::byte* into, std::size_t bytes) {
  while (bytes > 0) {
    const ssize_t got = ::read(from, into, bytes);
    must(got > 0, "read");
    into += got;
    bytes -= static_cast<std::size_t>(got);
  }
}

// Whole pages, as for both ways it is best.
std::unique_ptr<std::byte, decltype(&std::free)> buffer_of(std::size_t bytes) {
  auto* const at = static_cast<std::byte*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096));
  must(at != nullptr, "no memory");
  std::fill(at, at + bytes, std::byte{1});
  return {at, &std::free};
}

// --- the transport, as a node uses it

struct end_of_link {
  explicit end_of_link(loose_ends ends, bool lends_pages, std::uint64_t window)
      : self(transports::pipe(), within(window)) {
    auto plugged = contract::plug(*self.carrier, std::move(ends), {}, lends_pages);
    must(plugged.has_value(), "plug");
    self.ways.push_back(std::move(*plugged));
    self.heard.keep = false;
    while (self.ways.front()->state() == bus::link_state::opening) turn();
  }
  // Hands over what came, or else sleeps until something does; or until there is room, if that is
  // waited for.
  void turn(bool for_room = false) {
    if (self.inbox().poll(64, sink) > 0) return;
    self.doorbell->arm_descriptors();
    const bool quiet = self.inbox().arm() && (!for_room || self.ways.front()->arm());
    watched.clear();
    self.add_descriptors(watched);
    if (quiet) ::poll(watched.data(), watched.size(), -1);
    const bool called = !quiet || watched.back().revents != 0;
    self.drain(watched);
    self.disarm();
    if (called) self.inbox().attend(sink);
  }
  static bus::transport_setup within(std::uint64_t window) {
    bus::transport_setup setup;
    setup.link_bytes_max = window;
    return setup;
  }
  struct counter final : bus::sink {
    void accept(bus::sample&&) noexcept override { ++came; }
    void left(bus::node_id, std::error_code) noexcept override { has_left = true; }
    std::uint64_t came = 0;
    bool has_left = false;
  };
  party self;
  counter sink;
  std::vector<pollfd> watched;
};

bus::sample message_of(end_of_link& from, std::uint64_t sequence, std::size_t size) {
  for (;;) {
    auto lent = from.self.carrier->lend(size);
    if (lent) {
      return std::move(*lent).commit(contract::frame_for(from.self.id.value, 1, sequence, size));
    }
    from.turn(true);
  }
}

// Memory that was never written is one page of zeroes, of which no pipe can be lent anything fast.
void touch_memory(end_of_link& of, std::size_t size, std::uint64_t window) {
  std::vector<bus::loan> all;
  for (std::uint64_t bytes = 0; bytes <= window; bytes += size) {
    auto lent = of.self.carrier->lend(size);
    must(lent.has_value(), "lend");
    std::fill(lent->bytes().begin(), lent->bytes().end(), std::byte{1});
    all.push_back(std::move(*lent));
  }
}

void send_all(end_of_link& from, std::uint64_t count, std::size_t size, std::size_t batch) {
  std::vector<bus::sample> waiting;
  for (std::uint64_t sent = 0; sent < count;) {
    while (waiting.size() < std::min<std::uint64_t>(batch, count - sent)) {
      waiting.push_back(message_of(from, sent + waiting.size() + 1, size));
    }
    const auto taken = from.self.ways.front()->send(waiting);
    must(taken.has_value(), "send");
    sent += *taken;
    const bool is_full = *taken < waiting.size();
    waiting.erase(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(*taken));
    if (is_full) from.turn(true);
  }
}

// --- two processes

void stay_on(std::size_t core) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(core, &only);
  must(::sched_setaffinity(0, sizeof only, &only) == 0, "sched_setaffinity");
}

std::int64_t spent_ns(int whose) {
  rusage used{};
  ::getrusage(whose, &used);
  const auto ns = [](timeval time) { return time.tv_sec * 1'000'000'000 + time.tv_usec * 1000; };
  return ns(used.ru_utime) + ns(used.ru_stime);
}

// Runs `other` in a child with its ends, `ours` here, and waits for the child. Returns the
// processor time of the busier of the two.
std::int64_t in_two_processes(const settings& run, std::uint64_t pipe_bytes,
                              const std::function<void(loose_ends)>& other,
                              const std::function<void(loose_ends)>& ours) {
  auto [here, there] = contract::make_pair_of_pipes();
  for (const int one : {here.out.get(), there.out.get()}) {
    if (pipe_bytes > 0) static_cast<void>(::fcntl(one, F_SETPIPE_SZ, pipe_bytes));
  }
  std::fflush(nullptr);
  const pid_t child = ::fork();
  must(child >= 0, "fork");
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (run.pin) stay_on(1);
    here = {};
    try {
      other(std::move(there));
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "the other process: %s\n", failure.what());
      ::_exit(1);
    }
    ::_exit(0);
  }
  there = {};
  const std::int64_t before_ns = spent_ns(RUSAGE_SELF);
  const std::int64_t children_before_ns = spent_ns(RUSAGE_CHILDREN);
  ours(std::move(here));
  const std::int64_t own_ns = spent_ns(RUSAGE_SELF) - before_ns;
  int status = 0;
  must(::waitpid(child, &status, 0) == child && status == 0, "the other process failed");
  return std::max(own_ns, spent_ns(RUSAGE_CHILDREN) - children_before_ns);
}

// GB/s.
struct rates {
  double wall = 0;
  double busy = 0;  // per second of the busier process: what is left of other people's load
};

rates raw_rate(const settings& run, way by, std::size_t size) {
  const std::uint64_t count = std::max<std::uint64_t>(run.megabytes * 1'000'000 / size, 16);
  rates rate;
  // What was lent may not be used again before it is read: as many as the pipe holds, and one.
  const std::uint64_t usual = by == way::vmsplice ? 1 << 20 : 256 << 10;
  const std::uint64_t pipe_bytes = run.raw_bytes != 0 ? run.raw_bytes : usual;
  const std::uint64_t buffers = by == way::vmsplice ? pipe_bytes / size + 2 : 1;
  const auto memory = buffer_of(buffers * size);
  const std::int64_t busy_ns = in_two_processes(
      run, pipe_bytes,
      [&](loose_ends ends) {
        std::byte word{};
        write_all(ends.out.get(), &word, 1);
        for (std::uint64_t i = 0; i < count; ++i) read_all(ends.in.get(), memory.get(), size);
        write_all(ends.out.get(), &word, 1);
      },
      [&](loose_ends ends) {
        std::byte word{};
        read_all(ends.in.get(), &word, 1);
        const std::int64_t begun_ns = bus::steady_ns();
        for (std::uint64_t i = 0; i < count; ++i) {
          if (by == way::write) write_all(ends.out.get(), memory.get(), size);
          if (by == way::vmsplice) {
            lend_all(ends.out.get(), memory.get() + i % buffers * size, size);
          }
        }
        read_all(ends.in.get(), &word, 1);
        const std::int64_t took_ns = bus::steady_ns() - begun_ns;
        rate.wall = static_cast<double>(count * size) / static_cast<double>(took_ns);
      });
  rate.busy = static_cast<double>(count * size) / static_cast<double>(busy_ns);
  return rate;
}

rates our_rate(const settings& run, way by, std::size_t size) {
  const std::uint64_t count = std::max<std::uint64_t>(run.megabytes * 1'000'000 / size, 16);
  const bool lends_pages = by == way::pages;
  const std::uint64_t window = std::max<std::uint64_t>(run.window, 2 * size);
  rates rate;
  const std::int64_t busy_ns = in_two_processes(
      run, 0,
      [&](loose_ends ends) {
        end_of_link self(std::move(ends), lends_pages, window);
        while (self.sink.came < count) self.turn();
        send_all(self, 1, 8, 1);
        while (!self.sink.has_left) self.turn();
      },
      [&](loose_ends ends) {
        end_of_link self(std::move(ends), lends_pages, window);
        touch_memory(self, size, window);
        const std::int64_t begun_ns = bus::steady_ns();
        send_all(self, count, size, run.batch);
        while (self.sink.came == 0) self.turn();
        const std::int64_t took_ns = bus::steady_ns() - begun_ns;
        rate.wall = static_cast<double>(count * size) / static_cast<double>(took_ns);
      });
  rate.busy = static_cast<double>(count * size) / static_cast<double>(busy_ns);
  return rate;
}

// In no directory: it meets whoever is at the other end.
bus::node node_at(loose_ends ends, bus::wait_policy waiting, bool lends_pages = false,
                  std::uint32_t link_depth = 1024) {
  const auto address = transports::pipe_address(
      {.in = ends.in.release(), .out = ends.out.release(), .lends_pages = lends_pages});
  must(address.has_value(), "pipe_address");
  bus::node_options options{.name = "end", .transports = {transports::pipe()}};
  options.directory = bus::no_directory;
  options.peers = {*address};
  options.waiting = waiting;
  options.link_depth = link_depth;
  return bus::node(std::move(options));
}

rates node_rate(const settings& run, std::size_t size) {
  using namespace std::chrono_literals;
  const std::uint64_t count = std::max<std::uint64_t>(run.megabytes * 1'000'000 / size, 16);
  const auto depth = static_cast<std::uint32_t>(
      std::clamp<std::uint64_t>(std::bit_floor(run.window / size), 2, 1024));
  const auto meet = [&](loose_ends ends) {
    return node_at(std::move(ends), bus::wait_policy::spin_then_sleep, true, depth);
  };
  rates rate;
  const std::int64_t busy_ns = in_two_processes(
      run, 0,
      [&](loose_ends ends) {
        bus::node self = meet(std::move(ends));
        auto blocks = self.subscribe<bus::raw>("blocks", {.when_full = bus::drop::none});
        auto done = self.advertise<bus::raw>("done");
        must(done.wait_matched(1, 10s), "nobody there");
        for (std::uint64_t i = 0; i < count; ++i) {
          const auto got = blocks.take(10s);
          must(got && got->bytes().size() == size, "a block is lost");
        }
        must(static_cast<bool>(done.publish(std::span<const std::byte>())), "publish");
        while (done.matched() > 0) self.run_for(1ms);
      },
      [&](loose_ends ends) {
        bus::node self = meet(std::move(ends));
        auto done = self.subscribe<bus::raw>("done");
        auto blocks = self.advertise<bus::raw>("blocks");
        must(blocks.wait_matched(1, 10s) && done.wait_matched(1, 10s), "nobody there");
        const auto fill = [&](bus::loan& one) {
          std::fill(one.bytes().begin(), one.bytes().end(), std::byte{1});
        };
        {
          std::vector<bus::loan> all;
          for (std::uint32_t i = 0; i < 2 * depth; ++i) {
            fill(all.emplace_back(std::move(blocks.loan(size).value())));
          }
        }
        const std::int64_t begun_ns = bus::steady_ns();
        for (std::uint64_t i = 0; i < count; ++i) {
          const auto outcome = blocks.publish_wait(blocks.loan(size).value(), size, 10s);
          must(static_cast<bool>(outcome), "publish");
        }
        must(done.take(10s).has_value(), "nothing came back");
        const std::int64_t took_ns = bus::steady_ns() - begun_ns;
        rate.wall = static_cast<double>(count * size) / static_cast<double>(took_ns);
      });
  rate.busy = static_cast<double>(count * size) / static_cast<double>(busy_ns);
  return rate;
}

double median_us(std::vector<std::int64_t>& trips) {
  std::nth_element(trips.begin(), trips.begin() + static_cast<std::ptrdiff_t>(trips.size() / 2),
                   trips.end());
  return static_cast<double>(trips[trips.size() / 2]) / 1000;
}

double raw_trip(const settings& run, std::size_t size) {
  std::vector<std::int64_t> trips;
  const auto memory = buffer_of(size);
  in_two_processes(
      run, 0,
      [&](loose_ends ends) {
        for (std::uint64_t i = 0; i < run.trips; ++i) {
          read_all(ends.in.get(), memory.get(), size);
          write_all(ends.out.get(), memory.get(), size);
        }
      },
      [&](loose_ends ends) {
        for (std::uint64_t i = 0; i < run.trips; ++i) {
          const std::int64_t begun_ns = bus::steady_ns();
          write_all(ends.out.get(), memory.get(), size);
          read_all(ends.in.get(), memory.get(), size);
          trips.push_back(bus::steady_ns() - begun_ns);
        }
      });
  return median_us(trips);
}

double our_trip(const settings& run, std::size_t size) {
  std::vector<std::int64_t> trips;
  in_two_processes(
      run, 0,
      [&](loose_ends ends) {
        end_of_link self(std::move(ends), false, run.window);
        for (std::uint64_t i = 1; i <= run.trips; ++i) {
          while (self.sink.came < i) self.turn();
          send_all(self, 1, size, 1);
        }
        while (!self.sink.has_left) self.turn();
      },
      [&](loose_ends ends) {
        end_of_link self(std::move(ends), false, run.window);
        for (std::uint64_t i = 1; i <= run.trips; ++i) {
          const std::int64_t begun_ns = bus::steady_ns();
          send_all(self, 1, size, 1);
          while (self.sink.came < i) self.turn();
          trips.push_back(bus::steady_ns() - begun_ns);
        }
      });
  return median_us(trips);
}

struct ball {
  std::uint64_t number;
  std::array<std::byte, 56> rest;
};

double node_trip(const settings& run, bus::wait_policy waiting) {
  using namespace std::chrono_literals;
  std::vector<std::int64_t> trips;
  const auto take = [](bus::subscriber<ball>& from, std::uint64_t number) {
    const auto got = from.take(10s);
    must(got && (*got)->number == number, "the ball is lost");
  };
  in_two_processes(
      run, 0,
      [&](loose_ends ends) {
        bus::node self = node_at(std::move(ends), waiting);
        auto there = self.subscribe<ball>("there");
        auto back = self.advertise<ball>("back");
        must(back.wait_matched(1, 10s), "nobody there");
        for (std::uint64_t i = 1; i <= run.trips; ++i) {
          take(there, i);
          must(static_cast<bool>(back.publish(ball{i, {}})), "publish");
        }
        while (back.matched() > 0) self.run_for(1ms);
      },
      [&](loose_ends ends) {
        bus::node self = node_at(std::move(ends), waiting);
        auto back = self.subscribe<ball>("back");
        auto there = self.advertise<ball>("there");
        must(there.wait_matched(1, 10s) && back.wait_matched(1, 10s), "nobody there");
        for (std::uint64_t i = 1; i <= run.trips; ++i) {
          const std::int64_t begun_ns = bus::steady_ns();
          must(static_cast<bool>(there.publish(ball{i, {}})), "publish");
          take(back, i);
          trips.push_back(bus::steady_ns() - begun_ns);
        }
      });
  return median_us(trips);
}

// --- what is printed

struct series {
  std::vector<double> values;
  [[nodiscard]] double middle() const {
    std::vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
  [[nodiscard]] std::string text() const {
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    return fmt::format("{:6.2f} ({:.2f} to {:.2f})", middle(), *least, *most);
  }
};

struct both_series {
  series wall;
  series busy;
  void add(const rates& one) {
    wall.values.push_back(one.wall);
    busy.values.push_back(one.busy);
  }
};

rates rate_of(const settings& run, way by, std::size_t size) {
  if (by < way::copies) return raw_rate(run, by, size);
  return by == way::nodes ? node_rate(run, size) : our_rate(run, by, size);
}

void print_rates(const settings& run, std::size_t size) {
  std::map<way, both_series> all;
  for (std::uint64_t round = 0; round < run.rounds; ++round) {
    for (const way by : run.ways) {
      all[by].add(rate_of(run, by, size));
    }
  }
  const auto print = [&](const char* what, series both_series::*of) {
    double written = 0;
    double best_raw = 0;
    for (const auto& [by, both] : all) {
      if (by == way::write) written = (both.*of).middle();
      if (by < way::copies) best_raw = std::max(best_raw, (both.*of).middle());
    }
    fmt::print("rate of {} KiB, GB/s{}\n", size / 1024, what);
    for (const auto& [by, both] : all) {
      fmt::print("  {:9} {}   x {:.2f} of write, x {:.2f} of the best\n", name_of(by),
                 (both.*of).text(), (both.*of).middle() / written, (both.*of).middle() / best_raw);
    }
  };
  print("", &both_series::wall);
  print(" of processor time of the busier process", &both_series::busy);
}

void print_trips(const settings& run) {
  series raw;
  series ours;
  series sleepers;
  series nodes;
  for (std::uint64_t round = 0; round < run.rounds; ++round) {
    raw.values.push_back(raw_trip(run, 64));
    ours.values.push_back(our_trip(run, 64));
    sleepers.values.push_back(node_trip(run, bus::wait_policy::sleep));
    nodes.values.push_back(node_trip(run, bus::wait_policy::spin_then_sleep));
  }
  fmt::print("round trip of 64 B, us\n");
  fmt::print("  raw       {}\n", raw.text());
  for (const auto& [name, one] :
       {std::pair("pipe", ours), std::pair("sleepers", sleepers), std::pair("nodes", nodes)}) {
    fmt::print("  {:9} {}   x {:.2f}\n", name, one.text(), one.middle() / raw.middle());
  }
}

}  // namespace

int main(int argc, char** argv) {
  settings run;
  std::vector<std::size_t> sizes = {4096, 65'536, 1'048'576};
  CLI::App app("The pipe transport beside the pipe itself.");
  app.add_option("--rounds", run.rounds, "of each measurement, in turns");
  app.add_option("--megabytes", run.megabytes, "that each rate sends");
  app.add_option("--trips", run.trips, "of each round trip");
  app.add_option("--batch", run.batch, "messages that are sent at once");
  app.add_option("--raw-bytes", run.raw_bytes, "size of the raw pipes");
  app.add_option("--window", run.window, "bytes in flight, or two messages if that is more");
  app.add_option("--sizes", sizes, "of the messages, bytes");
  std::map<std::string, way> by_name;
  for (const way by : all_ways) by_name[name_of(by)] = by;
  app.add_option("--ways", run.ways, "that are measured")
      ->transform(CLI::CheckedTransformer(by_name));
  app.add_flag("--pin", run.pin, "the two processes on cores 0 and 1");
  CLI11_PARSE(app, argc, argv);
  double load[1] = {0};
  static_cast<void>(::getloadavg(load, 1));
  fmt::print("load {:.1f}; {} rounds, medians (least to most)\n", load[0], run.rounds);
  try {
    if (run.pin) stay_on(0);
    print_trips(run);
    for (const std::size_t size : sizes) print_rates(run, size);
  } catch (const std::exception& failure) {
    fmt::print(stderr, "bench_pipes: {}\n", failure.what());
    return 1;
  }
  return 0;
}
