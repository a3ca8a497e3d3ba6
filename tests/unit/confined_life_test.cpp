// What a locked-in child still does: ordinary programs run, with the files that they are allowed.
#include "bus/base/child_process.hpp"
#include "tests/calm_sanitizers.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace {

using bus::child_plan;
using bus::child_process;
using bus::confinement;
using bus::exit_status;
using bus::fd;
using bus::wall;

struct pipe_ends {
  fd out;  // to read from
  fd in;
  pipe_ends() {
    std::array<int, 2> made{};
    REQUIRE(::pipe2(made.data(), O_CLOEXEC) == 0);
    out = fd(made[0]);
    in = fd(made[1]);
  }
};

// Until nobody can write there any more.
std::string read_all(pipe_ends& way) {
  way.in.reset();
  std::string words;
  std::array<char, 4096> some{};
  for (ssize_t got = 0; (got = ::read(way.out.get(), some.data(), some.size())) > 0;) {
    words.append(some.data(), static_cast<std::size_t>(got));
  }
  return words;
}

class room {
 public:
  room() {
    REQUIRE(::mkdtemp(path_.data()));
    write("word", "allowed\n");
  }
  ~room() {
    for (const std::string& name :
         {std::string("word"), std::string("made"), std::string("link"), std::string("script")}) {
      ::unlink((path_ + "/" + name).c_str());
    }
    ::rmdir(path_.c_str());
  }
  room(const room&) = delete;
  room& operator=(const room&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string in(const std::string& name) const { return path_ + "/" + name; }
  void write(const std::string& name, const std::string& text, mode_t mode = 0600) const {
    std::ofstream(in(name)) << text;
    REQUIRE(::chmod(in(name).c_str(), mode) == 0);
  }
  [[nodiscard]] std::string read(const std::string& name) const {
    std::ifstream file(in(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  std::string path_ = "/tmp/omnibus-confined-XXXXXX";
};

struct told {
  std::string words;
  exit_status end;
};

// What it writes to its standard output and error.
told run(std::vector<std::string> command, confinement allowed = {}) {
  pipe_ends way;
  auto child = child_process::start(
      {.command = std::move(command),
       .environment = tests::calm_sanitizers,
       .descriptors = {{way.in.get(), STDOUT_FILENO}, {way.in.get(), STDERR_FILENO}},
       .confined = std::move(allowed)});
  if (!child) FAIL(child.error().message());
  CHECK(child->locked_in_by().is_closed());
  told all;
  all.words = read_all(way);
  all.end = child->wait();
  return all;
}

told shell(const std::string& script, confinement allowed = {}) {
  return run({"/bin/sh", "-c", script}, std::move(allowed));
}

// With mounts, and by Landlock alone.
const std::vector<std::vector<wall>> both_ways = {{}, {wall::mount_namespace}};

constexpr int patience_ms = 20'000;

}  // namespace

TEST_CASE("a locked-in child ends as it ends", "[walls]") {
  for (const auto& without : both_ways) {
    const confinement allowed{.without = without};
    CHECK(run({"true"}, allowed).end == exit_status{});
    CHECK(shell("exit 7", allowed).end == exit_status{.code = 7});
    CHECK(shell("kill -9 $$", allowed).end == exit_status{.signal = SIGKILL});
    CHECK(shell("echo a | cat; ls /usr >/dev/null && echo b", allowed).words == "a\nb\n");
  }
}

TEST_CASE("a program that is not there is the same error for one that is to be locked in",
          "[walls]") {
  for (const std::string program :
       {"no-such-program-here", "/no/such/program", "/etc/passwd", "/etc/passwd/sh", "/etc", ""}) {
    INFO(program);
    const auto usual = child_process::start({.command = {program}});
    const auto confined = child_process::start({.command = {program}, .confined = confinement{}});
    CHECK(usual.error());
    CHECK(confined.error() == usual.error());
  }
}

TEST_CASE("an allowed path that is not there, or is everything, is refused", "[walls]") {
  const auto error_of = [](confinement allowed) {
    return child_process::start({.command = {"true"}, .confined = std::move(allowed)}).error();
  };
  CHECK(error_of({.reads = {"/no/such/place"}}) == bus::errc::not_found);
  CHECK(error_of({.writes = {"/tmp/no/such/place"}}) == bus::errc::not_found);
  CHECK(error_of({.reads = {"/"}}) == std::errc::invalid_argument);
  CHECK(error_of({.writes = {"/usr/.."}}) == std::errc::invalid_argument);
}

TEST_CASE("a locked-in child reads what it may read, and does not change it", "[walls]") {
  const room place;
  REQUIRE(::symlink(place.path().c_str(), place.in("link").c_str()) == 0);
  for (const auto& without : both_ways) {
    const confinement allowed{.reads = {place.path()}, .without = without};
    CHECK(shell("cat " + place.in("word"), allowed).words == "allowed\n");
    CHECK(shell("cat " + place.in("link/word"), allowed).words == "allowed\n");
    CHECK(shell("ls " + place.path(), allowed).words == "link\nword\n");
    for (const char* change : {"echo x >> W", "rm -f W", "chmod 777 W", "touch W", "mv W W2",
                               "touch N", "ln W N", "truncate -s 0 W", "mkdir N"}) {
      std::string script = change;
      for (std::size_t at = 0; (at = script.find_first_of("WN", at)) != std::string::npos;) {
        const std::string name = place.in(script[at] == 'W' ? "word" : "made");
        script.replace(at, 1, name);
        at += name.size();
      }
      INFO(script);
      CHECK_FALSE(shell(script, allowed).end.succeeded());
    }
    CHECK(place.read("word") == "allowed\n");
    struct stat about {};
    REQUIRE(::stat(place.in("word").c_str(), &about) == 0);
    CHECK((about.st_mode & 07777) == 0600);
    // One file, and nothing beside it.
    const confinement one{.reads = {place.in("word")}, .without = without};
    CHECK(shell("cat " + place.in("word"), one).words == "allowed\n");
    CHECK_FALSE(shell("ls " + place.in("link/"), one).end.succeeded());
  }
}

TEST_CASE("a locked-in child changes what it may change, and leads nowhere by that", "[walls]") {
  const room place;
  for (const auto& without : both_ways) {
    const confinement allowed{.writes = {place.path()}, .without = without};
    CHECK(shell("cd " + place.path() + " && cat word && echo new > made && mv made script", allowed)
              .words == "allowed\n");
    CHECK(place.read("script") == "new\n");
    CHECK_FALSE(shell("cd " + place.path() + " && ln -sf /etc/shadow link && cat link", allowed)
                    .end.succeeded());
    ::unlink(place.in("script").c_str());
  }
  // A tree that may be read, with one in it that may be changed.
  const room outer;
  REQUIRE(::mkdir(outer.in("made").c_str(), 0700) == 0);
  const confinement nested{.reads = {outer.path()}, .writes = {outer.in("made")}};
  CHECK(shell("cat " + outer.in("word") + " && echo x > " + outer.in("made/x") + " && rm " +
                  outer.in("made/x") + " && ! touch " + outer.in("x") + " 2>/dev/null",
              nested)
            .words == "allowed\n");
  REQUIRE(::rmdir(outer.in("made").c_str()) == 0);
}

TEST_CASE("a locked-in child has an empty /tmp of its own, if it has mounts of its own",
          "[walls]") {
  const told all = shell("ls -A /tmp; echo x > /tmp/x && cat /tmp/x; : > /dev/shm/y; ls /tmp");
  if (!child_process::start({.command = {"true"}, .confined = confinement{}})
           ->locked_in_by()
           .holds(wall::mount_namespace)) {
    return;
  }
  CHECK(all.words == "x\nx\ny\n");
}

TEST_CASE("a script runs, by its interpreter or by the shell", "[walls]") {
  const room place;
  place.write("script", "#!/bin/sh\necho \"$0 $1\"\n", 0755);
  place.write("made", "echo bare \"$1\"\n", 0755);
  for (const auto& without : both_ways) {
    const confinement allowed{.without = without};
    CHECK(run({place.in("script"), "x"}, allowed).words == place.in("script") + " x\n");
    CHECK(run({place.in("made"), "x"}, allowed).words == "bare x\n");
  }
}

TEST_CASE("python runs, with threads and processes of its own", "[walls]") {
  if (::access("/usr/bin/python3", X_OK) != 0) return;
  const std::string script =
      "import threading, subprocess, tempfile\n"
      "t = threading.Thread(target=lambda: print('thread', flush=True))\n"
      "t.start(); t.join()\n"
      "print(subprocess.check_output(['echo', 'process']).decode(), end='')\n";
  for (const auto& without : both_ways) {
    CHECK(run({"/usr/bin/python3", "-c", script}, {.without = without}).words ==
          "thread\nprocess\n");
  }
}

TEST_CASE("a locked-in child has the descriptors that it is given, and no others", "[walls]") {
  pipe_ends a;
  pipe_ends way;
  const fd forgotten(::fcntl(a.in.get(), F_DUPFD, 50));
  // 3 is the directory that ls reads.
  child_plan plan{.command = {"/bin/sh", "-c", "echo x >&4; exec ls /proc/self/fd"},
                  .descriptors = {{way.in.get(), STDOUT_FILENO}, {a.in.get(), 4}},
                  .closes_others = false,
                  .confined = confinement{}};
  auto child = child_process::start(plan);
  REQUIRE(child);
  CHECK(child->wait() == exit_status{});
  CHECK(read_all(way) == "0\n1\n2\n3\n4\n");
}

TEST_CASE("of our environment a locked-in child gets what it may see", "[walls]") {
  const auto set = [](const char* name) { ::setenv(name, name, 1); };
  set("OMNIBUS_TEST_SECRET");
  set("OMNIBUS_TEST_KNOWN");
  set("LC_OMNIBUS_TEST");
  pipe_ends way;
  child_plan plan{.command = {"/bin/sh", "-c",
                              "echo $OMNIBUS_TEST_SECRET,$OMNIBUS_TEST_KNOWN,$LC_OMNIBUS_TEST,"
                              "$OMNIBUS_TEST_GIVEN,${PATH:+PATH}"},
                  .environment = {"OMNIBUS_TEST_GIVEN=OMNIBUS_TEST_GIVEN"},
                  .descriptors = {{way.in.get(), STDOUT_FILENO}}};
  const bool is_confined = GENERATE(true, false);
  if (is_confined) plan.confined = confinement{.variables = {"OMNIBUS_TEST_KNOWN"}};
  auto child = child_process::start(plan);
  REQUIRE(child);
  CHECK(child->wait() == exit_status{});
  const std::string rest = ",OMNIBUS_TEST_KNOWN,LC_OMNIBUS_TEST,OMNIBUS_TEST_GIVEN,PATH\n";
  CHECK(read_all(way) == (is_confined ? rest : "OMNIBUS_TEST_SECRET" + rest));
  for (const char* const name : {"OMNIBUS_TEST_SECRET", "OMNIBUS_TEST_KNOWN", "LC_OMNIBUS_TEST"}) {
    ::unsetenv(name);
  }
}

TEST_CASE("what a node needs", "[.]") {
  // The messages of Catch2 are not read: each failure has a code.
  auto must = [code = 10](bool done) mutable {
    if (!done) ::_exit(code);
    ++code;
  };
  const fd memory(::memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  must(memory && ::ftruncate(memory.get(), 4096) == 0);
  must(::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK) == 0);
  must(fd(::open(("/proc/self/fd/" + std::to_string(memory.get())).c_str(), O_RDONLY)).get() >= 0);
  const fd bell(::eventfd(0, EFD_CLOEXEC));
  const fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  const fd all(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event what{.events = EPOLLIN, .data = {}};
  must(::epoll_ctl(all.get(), EPOLL_CTL_ADD, bell.get(), &what) == 0);
  must(::epoll_ctl(all.get(), EPOLL_CTL_ADD, timer.get(), &what) == 0);
  std::array<int, 2> ends{};
  must(::pipe2(ends.data(), O_CLOEXEC) == 0);
  std::array<char, 8> word{"word"};
  const iovec some{.iov_base = word.data(), .iov_len = word.size()};
  must(::vmsplice(ends[1], &some, 1, 0) == 8);
  must(::pwritev2(ends[1], &some, 1, -1, 0) == 8);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  must(::fcntl(ends[1], F_SETLK, &lock) == 0);
  must(fd(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0))).get() >= 0);
  must(::sched_getcpu() >= 0);
  must(::syscall(SYS_membarrier, 0, 0, 0) >= 0);
  int answer = 0;
  std::thread([&] { answer = 1; }).join();
  must(answer == 1);
  must(::raise(SIGURG) == 0);
  // A child of its own, too, and locked in as it is itself.
  auto child = child_process::start({.command = {"sleep", "1000"}});
  must(child && child->signal(SIGKILL) && child->wait() == exit_status{.signal = SIGKILL});
}

TEST_CASE("a locked-in child can be a node, and have children", "[walls]") {
  for (const wall missing : {wall::ipc_namespace, wall::mount_namespace, wall::landlock}) {
    const confinement allowed{.without = {missing}};
    if (!child_process::start({.command = {"true"}, .confined = allowed})) continue;
    CHECK(run({"/proc/self/exe", "what a node needs"}, allowed).end == exit_status{});
  }
  auto child = child_process::start({.command = {"true"}, .confined = confinement{}});
  REQUIRE(child);
  CHECK(child->wait() == exit_status{});
}

// It has a locked-in child that holds descriptor 5.
TEST_CASE("the parent of a locked-in child", "[.]") {
  auto child = child_process::start(
      {.command = {"sleep", "1000"}, .descriptors = {{5, 5}}, .confined = confinement{}});
  const char word = child ? 'y' : 'n';
  if (::write(6, &word, 1) != 1) return;
  ::close(5);
  for (;;) ::pause();
}

TEST_CASE("a locked-in child dies with its parent", "[walls]") {
  pipe_ends life;
  pipe_ends words;
  auto parent =
      child_process::start({.command = {"/proc/self/exe", "the parent of a locked-in child"},
                            .descriptors = {{life.in.get(), 5}, {words.in.get(), 6}}});
  REQUIRE(parent);
  life.in.reset();
  words.in.reset();
  char word = 0;
  REQUIRE(::read(words.out.get(), &word, 1) == 1);
  CHECK(word == 'y');
  pollfd end{.fd = life.out.get(), .events = POLLIN, .revents = 0};
  CHECK(::poll(&end, 1, 0) == 0);
  REQUIRE(parent->signal(SIGKILL));
  REQUIRE(parent->wait() == exit_status{.signal = SIGKILL});
  CHECK(::poll(&end, 1, patience_ms) == 1);
}

TEST_CASE("a locked-in child is ended by its parent", "[walls]") {
  for (const auto& without : both_ways) {
    auto child = child_process::start(
        {.command = {"sleep", "1000"}, .confined = confinement{.without = without}});
    REQUIRE(child);
    REQUIRE(child->signal(SIGTERM));
    CHECK(child->wait() == exit_status{.signal = SIGTERM});
  }
}
