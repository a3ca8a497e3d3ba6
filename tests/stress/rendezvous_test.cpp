// Many nodes on one machine: how they find each other, what that costs, that they cost nothing at
// rest, and that two which share only a directory still share memory. Every node is a process.
#include "bus/node/core.hpp"
#include "tests/no_inotify.hpp"
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <vector>

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

constexpr std::size_t topics_each = 20;
constexpr std::size_t neighbours = 4;

std::string topic_of(std::size_t node, std::size_t topic) {
  return "crowd/n" + std::to_string(node) + "/t" + std::to_string(topic);
}

std::uint64_t descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  // One of them is the iterator's own.
  return static_cast<std::uint64_t>(std::distance(begin(all), end(all))) - 1;
}

// A line of smaps_rollup, in KiB.
std::uint64_t memory_kib(const std::string& what) {
  std::ifstream lines("/proc/self/smaps_rollup");
  std::string word;
  while (lines >> word) {
    std::uint64_t kib = 0;
    if (word == what && lines >> kib) return kib;
  }
  return 0;
}

struct crowd_report {
  std::uint64_t matched_ns = 0;  // steady clock, when all of its publishers and subscribers were
  std::uint64_t done_ns = 0;     // when it had a message on each of its subscriptions
  std::uint64_t descriptors = 0;
  std::uint64_t private_kib = 0;
  std::uint64_t proportional_kib = 0;
  std::uint64_t cpu_ns = 0;
};

std::uint64_t cpu_of_self_ns() {
  timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<std::uint64_t>(used.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(used.tv_nsec);
}

// Node `self` of `count`: advertises 20 topics, and subscribes to 5 topics of each of the next 4.
void one_of_the_crowd(fault::channel& parent, const std::string& directory, std::size_t self,
                      std::size_t count) {
  // Of the processes that were forked before this one, the test's own channels.
  const std::uint64_t inherited = descriptors();
  bus::node node({.name = "n" + std::to_string(self),
                  .transports = {transports::shm()},
                  .directory = directory});
  std::vector<bus::publisher<crew::numbered>> sources;
  std::vector<bus::subscriber<crew::numbered>> heard;
  std::vector<std::size_t> keys;
  for (std::size_t i = 0; i < topics_each; ++i) {
    sources.push_back(node.advertise<crew::numbered>(topic_of(self, i)));
    const std::size_t other = (self + 1 + i % neighbours) % count;
    // The one who stands k places further is asked for its topics k, k+4, k+8 ...: each topic of
    // each node has one subscriber.
    heard.push_back(node.subscribe<crew::numbered>(topic_of(other, i)));
    keys.push_back(other);
  }
  for (auto& one : sources) {
    crew::must(one.wait_matched(1, crew::patience), one.topic() + " was not heard in time");
  }
  for (auto& one : heard) {
    crew::must(one.wait_matched(1, crew::patience), one.pattern() + " did not come in time");
  }
  crowd_report report;
  report.matched_ns = static_cast<std::uint64_t>(bus::steady_ns());
  for (auto& one : sources) {
    crew::must(one.publish(crew::make(1, self)).taken == 1, one.topic() + " was not taken");
  }
  for (std::size_t i = 0; i < topics_each; ++i) {
    const auto got = heard[i].take(crew::patience);
    crew::must(got.has_value(), heard[i].pattern() + " brought nothing");
    static_cast<void>(crew::check(**got, keys[i], 0));
    crew::must(heard[i].accounts().balanced(), heard[i].pattern() + " does not balance");
  }
  report.done_ns = static_cast<std::uint64_t>(bus::steady_ns());
  report.descriptors = descriptors() - inherited;
  report.private_kib = memory_kib("Private_Dirty:") + memory_kib("Private_Clean:");
  report.proportional_kib = memory_kib("Pss:");
  report.cpu_ns = cpu_of_self_ns();
  parent.say(report.matched_ns);
  parent.say(report.done_ns);
  parent.say(report.descriptors);
  parent.say(report.private_kib);
  parent.say(report.proportional_kib);
  parent.say(report.cpu_ns);
  // The others still need its answers.
  while (!parent.has_news()) node.run_for(20ms);
}

crowd_report hear_report(fault::channel& from) {
  crowd_report report;
  report.matched_ns = from.hear(2 * crew::patience);
  report.done_ns = from.hear(crew::patience);
  report.descriptors = from.hear(crew::patience);
  report.private_kib = from.hear(crew::patience);
  report.proportional_kib = from.hear(crew::patience);
  report.cpu_ns = from.hear(crew::patience);
  return report;
}

struct extremes {
  std::uint64_t least = UINT64_MAX;
  std::uint64_t most = 0;
  std::uint64_t sum = 0;
  void add(std::uint64_t one) {
    least = std::min(least, one);
    most = std::max(most, one);
    sum += one;
  }
};

// What a process has used and how often it went to sleep, over all its threads.
struct activity {
  std::uint64_t cpu_ns = 0;
  std::uint64_t sleeps = 0;
  std::uint64_t preemptions = 0;
};

activity activity_of(pid_t process) {
  activity sum;
  const std::string tasks = "/proc/" + std::to_string(process) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(tasks)) {
    // ThreadSanitizer's thread wakes ten times a second: beside it, the main thread alone counts.
    if (contract::has_second_thread && task.path().filename() != std::to_string(process)) continue;
    std::uint64_t cpu_ns = 0;
    std::ifstream(task.path() / "schedstat") >> cpu_ns;
    sum.cpu_ns += cpu_ns;
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      std::istringstream words(line);
      std::string name;
      std::uint64_t value = 0;
      if (!(words >> name >> value)) continue;
      if (name == "voluntary_ctxt_switches:") sum.sleeps += value;
      if (name == "nonvoluntary_ctxt_switches:") sum.preemptions += value;
    }
  }
  return sum;
}

activity activity_of(const std::vector<std::unique_ptr<fault::child>>& all) {
  activity sum;
  for (const auto& one : all) {
    const activity each = activity_of(one->id());
    sum.cpu_ns += each.cpu_ns;
    sum.sleeps += each.sleeps;
    sum.preemptions += each.preemptions;
  }
  return sum;
}

constexpr std::size_t idle_nodes = 100;
constexpr std::size_t idle_topics_each = 10;

// A node that has exchanged a message with its neighbour on each topic, and then waits for ever: in
// take(), or in an event loop.
void idle_node(fault::channel& parent, const std::string& directory, std::size_t self,
               bool on_a_loop) {
  asio::io_context context;
  bus::node node({.name = "idle",
                  .transports = {transports::shm()},
                  .directory = directory,
                  .context = on_a_loop ? &context : nullptr});
  std::vector<bus::publisher<crew::numbered>> sources;
  std::vector<bus::subscriber<crew::numbered>> heard;
  for (std::size_t i = 0; i < idle_topics_each; ++i) {
    sources.push_back(node.advertise<crew::numbered>(topic_of(self, i)));
    heard.push_back(node.subscribe<crew::numbered>(topic_of((self + 1) % idle_nodes, i)));
  }
  const auto until = bus::deadline::after(crew::patience);
  for (std::size_t i = 0; i < idle_topics_each; ++i) {
    while (sources[i].matched() < 1 || heard[i].matched() < 1) {
      crew::must(!until.passed(), "the idle nodes did not match");
      node.run_for(5ms);
    }
    crew::must(sources[i].publish(crew::make(1, self)).taken == 1, "an idle node was not heard");
  }
  for (auto& one : heard) {
    while (!one.try_take()) {
      crew::must(!until.passed(), "an idle node heard nothing");
      node.run_for(5ms);
    }
  }
  parent.say(1);
  if (on_a_loop) {
    context.restart();
    const auto forever = asio::make_work_guard(context);
    context.run();
  } else {
    static_cast<void>(heard.front().take(1h));
  }
}

// New ipc, network, pid and mount namespaces, with a /dev/shm of its own; then the body in a child,
// which is process 1 of the new pid namespace. Returns its exit status.
template <class Body>
void apart(const char* shm_options, Body&& body) {
  crew::must(::unshare(CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS) == 0, "unshare");
  crew::must(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private mounts");
  crew::must(::mount("tmpfs", "/dev/shm", "tmpfs", 0, shm_options) == 0, "mount /dev/shm");
  const pid_t inner = ::fork();
  crew::must(inner >= 0, "fork");
  if (inner == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    int status = 1;
    try {
      body();
      status = 0;
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "apart: %s\n", failure.what());
    }
    ::_exit(status);
  }
  int status = 0;
  while (::waitpid(inner, &status, 0) < 0 && errno == EINTR) {
  }
  crew::must(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the inner process failed");
}

bool may_unshare() {
  const pid_t probe = ::fork();
  if (probe == 0) {
    const int wanted = CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS;
    const bool apart_works =
        ::unshare(wanted) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    ::_exit(apart_works ? 0 : 1);
  }
  int status = 1;
  while (::waitpid(probe, &status, 0) < 0 && errno == EINTR) {
  }
  return status == 0;
}

// Waits until its links file says that shared memory was chosen.
void require_shm_chosen(bus::node& node) {
  const auto chosen = [&] {
    node.run_for(1ms);
    const auto links = node.inside().meeting_place().read_links(node.id());
    if (!links) return false;
    for (const auto& link : links->links()) {
      for (const auto& way : link.candidates()) {
        if (way.scheme() == "shm" && way.chosen()) return true;
      }
    }
    return false;
  };
  crew::must(crew::eventually(chosen, contract::patience), "the links file does not name shm");
}

// Says and hears a hundred messages, and requires that its links file names shared memory.
void converse(const std::string& directory, std::size_t self) {
  bus::node node({.name = "apart" + std::to_string(self),
                  .transports = {transports::shm()},
                  .directory = directory,
                  .memory_bytes_max = 256 << 20});
  auto source = node.advertise<bus::raw>("apart/n" + std::to_string(self));
  auto heard = node.subscribe<bus::raw>("apart/n" + std::to_string(1 - self));
  crew::must(source.wait_matched(1, crew::patience), "nobody listens across the namespaces");
  crew::must(heard.wait_matched(1, crew::patience), "nobody speaks across the namespaces");
  require_shm_chosen(node);
  // A megabyte each, 100 MB in all: more than the 64 MB that containers give /dev/shm.
  constexpr std::size_t bytes = 1 << 20;
  std::uint64_t came = 0;
  const auto take = [&](std::chrono::nanoseconds timeout) {
    const auto got = heard.take(timeout);
    if (!got) return false;
    const auto body = got->bytes();
    const auto mark = static_cast<std::byte>(++came);
    crew::must(body.size() == bytes && body.front() == mark && body.back() == mark, "torn");
    return true;
  };
  for (std::uint64_t i = 1; i <= 100; ++i) {
    auto memory = source.loan(bytes);
    crew::must(memory.has_value(), "no memory to lend");
    std::fill_n(memory->bytes().data(), bytes, static_cast<std::byte>(i));
    crew::must(source.publish(std::move(*memory), bytes).taken == 1, "not taken");
    while (take(0ns)) {
    }
  }
  while (came < 100) crew::must(take(crew::patience), "a message is missing");
}

}  // namespace

TEST_CASE("200 nodes with 20 topics each come up, match and exchange") {
  const tests::scratch_directory scratch;
  constexpr std::size_t count = 200;
  const auto began = static_cast<std::uint64_t>(bus::steady_ns());
  std::vector<std::unique_ptr<fault::child>> nodes;
  for (std::size_t i = 0; i < count; ++i) {
    nodes.push_back(std::make_unique<fault::child>(
        [&, i](fault::channel& parent) { one_of_the_crowd(parent, scratch.path(), i, count); }));
  }
  extremes matched_ms;
  extremes done_ms;
  extremes fds;
  extremes own_kib;
  extremes shared_kib;
  extremes cpu_ms;
  for (const auto& one : nodes) {
    const crowd_report report = hear_report(one->pipe());
    matched_ms.add((report.matched_ns - began) / 1'000'000);
    done_ms.add((report.done_ns - began) / 1'000'000);
    fds.add(report.descriptors);
    own_kib.add(report.private_kib);
    shared_kib.add(report.proportional_kib);
    cpu_ms.add(report.cpu_ns / 1'000'000);
  }
  for (const auto& one : nodes) one->pipe().say(0);
  for (const auto& one : nodes) CHECK(one->wait() == 0);
  std::printf(
      "| %zu nodes x %zu topics | matched %.2f s | exchanged %.2f s | cpu %.2f s in all | "
      "fds %llu..%llu | own memory %llu..%llu KiB | Pss %llu KiB |\n",
      count, topics_each, static_cast<double>(matched_ms.most) / 1e3,
      static_cast<double>(done_ms.most) / 1e3, static_cast<double>(cpu_ms.sum) / 1e3,
      static_cast<unsigned long long>(fds.least), static_cast<unsigned long long>(fds.most),
      static_cast<unsigned long long>(own_kib.least), static_cast<unsigned long long>(own_kib.most),
      static_cast<unsigned long long>(shared_kib.sum / count));
  // All have left, and nobody's files stayed.
  for (const auto& entry : std::filesystem::directory_iterator(scratch.path())) {
    const std::string name = entry.path().filename().string();
    CHECK((name == "schemas" || (name == "waiting" && std::filesystem::is_empty(entry.path()))));
  }
}

TEST_CASE("100 nodes with 1,000 matched topics at rest make no system call and use no time") {
  const tests::scratch_directory scratch;
  constexpr std::size_t count = idle_nodes;
  // With inotify, and where the user has no instance left.
  const bool at_pipes = GENERATE(false, true);
  std::optional<tests::no_inotify> taken;
  if (at_pipes) taken.emplace();
  if (taken && !*taken) return;
  std::vector<std::unique_ptr<fault::child>> nodes;
  for (std::size_t i = 0; i < count; ++i) {
    nodes.push_back(std::make_unique<fault::child>(
        [&, i](fault::channel& parent) { idle_node(parent, scratch.path(), i, i % 2 == 1); }));
  }
  for (const auto& one : nodes) REQUIRE(one->pipe().hear(crew::patience) == 1);
  // At rest: nobody woke for longer than a write of a file may be put off; that is the condition.
  constexpr std::chrono::nanoseconds rest(2 * bus::paced_file::pause_max_ns);
  activity before = activity_of(nodes);
  auto rested = bus::deadline::after(rest);
  REQUIRE(crew::eventually([&] {
    const activity now = activity_of(nodes);
    if (now.sleeps != before.sleeps) {
      before = now;
      rested = bus::deadline::after(rest);
    }
    return rested.passed();
  }));
  const std::int64_t began = bus::steady_ns();
  std::this_thread::sleep_for(5s);  // the time over which it is measured
  const activity after = activity_of(nodes);
  const auto elapsed = static_cast<double>(bus::steady_ns() - began);
  const double share = static_cast<double>(after.cpu_ns - before.cpu_ns) / elapsed;
  std::printf("| %zu idle nodes%s, %zu topics | %.1f s | %.6f %% of a core | %llu wakeups |\n",
              count, at_pipes ? " at pipes" : "", count * idle_topics_each, elapsed / 1e9,
              share * 100, static_cast<unsigned long long>(after.sleeps - before.sleeps));
  // Who never wakes makes no system call.
  CHECK(after.sleeps == before.sleeps);
  CHECK(after.preemptions == before.preemptions);
  CHECK(share < 0.001);
  for (const auto& one : nodes) {
    one->kill();
    CHECK(one->wait() == -SIGKILL);
  }
}

TEST_CASE("two processes that share only the bus directory link by shared memory") {
  if (!may_unshare()) {
    WARN("not shown here: this user may not make namespaces (run as root)");
    CHECK(::geteuid() != 0);
    return;
  }
  const tests::scratch_directory scratch;
  const std::string& directory = scratch.path();
  fault::child left([&](fault::channel&) { apart("size=64m", [&] { converse(directory, 0); }); });
  fault::child right([&](fault::channel&) { apart("size=4k", [&] { converse(directory, 1); }); });
  CHECK(left.wait() == 0);
  CHECK(right.wait() == 0);
}
