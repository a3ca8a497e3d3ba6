// Lanes or ring, measured: the workloads, interleaved round by round, and the final table.
//
// usage: prototype_lanes [--json] [--quick] [--pin] [--rounds N] [--asymmetric] [--yields N]
//                        [--only rungs|speed|trip|fan|cost|faults]...
//
// All processes are real (fork). Nothing is pinned unless --pin says so. Every delivered message is
// checked (sequence rising, sum of all its words), and every run ends with an account: what was
// pushed to a peer is what it received plus what was counted as lost; a difference aborts.
#include "tests/bench/prototype_lanes.hpp"

#include "tests/bench/prototype_rungs.hpp"

#include <charconv>
#include <csignal>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace prototype {
namespace {

struct settings {
  bool json = false, pin = false;
  u64 scale = 4;  // messages are multiplied by it; --quick makes it 1
  u32 rounds = 5;
  std::set<std::string> only;
};

// What the processes of one run tell one another outside of the thing measured.
struct scoreboard {
  sem_t ready, done;
  std::array<sem_t, peers_max> go;
  std::array<std::atomic<u64>, peers_max> received, lost;
};

mapped<scoreboard> new_scoreboard() {
  const memory page(sizeof(scoreboard));
  auto board = page.map<scoreboard>(true);
  ::sem_init(&board->ready, 1, 0);
  ::sem_init(&board->done, 1, 0);
  for (sem_t& each : board->go) ::sem_init(&each, 1, 0);
  return board;
}

void fill(std::byte* slot, u32 payload, u64 sequence, bool last) {
  auto* frame = reinterpret_cast<frame_layout*>(slot);
  frame->sequence = sequence;
  frame->pattern = sequence * 0x9e3779b97f4a7c15U;
  frame->last = last ? 1 : 0;
  std::fill_n(reinterpret_cast<u64*>(slot + 64), payload / 8, frame->pattern);
}

// Reads every word of a sample and holds it against its frame.
class checker {
 public:
  explicit checker(u32 payload) : words_(payload / 8) {}
  bool operator()(const std::byte* slot) {
    const auto* frame = reinterpret_cast<const frame_layout*>(slot);
    const auto* at = reinterpret_cast<const u64*>(slot + 64);
    u64 sum = 0;
    for (u32 i = 0; i < words_; ++i) sum += at[i];
    require(sum == frame->pattern * words_, "a torn sample");
    require(frame->sequence >= next_, "a sample out of order");
    next_ = frame->sequence + 1;
    ++received;
    last = frame->last != 0;
    return true;
  }
  u64 received = 0;
  bool last = false;

 private:
  u32 words_;
  u64 next_ = 0;
};

struct run_options {
  shape of;
  u64 messages = 0;
  u32 batch = 1;
  bool filtered = false;  // every other message is for one peer only
  u32 spins = 0;          // looks before sleeping; 0 where there are more processes than cores
  bool pin = false;
};

std::vector<route> routes_to(u32 peers) {
  std::vector<route> all(peers + 1);
  for (u32 p = 0; p < peers; ++p) {
    all[0].peers.push_back(p);
    all[0].mask |= u64{1} << p % 64;
    all[1 + p] = {{p}, u64{1} << p % 64};
  }
  return all;
}

template <typename Receiver, typename Visit>
void read_until_last(Receiver& inbox, const wires& shared, u32 me, u32 spins, Visit visit,
                     const checker& check) {
  const auto bell = shared.bells[me].map<bell_layout>(true);
  const auto home = shared.home.map<bell_layout>(true);
  while (!check.last) {
    wait_bell(*bell, spins, [&] { return inbox.readable(); });
    inbox.drain(visit);
    fence_publisher();  // pairs with: the publisher's wait_bell
    ring_bell(*home);
  }
}

template <typename Candidate>
void subscribe(const wires& shared, const run_options& run, u32 me, scoreboard& board) {
  typename Candidate::receiver inbox(shared, run.of, me);
  checker check(run.of.payload);
  ::sem_post(&board.ready);
  read_until_last(
      inbox, shared, me, run.spins, [&](const std::byte* at) { return check(at); }, check);
  board.received[me] = check.received;
  board.lost[me] = inbox.lost();
}

// Publishes the messages [next, end), waiting where there is no room, and counts what was pushed to
// each peer. Ends early, with what it reached, where waiting can never help: everybody has read
// everything and still there is no slot.
template <typename Sender>
u64 publish(Sender& outbox, const run_options& run, const std::vector<route>& routes, u64 next,
            u64 end, std::vector<u64>& pushed) {
  const u32 peers = run.of.peers;
  const auto stalled = [&] {
    for (u32 p = 0; p < peers; ++p)
      if (!outbox.caught_up(p)) return false;
    return true;
  };
  for (u64 n = next; n < end;) {
    for (u32 k = 0; k < run.batch && n < end; ++k, ++n) {
      const bool last = n + 1 == run.messages;
      const route& to = routes[run.filtered && n % 2 == 1 && !last ? 1 + n / 2 % peers : 0];
      if (!outbox.room(to)) {
        outbox.commit();
        wait_bell(outbox.before_wait(), run.spins, [&] { return outbox.room(to) || stalled(); });
        if (!outbox.room(to)) return n;
      }
      const u32 slot = outbox.ledger.lend();
      fill(outbox.ledger.at(slot), run.of.payload, n, last);
      outbox.push(slot, to);
      for (const u32 p : to.peers) ++pushed[p];
    }
    outbox.commit();
  }
  return end;
}

struct throughput {
  double delivered = 0;     // per second, all subscribers together
  double publisher_ns = 0;  // CPU time of the publisher per message
};

u64 cpu_ns() {
  timespec at{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
  return static_cast<u64>(at.tv_sec) * 1'000'000'000U + static_cast<u64>(at.tv_nsec);
}

template <typename Candidate>
throughput measure_throughput(const run_options& run) {
  const wires shared = Candidate::wire(run.of);
  const auto board = new_scoreboard();
  std::vector<pid_t> children;
  for (u32 p = 0; p < run.of.peers; ++p)
    children.push_back(spawn([&] {
      stay_on(run.pin && run.of.peers == 1 ? 1 : -1);
      subscribe<Candidate>(shared, run, p, *board);
    }));
  stay_on(run.pin && run.of.peers == 1 ? 0 : -1);
  typename Candidate::sender outbox(shared, run.of);
  for (u32 p = 0; p < run.of.peers; ++p) wait_semaphore(board->ready);
  const u64 begin = now_ns(), cpu = cpu_ns();
  std::vector<u64> pushed(run.of.peers);
  publish(outbox, run, routes_to(run.of.peers), 0, run.messages, pushed);
  const u64 spent = cpu_ns() - cpu;
  for (const pid_t child : children) join(child);
  const double seconds = static_cast<double>(now_ns() - begin) * 1e-9;
  u64 total = 0;
  for (u32 p = 0; p < run.of.peers; ++p) {
    require(board->received[p] == pushed[p] && board->lost[p] == 0, "an account does not close");
    total += pushed[p];
  }
  outbox.reclaim();
  require(outbox.ledger.in_use() == 0, "slots missing at the end");
  return {static_cast<double>(total) / seconds,
          static_cast<double>(spent) / static_cast<double>(run.messages)};
}

// What publishing itself costs: bursts into empty queues while every subscriber is held at a gate,
// reclaiming included, wakeups excluded. Nanoseconds per message.
template <typename Candidate>
double measure_publish_cost(const run_options& run, u32 bursts) {
  constexpr u64 burst = 512;
  require(run.of.peers > 0, "nobody to publish to");
  const wires shared = Candidate::wire(run.of);
  const auto board = new_scoreboard();
  std::vector<pid_t> children;
  for (u32 p = 0; p < run.of.peers; ++p)
    children.push_back(spawn([&] {
      typename Candidate::receiver inbox(shared, run.of, p);
      checker check(run.of.payload);
      for (u32 i = 0; i < bursts; ++i) {
        wait_semaphore(board->go[p]);
        while (inbox.readable()) inbox.drain([&](const std::byte* at) { return check(at); });
        ::sem_post(&board->done);
      }
    }));
  typename Candidate::sender outbox(shared, run.of);
  const std::vector<route> routes = routes_to(run.of.peers);
  std::vector<double> costs;
  for (u32 i = 0; i < bursts; ++i) {
    const u64 begin = now_ns();
    outbox.reclaim();
    for (u64 n = 0; n < burst;) {
      for (u32 k = 0; k < run.batch; ++k, ++n) {
        const route& to = routes[run.filtered && n % 2 == 1 ? 1 + n / 2 % run.of.peers : 0];
        require(outbox.room(to), "a burst found no room");
        const u32 slot = outbox.ledger.lend();
        fill(outbox.ledger.at(slot), run.of.payload, i * burst + n, false);
        outbox.push(slot, to);
      }
      outbox.commit();
    }
    costs.push_back(static_cast<double>(now_ns() - begin) / static_cast<double>(burst));
    for (u32 p = 0; p < run.of.peers; ++p) ::sem_post(&board->go[p]);
    for (u32 p = 0; p < run.of.peers; ++p) wait_semaphore(board->done);
  }
  for (const pid_t child : children) join(child);
  std::sort(costs.begin(), costs.end());
  return costs[costs.size() / 2];
}

// Round trip, both sides spinning, over one publisher in each direction. Microseconds, median of
// means over 100.
template <typename Candidate>
double measure_round_trip(u64 rounds, bool pin) {
  const shape of{};
  const std::array<wires, 2> ways{Candidate::wire(of), Candidate::wire(of)};
  const u64 turns = rounds / 100 * 100;
  std::vector<double> times;
  const auto play = [&](u32 me) {
    stay_on(pin ? static_cast<int>(me) : -1);
    typename Candidate::sender outbox(ways[me], of);
    typename Candidate::receiver inbox(ways[1 - me], of, 0);
    const std::vector<route> routes = routes_to(1);
    checker check(of.payload);
    const auto send = [&](u64 n) {
      require(outbox.room(routes[0]), "a ping-pong found no room");
      const u32 slot = outbox.ledger.lend();
      fill(outbox.ledger.at(slot), of.payload, n, false);
      outbox.push(slot, routes[0]);
      outbox.commit();
    };
    u64 begin = now_ns();
    for (u64 turn = 0; turn < turns; ++turn) {
      if (me == 0) send(turn);
      while (!inbox.readable()) pause_cpu();
      inbox.drain([&](const std::byte* at) { return check(at); });
      if (me == 1) send(turn);
      if (turn % 100 == 99) {
        const u64 end = now_ns();
        times.push_back(static_cast<double>(end - begin) * 1e-5);
        begin = end;
      }
    }
  };
  const pid_t child = spawn([&] { play(1); });
  play(0);
  join(child);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// ---- behaviour ----------------------------------------------------------------------------------

using findings = std::map<std::string, u64>;

// Two subscribers of 64-byte messages: the first is odd, the second healthy.
template <typename Candidate>
class pair_of_subscribers {
 public:
  // keep(n): whether the odd one keeps its n-th sample for ever. It may also never return.
  pair_of_subscribers(run_options wanted, const std::function<bool(u64)>& keep)
      : run(wanted),
        shared(Candidate::wire(run.of)),
        board(new_scoreboard()),
        routes(routes_to(2)),
        pushed(2) {
    odd = spawn([&] {
      typename Candidate::receiver inbox(shared, run.of, 0);
      checker check(run.of.payload);
      ::sem_post(&board->ready);
      const auto visit = [&](const std::byte* at) { return check(at) && !keep(check.received); };
      read_until_last(inbox, shared, 0, 0, visit, check);
      board->received[0] = check.received;
      board->lost[0] = inbox.lost();
    });
    healthy = spawn([&] { subscribe<Candidate>(shared, run, 1, *board); });
    outbox = std::make_unique<typename Candidate::sender>(shared, run.of);
    for (int i = 0; i < 2; ++i) wait_semaphore(board->ready);
  }
  u64 publish_to(const std::vector<route>& by, u64 end) {
    return next = publish(*outbox, run, by, next, end, pushed);
  }
  void wait_until_read(u32 p) {
    wait_bell(outbox->before_wait(), 0, [&] { return outbox->caught_up(p); });
  }
  void end_healthy() {
    join(healthy);
    require(board->received[1] == pushed[1] && board->lost[1] == 0, "the healthy one lost");
  }

  run_options run;
  wires shared;
  mapped<scoreboard> board;
  std::vector<route> routes;
  std::vector<u64> pushed;
  u64 next = 0;
  pid_t odd = -1, healthy = -1;
  std::unique_ptr<typename Candidate::sender> outbox;
};

constexpr shape two_of_whom_one_gates{
    .payload = 64, .slots = 2 * window + 64, .peers = 2, .gates = 2};

// Until it is killed.
[[noreturn]] void stand_still() {
  for (;;) ::pause();
}

// The odd one keeps 100 samples and is killed; the publisher learns of it from a pidfd, later.
template <typename Candidate>
findings behave_killed(u64 messages) {
  mapped<sem_t> kept = memory(sizeof(sem_t)).map<sem_t>(true);
  ::sem_init(kept.get(), 1, 0);
  pair_of_subscribers<Candidate> two({.of = two_of_whom_one_gates, .messages = messages},
                                     [&](u64 n) {
                                       if (n == 100) ::sem_post(kept.get());
                                       if (n == 100) stand_still();
                                       return true;
                                     });
  two.publish_to(two.routes, 1000);
  wait_semaphore(*kept);
  const int death = static_cast<int>(::syscall(SYS_pidfd_open, two.odd, 0));
  ::kill(two.odd, SIGKILL);
  findings found{{"pinned at death", two.outbox->held(0)}};
  two.publish_to(two.routes, messages / 2);
  found["pinned before the news"] = two.outbox->held(0);
  found["free slots, least"] = two.outbox->ledger.low_water();
  pollfd event{death, POLLIN, 0};
  require(::poll(&event, 1, -1) == 1, "poll of a pidfd");
  two.outbox->drop(0);
  found["pinned after the news"] = two.outbox->held(0);
  two.publish_to({two.routes[2]}, messages);
  two.end_healthy();
  two.outbox->reclaim();
  require(two.outbox->ledger.in_use() == 0, "the dead one still holds slots");
  ::waitpid(two.odd, nullptr, 0);
  ::close(death);
  return found;
}

// The odd one is stopped while half of the messages are for one of the two only, then continued.
template <typename Candidate>
findings behave_stopped(u64 messages) {
  pair_of_subscribers<Candidate> two(
      {.of = two_of_whom_one_gates, .messages = messages, .filtered = true},
      [](u64) { return false; });
  two.publish_to(two.routes, 1000);
  two.wait_until_read(0);
  ::kill(two.odd, SIGSTOP);
  require(::waitpid(two.odd, nullptr, WUNTRACED) == two.odd, "waitpid of a stopped child");
  two.publish_to(two.routes, messages - 1);
  findings found{{"pinned while stopped", two.outbox->held(0)},
                 {"free slots, least", two.outbox->ledger.low_water()}};
  ::kill(two.odd, SIGCONT);
  two.wait_until_read(0);
  two.publish_to(two.routes, messages);
  two.end_healthy();
  join(two.odd);
  found["lost in truth"] = two.pushed[0] - two.board->received[0];
  found["lost, sender's count"] = two.outbox->lost(0);
  found["lost, receiver's count"] = two.board->lost[0];
  return found;
}

// The odd one keeps its first sample and reads on; the publisher waits for both.
template <typename Candidate>
findings behave_holding(u64 messages) {
  pair_of_subscribers<Candidate> two(
      {.of = {.payload = 64, .slots = 2 * window + 64, .peers = 2}, .messages = messages},
      [](u64 n) { return n == 1; });
  findings found{{"published", two.publish_to(two.routes, messages)}};
  found["wanted"] = messages;
  two.wait_until_read(0);
  two.wait_until_read(1);
  two.outbox->reclaim();
  found["pinned at the end"] = two.outbox->ledger.in_use();
  for (const pid_t child : {two.odd, two.healthy}) {
    ::kill(child, SIGKILL);  // a stalled publisher never sends the last message
    ::waitpid(child, nullptr, 0);
  }
  return found;
}

// ---- the table ----------------------------------------------------------------------------------

class table {
 public:
  void add(const std::string& work, const std::string& unit, const std::string& who, double value) {
    const std::string key = work + "|" + unit;
    if (rows_.find(key) == rows_.end()) order_.push_back(key);
    auto& row = rows_[key];
    const auto at = std::find_if(row.begin(), row.end(), [&](auto& e) { return e.who == who; });
    if (at == row.end())
      row.push_back({who, {value}});
    else
      at->values.push_back(value);
  }
  void print(bool json) const {
    for (const std::string& key : order_) {
      const std::size_t bar = key.find('|');
      const std::string work = key.substr(0, bar), unit = key.substr(bar + 1);
      if (!json) std::printf("\n%s [%s]\n", work.c_str(), unit.c_str());
      for (const cell& each : rows_.at(key)) print(json, work, unit, each, rows_.at(key).front());
    }
  }

 private:
  struct cell {
    std::string who;
    std::vector<double> values;
  };
  static double median(std::vector<double> of) {
    std::sort(of.begin(), of.end());
    return of[of.size() / 2];
  }
  // The ratio is the median of the rounds' ratios to the first row: drift of the host cancels out.
  // There is none to a row that counts nothing.
  static void print(bool json, const std::string& work, const std::string& unit, const cell& each,
                    const cell& first) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < each.values.size(); ++i)
      if (first.values[i] > 0) ratios.push_back(each.values[i] / first.values[i]);
    char ratio[32] = "null";
    if (ratios.size() == each.values.size())
      std::snprintf(ratio, sizeof(ratio), "%.3f", median(ratios));
    const auto [least, most] = std::minmax_element(each.values.begin(), each.values.end());
    if (json)
      std::printf(
          "{\"work\":\"%s\",\"unit\":\"%s\",\"who\":\"%s\",\"median\":%g,\"min\":%g,"
          "\"max\":%g,\"ratio\":%s,\"rounds\":%zu}\n",
          work.c_str(), unit.c_str(), each.who.c_str(), median(each.values), *least, *most, ratio,
          each.values.size());
    else if (unit == "count" || unit == "KiB")
      std::printf("  %-22s %10.0f\n", each.who.c_str(), each.values.front());
    else
      std::printf("  %-22s %10.3f  (%.3f .. %.3f)   x %s\n", each.who.c_str(), median(each.values),
                  *least, *most, ratio);
  }
  std::vector<std::string> order_;
  std::map<std::string, std::vector<cell>> rows_;
};

constexpr const char* ring_name = "a: one ring";
constexpr const char* lanes_name = "b: lanes";
constexpr const char* lanes_each_name = "b: lanes, atomic each";

void run_rungs(const settings& with, table& results) {
  const u32 trips = static_cast<u32>(5000 * with.scale);
  const auto one = [&](const char* who, rung kind) {
    const rung_result got = measure_rung(kind, trips, with.pin);
    results.add("round trip asleep", "us", who, got.round_trip_us);
    if (!got.remark.empty()) std::fprintf(stderr, "%s: %s\n", who, got.remark.c_str());
  };
  one("semaphore", rung::semaphore);
  one("pidfd signal, epoll", rung::signal);
  one("eventfd, epoll", rung::event);
}

void run_speed(const settings& with, table& results) {
  for (const u32 payload : {64U, 1024U}) {
    for (const u32 batch : {1U, 16U, 64U}) {
      const u64 messages = (payload == 64 ? 500'000 : 150'000) * with.scale;
      const std::string work =
          std::to_string(payload) + " B, 1 to 1, batch " + std::to_string(batch);
      run_options run{.of = {.payload = payload},
                      .messages = messages,
                      .batch = batch,
                      .spins = 2000,
                      .pin = with.pin};
      const auto add = [&](const char* who, double value) {
        results.add(work, "M/s", who, value * 1e-6);
      };
      add("bare ring", measure_bare_ring(payload, batch, messages, with.pin));
      add(ring_name, measure_throughput<ring_candidate>(run).delivered);
      add(lanes_name, measure_throughput<lanes_candidate>(run).delivered);
      run.of.release_each = true;
      add(lanes_each_name, measure_throughput<lanes_candidate>(run).delivered);
    }
  }
}

void run_trip(const settings& with, table& results) {
  const u32 trips = static_cast<u32>(50'000 * with.scale);
  const auto add = [&](const char* who, double us) {
    results.add("round trip 64 B spinning", "us", who, us);
  };
  add("cache line", measure_cache_line_us(trips, with.pin));
  add(ring_name, measure_round_trip<ring_candidate>(trips, with.pin));
  add(lanes_name, measure_round_trip<lanes_candidate>(trips, with.pin));
}

void run_fan(const settings& with, table& results, const std::string& remark, bool filtered) {
  for (const u32 peers : {2U, 4U, 16U}) {
    for (const u32 batch : {1U, 64U}) {
      const std::string work =
          "1 KiB, 1 to " + std::to_string(peers) + remark + ", batch " + std::to_string(batch);
      const run_options run{.of = {.payload = 1024, .peers = peers},
                            .messages = 300'000 * with.scale / peers,
                            .batch = batch,
                            .filtered = filtered};
      const throughput a = measure_throughput<ring_candidate>(run);
      const throughput b = measure_throughput<lanes_candidate>(run);
      results.add(work, "M delivered/s", ring_name, a.delivered * 1e-6);
      results.add(work, "M delivered/s", lanes_name, b.delivered * 1e-6);
      results.add(work, "publisher CPU ns/message", ring_name, a.publisher_ns);
      results.add(work, "publisher CPU ns/message", lanes_name, b.publisher_ns);
    }
  }
}

void run_fans(const settings& with, table& results) {
  run_fan(with, results, "", false);
  run_fan(with, results, ", half for one only", true);
  if (habit.yields == 0) return;
  const habits usual = std::exchange(habit, {.asymmetric = habit.asymmetric, .yields = 0});
  run_fan(with, results, ", asleep at once", false);
  habit = usual;
}

void run_cost(const settings& with, table& results) {
  const u32 bursts = static_cast<u32>(50 * with.scale);
  for (const u32 batch : {1U, 64U}) {
    std::map<u32, std::pair<double, double>> costs;
    for (const u32 peers : {1U, 2U, 4U, 16U, 200U}) {
      const run_options run{.of = {.payload = 1024, .peers = peers}, .batch = batch};
      const u32 times = peers == 200 ? bursts / 5 : bursts;
      costs[peers] = {measure_publish_cost<ring_candidate>(run, times),
                      measure_publish_cost<lanes_candidate>(run, times)};
      const std::string work =
          "publish 1 KiB to " + std::to_string(peers) + ", batch " + std::to_string(batch);
      results.add(work, "ns/message", ring_name, costs[peers].first);
      results.add(work, "ns/message", lanes_name, costs[peers].second);
    }
    const std::string work = "each further peer (1 to 16), batch " + std::to_string(batch);
    results.add(work, "ns", ring_name, (costs[16].first - costs[1].first) / 15);
    results.add(work, "ns", lanes_name, (costs[16].second - costs[1].second) / 15);
  }
}

template <typename Candidate>
void add_findings(const settings& with, table& results, const char* who) {
  const u64 messages = 50'000 * with.scale;
  const auto add = [&](const char* work, const findings& found) {
    for (const auto& [what, count] : found)
      results.add(std::string(work) + ": " + what, "count", who, static_cast<double>(count));
  };
  add("killed, 100 kept", behave_killed<Candidate>(messages));
  add("stopped", behave_stopped<Candidate>(messages));
  add("keeps one old sample", behave_holding<Candidate>(250'000 * with.scale));
}

std::size_t pages(std::size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

void add_memory(table& results) {
  for (const u32 peers : {1U, 16U, 200U}) {
    const std::string work = "memory of the links to " + std::to_string(peers) + ", arena left out";
    const std::size_t rings = (peers + 63) / 64;  // the mask has 64 bits
    results.add(work, "KiB", ring_name,
                static_cast<double>(rings * pages(sizeof(ring_layout)) +
                                    peers * pages(sizeof(pins_layout)) + rings * window * 4) /
                    1024);
    results.add(
        work, "KiB", lanes_name,
        static_cast<double>(peers * (pages(sizeof(lane_layout)) + pages(sizeof(answers_layout)) +
                                     lane_sender::private_bytes())) /
            1024);
  }
}

int run_all(const settings& with) {
  table results;
  const auto wants = [&](const char* what) {
    return with.only.empty() || with.only.count(what) != 0;
  };
  for (u32 round = 0; round < with.rounds; ++round) {
    std::fprintf(stderr, "round %u of %u\n", round + 1, with.rounds);
    if (wants("rungs")) run_rungs(with, results);
    if (wants("trip")) run_trip(with, results);
    if (wants("speed")) run_speed(with, results);
    if (wants("fan")) run_fans(with, results);
    if (wants("cost")) run_cost(with, results);
  }
  if (wants("faults")) {
    add_findings<ring_candidate>(with, results, ring_name);
    add_findings<lanes_candidate>(with, results, lanes_name);
    add_memory(results);
  }
  results.print(with.json);
  return 0;
}

}  // namespace
}  // namespace prototype

int main(int argc, char** argv) {
  const auto number = [](const char* of) {
    unsigned value = 0;
    std::from_chars(of, of + std::strlen(of), value);
    return value;
  };
  prototype::register_publisher();
  prototype::settings with;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--json")
      with.json = true;
    else if (word == "--quick")
      with.scale = 1;
    else if (word == "--pin")
      with.pin = true;
    else if (word == "--asymmetric")
      prototype::habit.asymmetric = true;
    else if (word == "--yields" && i + 1 < argc)
      prototype::habit.yields = number(argv[++i]);
    else if (word == "--rounds" && i + 1 < argc)
      with.rounds = number(argv[++i]);
    else if (word == "--only" && i + 1 < argc)
      with.only.insert(argv[++i]);
    else
      return std::fprintf(stderr, "prototype_lanes: unknown option %s\n", word.c_str()), 2;
  }
  return prototype::run_all(with);
}
