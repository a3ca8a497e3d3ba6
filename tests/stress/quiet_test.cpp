// What the kernel is not asked to do: strace watches whole processes while messages pass. And what
// an idle link holds.
//
// The watched make themselves known by a call that nobody else makes (getppid), before and after.
#include "bus/bus.hpp"
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
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/prctl.h>

#include <catch2/catch.hpp>

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr bool traceable = !contract::has_second_thread;  // which wakes ten times a second

bus::node_options options(const std::string& directory, const std::string& name,
                          bus::wait_policy waiting) {
  bus::node_options made{.name = name, .transports = {transports::shm()}, .directory = directory};
  made.waiting = waiting;
  return made;
}

// Whether a debugger holds every thread of the process.
bool is_traced(pid_t process) {
  for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(process) + "/task")) {
    std::ifstream lines(task.path() / "status");
    std::string word;
    long tracer = 0;
    while (lines >> word) {
      if (word == "TracerPid:") lines >> tracer;
    }
    if (tracer == 0) return false;
  }
  return true;
}

// strace on a process that allows it, from construction until lines() is asked.
class tracer {
 public:
  tracer(pid_t whom, std::string file) : whom_(whom), file_(std::move(file)) {
    pid_ = ::fork();
    crew::must(pid_ >= 0, "fork");
    if (pid_ == 0) {
      const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
      ::dup2(nowhere, 2);
      ::execlp("strace", "strace", "-f", "-q", "-o", file_.c_str(), "-p",
               std::to_string(whom).c_str(), nullptr);
      ::_exit(127);
    }
    crew::must(crew::eventually([&] { return is_traced(whom_); }, 20s),
               "strace cannot attach; is it installed, and may it?");
  }
  tracer(const tracer&) = delete;
  tracer& operator=(const tracer&) = delete;
  ~tracer() { stop(); }

  // The calls of the process's main thread between its two getppid().
  [[nodiscard]] std::vector<std::string> lines() {
    stop();
    std::vector<std::string> found;
    std::ifstream all(file_);
    const std::string own = std::to_string(whom_);
    int marks = 0;
    for (std::string line; std::getline(all, line);) {
      std::istringstream words(line);
      std::string thread;
      words >> thread;
      if (thread != own) continue;
      if (line.find("getppid()") != std::string::npos) {
        ++marks;
      } else if (marks == 1) {
        found.push_back(line);
      }
    }
    crew::must(marks == 2, "the watched did not make itself known twice");
    return found;
  }

 private:
  void stop() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGINT);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
  }

  pid_t whom_;
  std::string file_;
  pid_t pid_ = -1;
};

std::size_t count(const std::vector<std::string>& lines, const std::string& what) {
  return static_cast<std::size_t>(
      std::count_if(lines.begin(), lines.end(),
                    [&](const std::string& line) { return line.find(what) != std::string::npos; }));
}

// Without what a spinner does that finds nothing for long: it lets others run.
std::vector<std::string> without_yields(std::vector<std::string> lines) {
  std::erase_if(
      lines, [](const std::string& line) { return line.find("sched_yield") != std::string::npos; });
  return lines;
}

// What a test says to both, and hears from both, in this order.
enum word : std::uint64_t { ready = 1, drain, warm, go, done };

// The talker spins, so that it never needs to be woken itself.
struct passing {
  bus::wait_policy hearer_waits;
  std::uint64_t messages;
  std::int64_t work_ns;  // what the hearer does with each message
};

// What is still to be written into the bus directory is written meanwhile, and heard of.
void settle(bus::node& node) {
  node.run_for(std::chrono::nanoseconds(2 * bus::paced_file::pause_max_ns));
}

// Fills the link once, so that every slot exists; then, when told, publishes.
void talk(fault::channel& parent, const std::string& directory, const passing& what) {
  ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
  bus::node node(options(directory, "talker", bus::wait_policy::spin));
  auto source = node.advertise<crew::numbered>("quiet");
  crew::must(source.wait_matched(1, crew::patience), "nobody listens");
  std::uint64_t sent = 0;
  while (source.has_room()) static_cast<void>(source.publish(crew::make(++sent, 1)));
  parent.say(ready);
  parent.say(sent);
  crew::must(source.wait_room(crew::patience), "the first ones stayed");
  settle(node);
  parent.say(warm);
  static_cast<void>(parent.hear(crew::patience));
  static_cast<void>(::getppid());
  for (std::uint64_t i = 0; i < what.messages; ++i) {
    while (!source.has_room()) __builtin_ia32_pause();
    crew::must(source.publish(crew::make(++sent, 1)).taken == 1, "not taken");
  }
  static_cast<void>(::getppid());
  parent.say(done);
  while (!parent.has_news()) node.run_for(20ms);
}

void listen(fault::channel& parent, const std::string& directory, const passing& what) {
  ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
  bus::node node(options(directory, "hearer", what.hearer_waits));
  auto heard = node.subscribe<crew::numbered>("quiet", {.when_full = bus::drop::newest});
  crew::must(heard.wait_matched(1, crew::patience), "nobody speaks");
  parent.say(ready);
  std::uint64_t last = 0;
  const auto take = [&](std::uint64_t until) {
    while (last < until) {
      const auto message = heard.take(crew::patience);
      crew::must(message.has_value(), "a message did not come");
      last = crew::check(**message, 1, last);
      const std::int64_t until_ns = bus::steady_ns() + what.work_ns;
      while (what.work_ns > 0 && bus::steady_ns() < until_ns) __builtin_ia32_pause();
    }
  };
  take(parent.hear(crew::patience));
  settle(node);
  parent.say(warm);
  static_cast<void>(parent.hear(crew::patience));
  static_cast<void>(::getppid());
  take(last + what.messages);
  static_cast<void>(::getppid());
  crew::must(heard.accounts().balanced() && heard.accounts().lost_in_all() == 0, "lost");
  parent.say(done);
  while (!parent.has_news()) node.run_for(20ms);
}

struct seen_calls {
  std::vector<std::string> talker;
  std::vector<std::string> hearer;
};

seen_calls watch(const passing& what) {
  const tests::scratch_directory scratch;
  const tests::scratch_directory traces;
  fault::child hearer([&](fault::channel& parent) { listen(parent, scratch.path(), what); });
  fault::child talker([&](fault::channel& parent) { talk(parent, scratch.path(), what); });
  crew::must(hearer.pipe().hear(crew::patience) == ready, "the hearer is not ready");
  crew::must(talker.pipe().hear(crew::patience) == ready, "the talker is not ready");
  const std::uint64_t filled = talker.pipe().hear(crew::patience);
  crew::must(filled >= 1000, "the link was not filled");
  hearer.pipe().say(filled);
  crew::must(hearer.pipe().hear(crew::patience) == warm, "the hearer is not warm");
  crew::must(talker.pipe().hear(crew::patience) == warm, "the talker is not warm");
  tracer on_hearer(hearer.id(), traces.path() + "/hearer");
  tracer on_talker(talker.id(), traces.path() + "/talker");
  hearer.pipe().say(go);
  talker.pipe().say(go);
  crew::must(talker.pipe().hear(crew::patience) == done, "the talker is not done");
  crew::must(hearer.pipe().hear(crew::patience) == done, "the hearer is not done");
  seen_calls seen{.talker = on_talker.lines(), .hearer = on_hearer.lines()};
  for (fault::child* one : {&talker, &hearer}) {
    one->pipe().say(done);
    crew::must(one->wait() == 0, "a child failed");
  }
  return seen;
}

// --- memory

// Counted page by page; /proc/self/status would be off by some dozens.
std::uint64_t anonymous_bytes() {
  std::ifstream lines("/proc/self/smaps_rollup");
  std::string word;
  while (lines >> word) {
    std::uint64_t kib = 0;
    if (word == "Anonymous:" && lines >> kib) return kib * 1024;
  }
  return 0;
}

// Of the memfds of this name that are mapped here: what was touched.
std::uint64_t mapped_bytes(const std::string& name) {
  std::ifstream lines("/proc/self/smaps");
  std::uint64_t sum = 0;
  bool ours = false;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    if (first.find('-') != std::string::npos) ours = line.find(name) != std::string::npos;
    std::uint64_t kib = 0;
    if (ours && first == "Rss:" && words >> kib) sum += kib * 1024;
  }
  return sum;
}

struct held {
  std::uint64_t anonymous = 0;
  std::uint64_t shared = 0;
};
held hold_now(const std::string& name) { return {anonymous_bytes(), mapped_bytes(name)}; }

constexpr std::size_t others = 32;

// A link with its messages, and which end of it is looked at.
struct link_use {
  bool publishes;
  std::uint64_t messages;
};

void publish(bus::publisher<crew::numbered>& to, std::uint64_t messages) {
  for (std::uint64_t i = 1; i <= messages; ++i) {
    crew::must(to.has_room() || to.wait_room(crew::patience), "no room came");
    crew::must(static_cast<bool>(to.publish(crew::make(i, 1))), "not taken");
  }
}

// The one with many links: a publisher with `others` subscribers, or the reverse; says what it
// holds with one link, and with all, when each has carried so many messages and is at rest.
void in_the_middle(fault::channel& parent, const std::string& directory, const link_use& use) {
  const bool publishes = use.publishes;
  bus::node node(options(directory, "middle", bus::wait_policy::sleep));
  std::optional<bus::publisher<crew::numbered>> source;
  std::optional<bus::subscriber<crew::numbered>> heard;
  if (publishes) {
    source.emplace(node.advertise<crew::numbered>("middle"));
  } else {
    // All of them: what does not fit waits in the links.
    heard.emplace(node.subscribe<crew::numbered>("middle", {.when_full = bus::drop::newest}));
  }
  const auto matched = [&] { return publishes ? source->matched() : heard->matched(); };
  std::uint64_t taken = 0;
  for (const std::size_t wanted : {std::size_t{1}, others + 1}) {
    const auto until = bus::deadline::after(crew::patience);
    while (matched() < wanted || (!publishes && taken < wanted * use.messages)) {
      crew::must(!until.passed(), "the links did not come up");
      if (publishes) {
        node.run_for(1ms);
      } else if (heard->take(1ms)) {
        ++taken;
      }
    }
    if (publishes) publish(*source, use.messages);
    while (publishes && source->backlog() > 0) node.run_for(1ms);
    node.run_for(200ms);
    const char* const ours = publishes ? "omnibus-lane" : "omnibus-answers";
    held now = hold_now(ours);
    // A receiver gives back what it used, a second later: until nothing more comes.
    for (held before{UINT64_MAX, 0}; !publishes && now.anonymous < before.anonymous;) {
      before = now;
      node.run_for(1500ms);
      now = hold_now(ours);
    }
    parent.say(now.anonymous);
    parent.say(now.shared);
    static_cast<void>(parent.hear(crew::patience));
  }
}

void around(fault::channel& parent, const std::string& directory, const link_use& use) {
  bus::node node(options(directory, "other", bus::wait_policy::sleep));
  std::optional<bus::publisher<crew::numbered>> source;
  std::optional<bus::subscriber<crew::numbered>> heard;
  if (!use.publishes) {
    source.emplace(node.advertise<crew::numbered>("middle"));
    crew::must(source->wait_matched(1, crew::patience), "nobody in the middle");
    publish(*source, use.messages);
  } else {
    // All of them: what does not fit waits in the links.
    heard.emplace(node.subscribe<crew::numbered>("middle", {.when_full = bus::drop::newest}));
  }
  while (!parent.has_news()) {
    node.run_for(5ms);
    while (heard && heard->try_take()) {
    }
  }
}

held per_link(const link_use& use) {
  const tests::scratch_directory scratch;
  fault::child middle([&](fault::channel& parent) { in_the_middle(parent, scratch.path(), use); });
  std::vector<std::unique_ptr<fault::child>> ring;
  std::vector<held> told;
  for (const std::size_t wanted : {std::size_t{1}, others + 1}) {
    while (ring.size() < wanted) {
      ring.push_back(std::make_unique<fault::child>(
          [&](fault::channel& parent) { around(parent, scratch.path(), use); }));
    }
    held now;
    now.anonymous = middle.pipe().hear(crew::patience);
    now.shared = middle.pipe().hear(crew::patience);
    told.push_back(now);
    middle.pipe().say(1);
  }
  for (const auto& one : ring) one->pipe().say(1);
  for (const auto& one : ring) crew::must(one->wait() == 0, "a child failed");
  crew::must(middle.wait() == 0, "the middle failed");
  const auto each = [](std::uint64_t one, std::uint64_t all) {
    return (std::max(one, all) - one) / others;
  };
  return {each(told[0].anonymous, told[1].anonymous), each(told[0].shared, told[1].shared)};
}

}  // namespace

TEST_CASE("an uncontended pass makes no system call, and so no semaphore operation") {
  if (!traceable) return;
  const seen_calls seen =
      watch({.hearer_waits = bus::wait_policy::spin, .messages = 100'000, .work_ns = 0});
  const auto talker = without_yields(seen.talker);
  const auto hearer = without_yields(seen.hearer);
  std::printf("| 100,000 messages, spinning | talker %zu calls | hearer %zu calls, %zu yields |\n",
              talker.size(), hearer.size(), seen.hearer.size() - hearer.size());
  INFO((talker.empty() ? "" : talker.front()) << '\n' << (hearer.empty() ? "" : hearer.front()));
  CHECK(talker.empty());
  CHECK(hearer.empty());
}

TEST_CASE("a million messages to a busy subscriber cost fewer than a thousand wakeups") {
  if (!traceable) return;
  const std::uint64_t messages = contract::sanitized ? 100'000 : 1'000'000;
  // A microsecond of work for each keeps it behind, and busy, as long as the talker runs.
  const seen_calls seen = watch(
      {.hearer_waits = bus::wait_policy::spin_then_sleep, .messages = messages, .work_ns = 1000});
  std::size_t wakeups = 0;
  for (const auto* lines : {&seen.talker, &seen.hearer}) {
    wakeups += count(*lines, "FUTEX_WAKE") + count(*lines, "pidfd_send_signal");
  }
  std::printf("| %llu messages, spin, then sleep | %zu wakeups | talker %zu calls | hearer %zu |\n",
              static_cast<unsigned long long>(messages), wakeups, seen.talker.size(),
              seen.hearer.size());
  CHECK(wakeups < 1000);
}

TEST_CASE(
    "an idle link holds at most 64 KiB in both its processes together, also when it was full "
    "once") {
  // Full: 36 KiB of lane, 4 of answers, 20 of the sender's lists; the receiver's blocks, up to 384,
  // are given back (transports/shm/README.md).
  for (const std::uint64_t messages : {1U, 2048U}) {
    const held sender = per_link({.publishes = true, .messages = messages});
    const held receiver = per_link({.publishes = false, .messages = messages});
    const std::uint64_t sum =
        sender.anonymous + sender.shared + receiver.anonymous + receiver.shared;
    std::printf(
        "| an idle link that has carried %llu | lane %llu | answers %llu | sender's own %llu "
        "| receiver's own %llu | %llu bytes |\n",
        static_cast<unsigned long long>(messages), static_cast<unsigned long long>(sender.shared),
        static_cast<unsigned long long>(receiver.shared),
        static_cast<unsigned long long>(sender.anonymous),
        static_cast<unsigned long long>(receiver.anonymous), static_cast<unsigned long long>(sum));
    CHECK(sender.shared > 0);
    CHECK(receiver.shared > 0);
    if (!contract::sanitized) CHECK(sum <= std::uint64_t{64} << 10);
  }
}
