// The numbered cases of signals and wakeups. A wakeup is a hint: refused, dropped, merged with
// others or sent to somebody who is no more, it costs time, and never a message or a process.
#include "tests/fault/stage.hpp"

#include <algorithm>
#include <csignal>
#include <thread>

#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using fault::channel;
using fault::child;
using fault::must;

namespace {

constexpr unsigned pidfd_thread = O_EXCL;  // Linux 6.9; not in Debian 12's headers
constexpr unsigned pidfd_signal_thread = 1;
constexpr std::uint64_t no_descriptor = UINT64_MAX;

bool is_root() {
  if (::geteuid() == 0) return true;
  WARN("not shown here: only root may make namespaces and become somebody else");
  return false;
}

// A descriptor of the main thread of a process; empty before Linux 6.9.
bus::fd thread_of(pid_t process) {
  return bus::fd(static_cast<int>(::syscall(SYS_pidfd_open, process, pidfd_thread)));
}

bool send_to(const bus::fd& thread) {
  return ::syscall(SYS_pidfd_send_signal, thread.get(), bus::bell_signal(), nullptr,
                   pidfd_signal_thread) == 0;
}

// Whether bell_signal() would wait for the thread that reads it, or end it.
bool has_signal_rung() {
  if (thread_of(::getpid())) return true;
  WARN("not shown here: this kernel has no descriptors of threads (Linux 6.9)");
  return false;
}

// A process that sleeps on a bell as an event loop does, and a ringer for it. Words: 1 arms the
// bell and sleeps, and says 1 or 2 for what woke it, 0 for nothing; anything else is a hook's.
class sleeper {
 public:
  using hook = std::function<void(std::uint64_t word)>;

  explicit sleeper(
      std::function<void()> before, hook on_word = [](std::uint64_t) {})
      : process_([&](channel& parent) { sleep(parent, before, on_word); }) {
    bus::bell_keys keys;
    keys.page = take();
    keys.event = take();
    keys.thread = take();
    if (keys.thread) thread = fault::got(keys.thread.duplicate());
    bell = std::make_unique<bus::ringer>(fault::got(bus::ringer::open(std::move(keys))));
  }

  void falls_asleep() {
    process_.pipe().say(1);
    must(process_.pipe().hear() == 1, "not armed");
  }
  [[nodiscard]] bus::rung woken_by() {
    const std::uint64_t which = process_.pipe().hear(fault::long_patience);
    return which == 1 ? bus::rung::signal : which == 2 ? bus::rung::event : bus::rung::none;
  }
  void say(std::uint64_t word) { process_.pipe().say(word); }
  [[nodiscard]] std::uint64_t hear() { return process_.pipe().hear(); }
  [[nodiscard]] child& process() noexcept { return process_; }
  [[nodiscard]] bool is_alive() const { return ::waitpid(process_.id(), nullptr, WNOHANG) == 0; }

  std::unique_ptr<bus::ringer> bell;
  bus::fd thread;

 private:
  static void sleep(channel& parent, const std::function<void()>& before, const hook& on_word) {
    before();
    const auto own = fault::got(bus::bell::make());
    const auto keys = fault::got(own->keys());
    for (const bus::fd* const one : {&keys.page, &keys.event, &keys.thread}) {
      parent.say(*one ? static_cast<std::uint64_t>(one->get()) : no_descriptor);
    }
    for (;;) {
      const std::uint64_t word = parent.hear(1h);
      if (word != 1) {
        on_word(word);
        parent.say(1);
        continue;
      }
      own->arm_descriptors();
      parent.say(1);
      const auto [signals, event] = own->descriptors();
      std::array<pollfd, 2> both{{{signals, POLLIN, 0}, {event, POLLIN, 0}}};
      must(::poll(both.data(), 2, 60'000) > 0, "nothing woke it");
      const bool by_signal = both[0].revents != 0;
      own->drain(by_signal ? signals : event);
      own->disarm();
      parent.say(by_signal ? 1 : 2);
    }
  }
  // A descriptor of the child, by its number there.
  bus::fd take() {
    const std::uint64_t number = process_.pipe().hear();
    if (number == no_descriptor) return {};
    const bus::fd process(static_cast<int>(::syscall(SYS_pidfd_open, process_.id(), 0)));
    bus::fd taken(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0)));
    must(static_cast<bool>(taken), "pidfd_getfd");
    return taken;
  }

  child process_;
};

void limit_pending_signals(rlim_t count) {
  rlimit pending{};
  must(::getrlimit(RLIMIT_SIGPENDING, &pending) == 0, "getrlimit");
  pending.rlim_cur = std::min(count, pending.rlim_max);
  must(::setrlimit(RLIMIT_SIGPENDING, &pending) == 0, "setrlimit");
}

std::atomic<int> alarms{0};

// From now on a signal with a handler interrupts this process a thousand times a second, and no
// call is restarted for it.
void interrupt_at_1khz() {
  struct sigaction count {};
  count.sa_handler = [](int) { alarms.fetch_add(1, std::memory_order_relaxed); };
  must(::sigaction(SIGALRM, &count, nullptr) == 0, "sigaction");
  const itimerval often{{0, 1000}, {0, 1000}};
  must(::setitimer(ITIMER_REAL, &often, nullptr) == 0, "setitimer");
}

std::function<void()> become(uid_t user) {
  return [user] {
    constexpr gid_t group = 60'000;
    must(::setgroups(0, nullptr) == 0 && ::setresgid(group, group, group) == 0, "setresgid");
    must(::setresuid(user, user, user) == 0, "setresuid");
  };
}

void open_to_group(const fault::stage& stage) {
  constexpr gid_t group = 60'000;
  std::filesystem::permissions(stage.scratch(), std::filesystem::perms::others_exec,
                               std::filesystem::perm_options::add);
  must(::chown(stage.directory().c_str(), static_cast<uid_t>(-1), group) == 0, "chown");
  must(::chmod(stage.directory().c_str(), 02770) == 0, "chmod");
}

// A subscriber that nothing but a wakeup lets look before half a minute is over, and a publisher
// that publishes one message at a time.
constexpr std::chrono::seconds long_turn = 30s;
fault::listener_options sleeping_listener(fault::client_options client = {}) {
  client.woken_by = bus::loop_wakeup::signal;
  return {.client = std::move(client), .waits = fault::habit::event_loop, .turn = long_turn};
}
fault::speaker_options rare_speaker(fault::client_options client = {}) {
  return {.client = std::move(client), .burst = 1, .pause = 5ms};
}

// The longest that any message of these was on its way, in seconds.
double slowest_s(const fault::stage::client& from, const fault::stage::client& to) {
  const fault::history by = from.record.read();
  const fault::history got = to.record.read();
  std::vector<std::int64_t> sent_ns(by.attempted + 1);
  for (const auto& one : by.published) sent_ns[one.sequence] = one.at_ns;
  std::int64_t longest_ns = 0;
  for (const auto& one : got.deliveries) {
    if (one.sender != by.epoch || sent_ns[one.sequence] == 0) continue;
    longest_ns = std::max(longest_ns, one.at_ns - sent_ns[one.sequence]);
  }
  return static_cast<double>(longest_ns) / 1e9;
}

// What the links of a client say of themselves and of its troubles, as `bus why` tells it.
std::string links_of(const fault::stage& stage, const fault::stage::client& one) {
  const auto place = bus::rendezvous::visit(stage.directory());
  const auto links =
      place ? place->read_links({one.record.epoch()}) : bus::unexpected(place.error());
  return links ? links->DebugString() : std::string();
}

}  // namespace

TEST_CASE("case 27: a full queue of signals costs one rung, for as long as it is full") {
  if (!has_signal_rung()) return;
  sleeper one([] { limit_pending_signals(0); },
              [](std::uint64_t) { limit_pending_signals(RLIM_INFINITY); });
  for (int i = 0; i < 3; ++i) {
    one.falls_asleep();
    REQUIRE(one.bell->ring() == bus::rung::event);
    REQUIRE(one.woken_by() == bus::rung::event);
  }
  one.say(2);
  REQUIRE(one.hear() == 1);
  one.falls_asleep();
  REQUIRE(one.bell->ring() == bus::rung::signal);
  REQUIRE(one.woken_by() == bus::rung::signal);
}

TEST_CASE("case 27: a node whose queue of signals is full hears everything at once") {
  fault::stage stage;
  auto& listener = stage.listen(sleeping_listener({.before = [] { limit_pending_signals(0); }}));
  auto& speaker = stage.speak(rare_speaker());
  listener.has(200);
  stage.end_speakers();
  CHECK(slowest_s(speaker, listener) < 10);
  stage.finish();
}

TEST_CASE("case 28: 100,000 coalesced wakeups are all drained") {
  if (!has_signal_rung()) return;
  fault::stage stage;
  auto& listener = stage.listen(sleeping_listener());
  auto& speaker = stage.speak(rare_speaker());
  listener.has(100);
  const bus::fd thread = thread_of(listener.id());
  listener.stop();
  int queued = 0;
  for (int i = 0; i < 100'000; ++i) queued += send_to(thread) ? 1 : 0;
  // As many as a queue of signals holds here.
  REQUIRE(queued > 1000);
  listener.go_on();
  speaker.has_more(100);
  listener.has_more(100);
  // Nothing of them is left, and the next sleep is one.
  const std::string status = "/proc/" + std::to_string(listener.id()) + "/status";
  CHECK(fault::eventually([&] {
    return fault::text_of(status).find("SigPnd:\t0000000000000000") != std::string::npos;
  }));
  stage.finish();
}

TEST_CASE("case 29: with every wakeup dropped, nobody waits longer than it said it would") {
  fault::stage stage;
  // The bound is the caller's own: how long it lets take() or the event loop wait at most.
  constexpr auto bound = 100ms;
  auto& taking = stage.listen({.turn = bound});
  auto& looping = stage.listen({.waits = fault::habit::event_loop, .turn = bound});
  // It never waits in the kernel itself: of its calls, all that are dropped are wakeups, and words
  // that it writes into files. EAGAIN is what the kernel says of an eventfd that is full.
  auto& speaker = stage.speak(
      {.client = {.waiting = bus::wait_policy::spin}, .links = 2, .burst = 1, .pause = 20ms});
  fault::tracer trace(
      speaker.id(), stage.scratch() + "/trace",
      {"-e", "trace=pidfd_send_signal,write,futex", "-e", "inject=pidfd_send_signal:retval=0", "-e",
       "inject=write:error=EAGAIN", "-e", "inject=futex:retval=0"});
  const std::size_t first = speaker.record.count();
  taking.has_more(120);
  looping.has_more(120);
  const std::string dropped = trace.end();
  stage.finish();
  CHECK(fault::occurrences(dropped, "INJECTED") > 60);
  REQUIRE(speaker.record.read().published.size() > first);
  CHECK(slowest_s(speaker, taking) < 10);
  CHECK(slowest_s(speaker, looping) < 10);
}

TEST_CASE("case 30: interrupted at 1 kHz, every call that waits completes") {
  fault::stage stage;
  const fault::client_options interrupted{
      .waiting = bus::wait_policy::sleep, .before = interrupt_at_1khz, .at_work = [](bus::node&) {
        must(fault::eventually([] { return alarms > 0; }), "nothing is interrupted");
      }};
  auto& taking = stage.listen({.client = interrupted});
  auto& looping = stage.listen({.client = interrupted, .waits = fault::habit::event_loop});
  auto& slow = stage.listen({.client = interrupted, .how = {.depth = 4}});
  stage.speak({.client = interrupted, .links = 3, .link_depth = 64});
  taking.has(5000);
  looping.has(5000);
  slow.has(100);
  // Coming and going, too: directory, memory, handshakes, goodbyes.
  for (int i = 0; i < 5; ++i) {
    auto& passing = stage.speak({.client = interrupted, .links = 3});
    passing.has(50);
    passing.kill();
  }
  stage.finish();
}

TEST_CASE("case 31: a signal that comes before anybody reads it, or after exec, ends nobody") {
  if (!has_signal_rung()) return;
  // The first words are from before the first sleep.
  const auto flood = [](sleeper& one) {
    for (int i = 0; i < 1000; ++i) static_cast<void>(send_to(one.thread));
  };
  sleeper early([] {});
  flood(early);
  REQUIRE(early.is_alive());
  early.falls_asleep();
  REQUIRE(early.woken_by() == bus::rung::signal);

  // A program that takes the place of the node, started by the node's own thread.
  const auto execute = [] { ::execlp("sleep", "sleep", "600", nullptr); };
  // And one that is started by a thread in which nothing is blocked: it inherits that.
  const auto execute_elsewhere = [&] {
    std::thread([&] {
      sigset_t none;
      ::sigemptyset(&none);
      ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
      execute();
    }).join();
  };
  for (const std::function<void()>& how : {std::function<void()>(execute), {execute_elsewhere}}) {
    sleeper replaced([] {}, [&](std::uint64_t) { how(); });
    replaced.say(2);
    const std::string name = "/proc/" + std::to_string(replaced.process().id()) + "/comm";
    REQUIRE(fault::eventually([&] { return fault::text_of(name) == "sleep\n"; }));
    flood(replaced);
    // A signal that kills has done so before the sender's call returns, or the target runs.
    REQUIRE(::kill(replaced.process().id(), SIGSTOP) == 0);
    int status = 0;
    REQUIRE(::waitpid(replaced.process().id(), &status, WUNTRACED) == replaced.process().id());
    REQUIRE(WIFSTOPPED(status));
    replaced.process().kill();
    REQUIRE(replaced.process().wait() == -SIGKILL);
  }
}

TEST_CASE("case 32: who gets the number of a dead subscriber gets none of its signals") {
  if (!is_root()) return;
  child outside([](channel&) {
    must(::unshare(CLONE_NEWPID) == 0, "unshare");
    // Pid 1 of a namespace in which numbers are dealt as we like.
    child inside([](channel&) {
      fault::stage stage;
      auto& listener = stage.listen(sleeping_listener());
      auto& speaker = stage.speak(rare_speaker());
      listener.has(100);
      speaker.stop();
      const pid_t number = listener.id();
      listener.kill();
      std::unique_ptr<fault::innocent> heir;
      for (int i = 0; i < 100 && (!heir || heir->id() != number); ++i) {
        std::ofstream("/proc/sys/kernel/ns_last_pid") << number - 1;
        heir = std::make_unique<fault::innocent>();
      }
      must(heir->id() == number, "the number was not given again");
      speaker.go_on();
      speaker.has_more(200);
      must(heir->is_untouched(), "the heir of a number was signalled");
      stage.finish();
    });
    must(inside.wait() == 0, "in the namespace");
  });
  CHECK(outside.wait() == 0);
}

TEST_CASE("case 33: between users the next rung wakes") {
  if (!is_root()) return;
  fault::stage stage;
  open_to_group(stage);
  auto& listener = stage.listen(sleeping_listener({.before = become(60'001)}));
  auto& speaker = stage.speak(rare_speaker({.before = become(60'002)}));
  listener.has(100);
  CHECK(fault::eventually([&] {
    return links_of(stage, speaker).find("uid 60001, woken by socket") != std::string::npos;
  }));
  stage.end_speakers();
  CHECK(slowest_s(speaker, listener) < 10);
  stage.finish();
}

TEST_CASE(
    "case 33: a publisher that gives up its rights falls to the next rung, and loses nothing") {
  if (!is_root()) return;
  fault::stage stage;
  open_to_group(stage);
  auto& listener = stage.listen(sleeping_listener());
  // From now on the kernel says EPERM to its signals.
  auto& speaker = stage.speak(rare_speaker({.at_work = [](bus::node&) { become(60'002)(); }}));
  listener.has(200);
  stage.end_speakers();
  CHECK(slowest_s(speaker, listener) < 10);
  stage.finish();
}

TEST_CASE(
    "case 35: an application whose threads leave the signal unblocked loses nothing, and lives") {
  fault::stage stage;
  const auto start_threads = [] {
    for (int i = 0; i < 4; ++i) {
      std::thread([] {
        for (;;) ::pause();
      }).detach();
    }
  };
  auto& listener = stage.listen(sleeping_listener({.before = start_threads}));
  auto& speaker = stage.speak(rare_speaker());
  listener.has(100);
  // Not to the node's thread: to whoever in the process lets it in.
  for (int i = 0; i < 100; ++i) REQUIRE(::kill(listener.id(), bus::bell_signal()) == 0);
  listener.has_more(200);
  stage.end_speakers();
  CHECK(slowest_s(speaker, listener) < 10);
  stage.finish();
}

TEST_CASE(
    "case 36: an application that uses the signal itself keeps it; the node says so and goes on") {
  static std::atomic<int> own{0};
  const auto use_it = [] {
    struct sigaction mine {};
    mine.sa_handler = [](int) { own.fetch_add(1); };
    must(::sigaction(bus::bell_signal(), &mine, nullptr) == 0, "sigaction");
  };
  const auto still_works = [](bus::node&) {
    for (int i = 0; i < 10; ++i) must(::raise(bus::bell_signal()) == 0, "raise");
    must(own == 10, "the application lost its own signal");
  };
  fault::stage stage;
  auto& listener = stage.listen(sleeping_listener({.before = use_it, .at_work = still_works}));
  auto& speaker = stage.speak(rare_speaker());
  listener.has(100);
  CHECK(fault::eventually([&] {
    const std::string said = links_of(stage, listener);
    return fault::lacking(said, {"signal", "application"}).empty();
  }));
  CHECK(fault::eventually(
      [&] { return links_of(stage, speaker).find("woken by event") != std::string::npos; }));
  stage.end_speakers();
  CHECK(slowest_s(speaker, listener) < 10);
  stage.finish();
}

TEST_CASE("case 36: an application that takes to the signal later is found out, and reported") {
  if (!has_signal_rung()) return;
  fault::stage stage;
  auto& listener = stage.listen(sleeping_listener());
  auto& speaker = stage.speak(rare_speaker());
  listener.has(100);
  // A signal with a value is none of ours.
  REQUIRE(::sigqueue(listener.id(), bus::bell_signal(), {.sival_int = 36}) == 0);
  CHECK(fault::eventually([&] {
    return fault::lacking(links_of(stage, listener), {"signal", "application"}).empty();
  }));
  listener.has_more(200);
  stage.end_speakers();
  CHECK(slowest_s(speaker, listener) < 10);
  stage.finish();
}
