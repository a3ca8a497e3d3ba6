// The numbered cases of resources, as far as it takes whole processes to show them: too little
// memory, processor time, rights; too much of somebody else; clocks that jump and machines that
// reboot.
#include "bus/node/census.hpp"
#include "tests/fault/refusals.hpp"
#include "tests/fault/stage.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <sstream>

#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using fault::child;
using fault::must;

namespace {

namespace files = std::filesystem;

constexpr gid_t group = 60'000;

bool is_root() {
  if (::geteuid() == 0) return true;
  WARN("not shown here: only root may make namespaces and become somebody else");
  return false;
}

void become(uid_t user) {
  must(::setgroups(0, nullptr) == 0 && ::setresgid(group, group, group) == 0, "setresgid");
  must(::setresuid(user, user, user) == 0, "setresuid");
}

void open_to_group(const fault::stage& stage) {
  files::permissions(stage.scratch(), files::perms::others_exec, files::perm_options::add);
  must(::chown(stage.directory().c_str(), static_cast<uid_t>(-1), group) == 0, "chown");
  must(::chmod(stage.directory().c_str(), 02770) == 0, "chmod");
}

bool write_to(const std::string& path, const std::string& text) {
  return static_cast<bool>(std::ofstream(path) << text << std::flush);
}

// A memory cgroup of the test's own, of whichever version there is.
class memory_cgroup {
 public:
  explicit memory_cgroup(std::uint64_t bytes) {
    const std::string limit = std::to_string(bytes);
    const std::string name = "/omnibus-test-" + std::to_string(::getpid());
    const std::string first = "/sys/fs/cgroup/memory" + name;
    const std::string second = "/sys/fs/cgroup" + name;
    if (::mkdir(first.c_str(), 0700) == 0) {
      path_ = first;
      is_there_ = write_to(path_ + "/memory.limit_in_bytes", limit);
    } else if (::mkdir(second.c_str(), 0700) == 0) {
      path_ = second;
      is_there_ = write_to(path_ + "/memory.max", limit);
    }
  }
  ~memory_cgroup() {
    if (!path_.empty()) fault::eventually([&] { return ::rmdir(path_.c_str()) == 0; }, 10s);
  }
  memory_cgroup(const memory_cgroup&) = delete;
  memory_cgroup& operator=(const memory_cgroup&) = delete;

  [[nodiscard]] bool is_there() const noexcept { return is_there_; }
  void join() const {
    must(write_to(path_ + "/cgroup.procs", std::to_string(::getpid())), "cannot join the cgroup");
  }

 private:
  std::string path_;
  bool is_there_ = false;
};

// Takes memory until there is none, once `sign` is there; beside everything else.
void devour_memory_after(const std::string& sign) {
  std::thread([sign] {
    while (!files::exists(sign)) std::this_thread::sleep_for(1ms);
    for (;;) {
      constexpr std::size_t bytes = 1 << 20;
      auto* const taken = static_cast<volatile char*>(std::malloc(bytes));
      for (std::size_t i = 0; taken && i < bytes; i += 4096) taken[i] = 1;
    }
  }).detach();
}

void private_mounts() {
  must(::unshare(CLONE_NEWNS) == 0, "unshare");
  must(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private mounts");
}

// What the default profiles of container engines refuse to those without capabilities.
void refuse_as_containers_do() {
  fault::refuse({SYS_unshare,
                 SYS_setns,
                 SYS_mount,
                 SYS_umount2,
                 SYS_pivot_root,
                 SYS_bpf,
                 SYS_perf_event_open,
                 SYS_keyctl,
                 SYS_add_key,
                 SYS_request_key,
                 SYS_userfaultfd,
                 SYS_kcmp,
                 SYS_io_uring_setup,
                 SYS_io_uring_enter,
                 SYS_io_uring_register,
                 SYS_process_vm_readv,
                 SYS_process_vm_writev,
                 SYS_open_by_handle_at,
                 SYS_clock_settime,
                 SYS_settimeofday,
                 SYS_fanotify_init,
                 SYS_personality,
                 SYS_mbind,
                 SYS_move_pages,
                 SYS_swapon,
                 SYS_reboot,
                 SYS_acct,
                 SYS_quotactl},
                EPERM);
}

// The rest of a container's defaults: a root that cannot be written to, a /dev/shm of 64 MiB, a
// user without rights, few descriptors, a network and semaphores of its own; one shared volume.
void enter_container(const std::string& volume) {
  must(::unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) == 0, "unshare");
  private_mounts();
  must(::mount("shm", "/dev/shm", "tmpfs", 0, "size=64m,mode=1777") == 0, "/dev/shm");
  must(::mount(volume.c_str(), volume.c_str(), nullptr, MS_BIND, nullptr) == 0, "the volume");
  must(::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) == 0, "the root");
  const rlimit descriptors{1024, 1024};
  must(::setrlimit(RLIMIT_NOFILE, &descriptors) == 0, "setrlimit");
  must(::setgroups(0, nullptr) == 0 && ::setresgid(65534, 65534, 65534) == 0, "setresgid");
  must(::setresuid(65534, 65534, 65534) == 0, "setresuid");
  must(::open("/root-is-writable", O_CREAT | O_WRONLY, 0600) < 0, "the root can be written to");
  must(::getpid() > 1 && ::kill(1, 0) != 0, "rights were left");
}

// Pins this process to the processor on which it is, with nothing but what others leave of it.
void starve_on(int processor) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(static_cast<std::size_t>(processor), &only);
  must(::sched_setaffinity(0, sizeof only, &only) == 0, "sched_setaffinity");
  constexpr sched_param none{0};
  must(::sched_setscheduler(0, SCHED_IDLE, &none) == 0, "sched_setscheduler");
}

void spin_on(int processor) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(static_cast<std::size_t>(processor), &only);
  must(::sched_setaffinity(0, sizeof only, &only) == 0, "sched_setaffinity");
  for (;;) __builtin_ia32_pause();
}

std::function<void()> until_traced() {
  return [] {
    const auto until = bus::deadline::after(20s);
    while (fault::text_of("/proc/self/status").find("TracerPid:\t0\n") != std::string::npos) {
      must(!until.passed(), "nobody traces");
      ::poll(nullptr, 0, 2);  // glibc's sleep names the wall clock, and strace may see it end
    }
  };
}

}  // namespace

TEST_CASE("case 37: killed by its cgroup's memory limit, a publisher is as dead as by SIGKILL") {
  const memory_cgroup small(contract::sanitized ? 1 << 30 : 128 << 20);
  if (!small.is_there()) {
    WARN("not shown here: no memory cgroup can be made");
    return;
  }
  fault::stage stage;
  auto& listener = stage.listen();
  const std::string sign = stage.scratch() + "/devour";
  auto& doomed =
      stage.speak({.client = {.before = [&] { small.join(); },
                              .at_work = [&](bus::node&) { devour_memory_after(sign); }}});
  auto& other = stage.speak();
  listener.has(500);
  REQUIRE(write_to(sign, "now"));
  doomed.ended(doomed.process->wait(), -SIGKILL);
  const std::int64_t dead_ns = bus::steady_ns();
  other.has_more(200);
  REQUIRE(fault::eventually(
      [&] { return listener.record.read().detached.contains(doomed.record.epoch()); }));
  CHECK(listener.record.read().detached.at(doomed.record.epoch()) - dead_ns <
        2 * std::chrono::nanoseconds(fault::detection_time).count());
  stage.finish();
}

TEST_CASE("case 39: wherever a mapping fails there is a named error or none, and nothing is left") {
  if (contract::sanitized) {
    WARN("not shown here: the sanitizer's own mappings would fail");
    return;
  }
  const tests::scratch_directory scratch;
  const std::string directory = scratch.path() + "/bus";
  files::create_directory(directory);
  files::permissions(directory, files::perms::owner_all);
  int refused = 0;
  for (int number = 1; number <= 24; ++number) {
    child one([&](fault::channel& parent) {
      static_cast<void>(parent.hear(fault::long_patience));
      const std::size_t before = fault::open_descriptors();
      std::string sentence;
      try {
        bus::node node = fault::make_client({.name = "n", .directory = directory});
        auto numbers = node.advertise<fault::message>("numbers");
        auto heard = node.subscribe<fault::message>("numbers");
        // A link whose maps were refused is tried again.
        must(numbers.wait_matched(1, fault::long_patience), "never matched");
        for (std::uint64_t i = 1; i <= 10; ++i) {
          const auto sent = fault::make_message(1, i);
          if (const auto outcome = numbers.publish(sent); outcome.error) {
            must(outcome.error == bus::errc::no_memory, outcome.error.message());
            --i;
            continue;
          }
          const auto got = heard.take(fault::long_patience);
          must(got && (*got)->checksum == sent.checksum, "another one came, or none");
        }
        must(heard.accounts().balanced(), "the books do not balance");
      } catch (const bus::error& failed) {
        sentence = failed.what();
        must(fault::lacking(sentence, {"cannot"}).empty(), "not named: " + sentence);
      }
      must(fault::open_descriptors() == before, "descriptors left: " + sentence);
      for (const std::string& name : fault::left_in(directory)) {
        if (name.starts_with("schemas/")) continue;
        must(false, std::string("left: ").append(name).append(", ").append(sentence));
      }
      parent.say(sentence.empty() ? 0 : 1);
    });
    fault::tracer trace(
        one.id(), scratch.path() + "/trace",
        {"-e", "trace=mmap", "-e", "inject=mmap:error=ENOMEM:when=" + std::to_string(number)});
    one.pipe().say(1);
    const int ended = one.wait();
    const std::string log = trace.end();
    INFO("the mapping number " << number << ": " << log);
    REQUIRE(ended == 0);
    refused += static_cast<int>(one.pipe().hear());
  }
  // The bell's, the ledger's and the sentry's, at least.
  CHECK(refused >= 3);
}

TEST_CASE("case 40: a user who floods a subscriber takes nothing from its other publishers") {
  if (!is_root()) return;
  fault::stage stage;
  open_to_group(stage);
  static std::optional<bus::listener> flooded;
  auto& listener = stage.listen(
      {.client = {.at_work = [](bus::node& node) {
         flooded.emplace(node.subscribe<bus::raw>("flood", [](const bus::received<bus::raw>&) {}));
       }}});
  child flooder([&](fault::channel& parent) {
    become(60'001);
    bus::node node({.name = "flooder",
                    .transports = {transports::shm()},
                    .directory = stage.directory(),
                    .memory_bytes_max = 16 << 20});
    auto flood = node.advertise<bus::raw>("flood");
    must(flood.wait_matched(1, fault::long_patience), "nobody to flood");
    parent.say(1);
    constexpr std::uint64_t bytes = 64 << 10;
    std::uint64_t refused = 0;
    // A flood: until more has come than was heard.
    while (!parent.has_news() || refused == 0) {
      for (int i = 0; i < 64; ++i) {
        // Not filled: it is cheaper to make than to hear.
        auto block = flood.loan(bytes);
        refused += block && flood.publish(std::move(*block), bytes) ? 0 : 1;
      }
    }
    static_cast<void>(parent.hear());
    // I8: it is told so, in the result of each call.
    parent.say(refused);
  });
  REQUIRE(flooder.pipe().hear(fault::long_patience) == 1);
  auto& honest = stage.speak({.client = {.before = [] { become(60'002); }}, .burst = 1});
  honest.has(500);
  stage.end_speakers();
  flooder.pipe().say(1);
  CHECK(flooder.pipe().hear(fault::long_patience) > 0);
  REQUIRE(flooder.wait() == 0);
  stage.finish();
  const fault::history heard = listener.record.read();
  CHECK(heard.lost_in_all() == 0);
  CHECK(heard.deliveries.size() == honest.record.read().published.size());
}

TEST_CASE("case 41: who gets no processor time, or stands still, is not taken for dead") {
  fault::stage stage;
  const int processor = ::sched_getcpu();
  const fault::client_options starving{.before = [&] { starve_on(processor); }};
  auto& listener = stage.listen({.client = starving});
  auto& speaker = stage.speak({.client = starving});
  // Late calls are ours here.
  listener.was_stopped = speaker.was_stopped = true;
  listener.has(100);
  // The fault lasts longer than anybody's suspicion (1 s) or a hello (5 s is another's time).
  constexpr auto lasts = 3s;
  {
    child first([&](fault::channel&) { spin_on(processor); });
    child second([&](fault::channel&) { spin_on(processor); });
    std::this_thread::sleep_for(lasts);
  }
  listener.has_more(100);
  for (auto* const one : {&listener, &speaker}) {
    one->stop();
    std::this_thread::sleep_for(lasts);
    one->go_on();
    listener.has_more(100);
  }
  const std::int64_t healed_ns = bus::steady_ns();
  CHECK(listener.record.read().detached.empty());
  listener.has_more(500);
  stage.finish();
  const fault::history heard = listener.record.read();
  CHECK(heard.lost_in_all() == 0);
  CHECK(heard.detached.at(speaker.record.epoch()) > healed_ns);
}

TEST_CASE("case 42: no timeout is told by the wall clock") {
  // This machine's clock is not ours to move. What is looked at is every call by which the bus
  // waits or sets a timer, from before there is a node: each names the monotonic clock.
  fault::stage stage;
  const std::vector<std::string> waits = {
      "-e",
      "trace=futex,timerfd_create,timerfd_settime,timer_create,timer_settime,clock_nanosleep,"
      "nanosleep,setitimer,epoll_wait,epoll_pwait,epoll_pwait2,poll,ppoll,select,pselect6"};
  const fault::client_options traced{.waiting = bus::wait_policy::sleep, .before = until_traced()};
  auto& taking = stage.start(fault::listener_options{.client = traced});
  fault::tracer one(taking.id(), stage.scratch() + "/taking", waits);
  fault::stage::wait_for(taking);
  auto& looping =
      stage.start(fault::listener_options{.client = traced, .waits = fault::habit::event_loop});
  fault::tracer two(looping.id(), stage.scratch() + "/looping", waits);
  fault::stage::wait_for(looping);
  auto& speaker = stage.start(fault::speaker_options{.client = traced, .links = 2, .burst = 1});
  fault::tracer three(speaker.id(), stage.scratch() + "/speaker", waits);
  fault::stage::wait_for(speaker);
  taking.has(100);
  looping.has(100);
  const std::array<std::string, 3> logs = {one.end(), two.end(), three.end()};
  stage.finish();
  for (const std::string& log : logs) {
    std::istringstream lines(log);
    for (std::string line; std::getline(lines, line);) {
      // glibc names the wall clock where it waits for ever, for which it makes no difference.
      const bool for_ever =
          line.find("futex(") != std::string::npos && line.find(", NULL") != std::string::npos;
      INFO(line);
      if (!for_ever) CHECK(fault::occurrences(line, "CLOCK_REALTIME") == 0);
    }
    CHECK(fault::occurrences(log, "timerfd_create(CLOCK_MONOTONIC") > 0);
    CHECK(fault::occurrences(log, "futex(") + fault::occurrences(log, "epoll_wait(") > 0);
  }
}

TEST_CASE("case 42: when the wall clock is a day off, the cleaner touches nobody alive") {
  fault::stage stage;
  auto& listener = stage.listen();
  auto& speaker = stage.speak();
  listener.has(100);
  for (const time_t days : {-1, 1}) {
    // Files that are a day old, or from tomorrow, are what a clock that jumped makes of them.
    const timespec then[2] = {{::time(nullptr) + days * 86'400, 0},
                              {::time(nullptr) + days * 86'400, 0}};
    std::set<std::string> ours;
    for (const std::string& name : fault::left_in(stage.directory())) {
      const std::string path = stage.directory() + '/' + name;
      ::utimensat(AT_FDCWD, path.c_str(), then, AT_SYMLINK_NOFOLLOW);
      if (name.find(".tmp") == std::string::npos) ours.insert(name);
    }
    REQUIRE(fault::run({fault::bus_command(), "gc", "--directory", stage.directory()}) == 0);
    for (const std::string& name : ours) {
      INFO(name);
      CHECK(files::exists(stage.directory() + '/' + name));
    }
    listener.has_more(100);
  }
  static_cast<void>(speaker);
  stage.finish();
}

TEST_CASE(
    "case 43: with a container's defaults two nodes share nothing but a volume, and exchange") {
  if (!is_root()) return;
  // Newer profiles, and one that is older than the calls for processes and barriers.
  for (const bool is_old : {false, true}) {
    fault::stage stage;
    files::permissions(stage.scratch(), files::perms::others_exec, files::perm_options::add);
    REQUIRE(::chown(stage.directory().c_str(), 65534, 65534) == 0);
    const fault::client_options contained{.before = [&] {
      enter_container(stage.directory());
      refuse_as_containers_do();
      if (is_old) {
        fault::refuse({SYS_pidfd_open, SYS_pidfd_send_signal, SYS_pidfd_getfd, SYS_membarrier},
                      EPERM);
      }
    }};
    auto& taking = stage.listen({.client = contained});
    auto& looping = stage.listen({.client = contained, .waits = fault::habit::event_loop});
    auto& speaker = stage.speak({.client = contained, .links = 2});
    taking.has(500);
    looping.has(500);
    // And their deaths are noticed there, too.
    auto& doomed = stage.speak({.client = contained, .links = 2});
    taking.has_more(100);
    doomed.kill();
    speaker.has_more(100);
    stage.finish();
  }
}

TEST_CASE("case 45: after a reboot, all that was there before is recognised as stale") {
  if (!is_root()) return;
  fault::stage stage;
  auto& old_listener = stage.listen();
  auto& old_speaker = stage.speak();
  old_listener.has(100);
  old_listener.kill();
  old_speaker.kill();
  REQUIRE(fault::left_in(stage.directory()).size() >= 6);
  // A boot id is different after each boot. Nothing of the bus reads it: what proves life is a
  // lock, and no lock outlives its kernel. So the other id is to make no difference.
  const std::string other = stage.scratch() + "/boot_id";
  REQUIRE(write_to(other, "00000000-0000-4000-8000-000000000045\n"));
  const fault::client_options rebooted{.before = [&] {
    private_mounts();
    constexpr const char* boot_id = "/proc/sys/kernel/random/boot_id";
    must(::mount(other.c_str(), boot_id, nullptr, MS_BIND, nullptr) == 0, "another boot id");
    must(fault::text_of(boot_id) == fault::text_of(other), "the boot id is the old one");
  }};
  auto& listener = stage.listen({.client = rebooted});
  auto& speaker = stage.speak({.client = rebooted});
  listener.has(100);
  const auto place = bus::rendezvous::visit(stage.directory());
  REQUIRE(place);
  for (const auto* const one : {&old_listener, &old_speaker}) {
    CHECK_FALSE(bus::is_alive(place->directory(), {one->record.epoch()}));
  }
  // The new ones have met each other, and never heard of the old.
  const auto links = place->read_links({speaker.record.epoch()});
  REQUIRE(links);
  for (const auto& link : links->links()) CHECK(link.peer() == listener.record.epoch());
  CHECK(fault::run({fault::bus_command(), "gc", "--directory", stage.directory()}) == 0);
  for (const std::string& name : fault::left_in(stage.directory())) {
    CHECK(name.find(bus::to_hex(old_speaker.record.epoch())) == std::string::npos);
    CHECK(name.find(bus::to_hex(old_listener.record.epoch())) == std::string::npos);
  }
  stage.finish();
}
