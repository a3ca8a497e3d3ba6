// Children: what they get, how they end, and with whom.
#include "bus/base/child_process.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace {

using bus::child_plan;
using bus::child_process;
using bus::exit_status;

struct pipe_ends {
  bus::fd out;  // to read from
  bus::fd in;
  pipe_ends() {
    std::array<int, 2> made{};
    REQUIRE(::pipe2(made.data(), O_CLOEXEC) == 0);
    out = bus::fd(made[0]);
    in = bus::fd(made[1]);
  }
};

child_process started(const child_plan& plan) {
  auto made = child_process::start(plan);
  if (!made) FAIL(made.error().message());
  return std::move(*made);
}

child_plan shell(const std::string& script) { return {.command = {"sh", "-c", script}}; }

// What the child writes to descriptor 1, until nobody can write there any more.
std::string said_by(child_plan plan) {
  pipe_ends way;
  plan.descriptors.emplace_back(way.in.get(), STDOUT_FILENO);
  auto child = started(plan);
  way.in.reset();
  std::string all;
  std::array<char, 4096> some{};
  for (ssize_t got = 0; (got = ::read(way.out.get(), some.data(), some.size())) > 0;) {
    all.append(some.data(), static_cast<std::size_t>(got));
  }
  REQUIRE(child.wait() == exit_status{});
  return all;
}

bool is_readable(int descriptor, int timeout_ms) {
  pollfd one{.fd = descriptor, .events = POLLIN, .revents = 0};
  return ::poll(&one, 1, timeout_ms) == 1;
}

constexpr int patience_ms = 20'000;

}  // namespace

TEST_CASE("how a child ended is told as it was") {
  REQUIRE(started(shell("exit 0")).wait() == exit_status{});
  REQUIRE(started(shell("exit 7")).wait() == exit_status{.code = 7});
  const exit_status killed = started(shell("kill -9 $$")).wait();
  REQUIRE(killed == exit_status{.signal = SIGKILL});
  REQUIRE(killed.as_code() == 137);
  REQUIRE(killed.describe() == "was killed by signal 9 (Killed)");
  REQUIRE(exit_status{.code = 3}.describe() == "ended with 3");
  REQUIRE_FALSE(killed.succeeded());
}

TEST_CASE("a child that runs has no end yet, and its handle says when it has") {
  pipe_ends hold;
  child_plan plan = shell("read word");
  plan.descriptors = {{hold.out.get(), STDIN_FILENO}};
  auto child = started(plan);
  REQUIRE_FALSE(child.poll());
  REQUIRE_FALSE(is_readable(child.handle(), 0));
  hold.in.reset();
  REQUIRE(is_readable(child.handle(), patience_ms));
  REQUIRE(child.poll() == exit_status{.code = 1});
  REQUIRE(child.poll() == exit_status{.code = 1});
  REQUIRE(child.signal(SIGKILL));
}

TEST_CASE("a program that is not there is an error, and leaves no process") {
  REQUIRE(child_process::start({.command = {"no-such-program-here"}}).error() ==
          std::errc::no_such_file_or_directory);
  REQUIRE(child_process::start({.command = {"/etc/passwd"}}).error() == bus::errc::denied);
  REQUIRE(child_process::start({.command = {"/etc/passwd/sh"}, .is_bound = false}).error() ==
          std::errc::not_a_directory);
  REQUIRE(::waitpid(-1, nullptr, WNOHANG) == -1);
  REQUIRE(errno == ECHILD);
}

TEST_CASE("a child has the descriptors that it is given, under their numbers, and no others") {
  pipe_ends a;
  pipe_ends b;
  // Numbers that are in each other's way, and one that somebody forgot to mark close-on-exec.
  const int forgotten = ::fcntl(a.in.get(), F_DUPFD, 0);
  child_plan plan = shell("echo a >&4; echo b >&5; ls /proc/self/fd");
  plan.descriptors = {{a.in.get(), 4}, {b.in.get(), 5}, {::dup(STDERR_FILENO), 9}};
  REQUIRE(::dup2(a.in.get(), 104) == 104);
  REQUIRE(::dup2(b.in.get(), 105) == 105);
  plan.descriptors.emplace_back(104, 7);
  plan.descriptors.emplace_back(105, 6);
  std::set<std::string> numbers;
  std::string word;
  for (const char each : said_by(plan)) {
    if (each != '\n') {
      word += each;
    } else {
      numbers.insert(std::exchange(word, {}));
    }
  }
  // 3 is the directory that ls reads.
  REQUIRE(numbers == std::set<std::string>{"0", "1", "2", "3", "4", "5", "6", "7", "9"});
  std::array<char, 2> got{};
  REQUIRE(::read(a.out.get(), got.data(), got.size()) == 2);
  REQUIRE(got[0] == 'a');
  REQUIRE(::read(b.out.get(), got.data(), got.size()) == 2);
  REQUIRE(got[0] == 'b');
  ::close(plan.descriptors[2].first);
  for (const int each : {forgotten, 104, 105}) ::close(each);
}

TEST_CASE("descriptors change places") {
  pipe_ends a;
  pipe_ends b;
  REQUIRE(::dup3(a.in.get(), 104, O_CLOEXEC) == 104);
  REQUIRE(::dup3(b.in.get(), 105, O_CLOEXEC) == 105);
  // sh knows no numbers of three digits.
  const child_plan plan{.command = {"bash", "-c", "echo b >&104; echo a >&105"},
                        .descriptors = {{104, 105}, {105, 104}}};
  REQUIRE(started(plan).wait() == exit_status{});
  std::array<char, 2> got{};
  REQUIRE(::read(a.out.get(), got.data(), got.size()) == 2);
  REQUIRE(got[0] == 'a');
  REQUIRE(::read(b.out.get(), got.data(), got.size()) == 2);
  REQUIRE(got[0] == 'b');
  for (const int each : {104, 105}) ::close(each);
}

TEST_CASE("a child that wants it has what others would have after exec") {
  pipe_ends a;
  const bus::fd open(::fcntl(a.in.get(), F_DUPFD, 50));
  child_plan plan{.command = {"bash", "-c", "test -e /proc/self/fd/" + std::to_string(open.get())},
                  .closes_others = false};
  REQUIRE(started(plan).wait() == exit_status{});
  plan.closes_others = true;
  REQUIRE(started(plan).wait() == exit_status{.code = 1});
}

TEST_CASE("no signal is blocked in a child, and SIGPIPE ends it as it ends others") {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const auto pipe_before = ::signal(SIGPIPE, SIG_IGN);
  const auto hangup_before = ::signal(SIGHUP, SIG_IGN);
  const auto usr_before = ::signal(SIGUSR1, [](int) {});
  const std::string status = said_by({.command = {"grep", "^Sig[BIC]", "/proc/self/status"}});
  const exit_status by_pipe = started(shell("kill -PIPE $$; exit 3")).wait();
  const exit_status by_hangup = started(shell("kill -HUP $$; exit 3")).wait();
  const exit_status by_usr = started(shell("kill -USR1 $$; exit 3")).wait();
  ::signal(SIGPIPE, pipe_before);
  ::signal(SIGHUP, hangup_before);
  ::signal(SIGUSR1, usr_before);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  REQUIRE(status.find("SigBlk:\t0000000000000000") != std::string::npos);
  REQUIRE(by_pipe == exit_status{.signal = SIGPIPE});
  REQUIRE(by_hangup == exit_status{.code = 3});  // as under nohup
  REQUIRE(by_usr == exit_status{.signal = SIGUSR1});
}

TEST_CASE("a child may run where the thread that asked for it may, and is as nice") {
  REQUIRE(started(shell("exit 0")).wait() ==
          exit_status{});  // the thread that starts them is there
  std::string allowed;
  std::string nice;
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(::sched_getcpu(), &one);
    if (::sched_setaffinity(0, sizeof one, &one) != 0) return;
    if (::setpriority(PRIO_PROCESS, 0, 7) != 0) return;
    allowed = said_by(shell("nproc"));
    nice = said_by(shell("nice"));
  }).join();
  REQUIRE(allowed == "1\n");
  REQUIRE(nice == "7\n");
}

TEST_CASE("what the environment is told comes before what it was") {
  ::setenv("OMNIBUS_TEST_WORD", "ours", 1);
  child_plan plan = shell("echo $OMNIBUS_TEST_WORD $OMNIBUS_TEST_OTHER");
  REQUIRE(said_by(plan) == "ours\n");
  plan.environment = {"OMNIBUS_TEST_WORD=theirs", "OMNIBUS_TEST_OTHER=too"};
  REQUIRE(said_by(plan) == "theirs too\n");
  ::unsetenv("OMNIBUS_TEST_WORD");
}

TEST_CASE("a child whose owner lets go of it is killed") {
  pipe_ends life;
  {
    child_plan plan{.command = {"sleep", "1000"}};
    plan.descriptors = {{life.in.get(), 5}};
    auto child = started(plan);
    life.in.reset();
    REQUIRE_FALSE(is_readable(life.out.get(), 0));
  }
  REQUIRE(is_readable(life.out.get(), 0));  // its end is over, not only begun
}

// Both are this program once more, as the parents of the two cases below: they have a child that
// holds descriptor 5, and the second ends before it.
TEST_CASE("the parent of a bound child", "[.]") {
  child_plan plan{.command = {"sleep", "1000"}, .descriptors = {{5, 5}}};
  std::optional<child_process> child;
  std::thread([&] { child.emplace(started(plan)); }).join();
  // Killed by the end of that thread, it would be gone within this time, and much sooner.
  const char word = is_readable(child->handle(), 300) ? 'n' : 'y';
  REQUIRE(::write(6, &word, 1) == 1);
  ::close(5);
  for (;;) ::pause();
}

TEST_CASE("the parent of a child that is not bound", "[.]") {
  child_plan plan = shell("read word; echo done >&5");
  plan.descriptors = {{5, 5}, {6, STDIN_FILENO}};
  plan.is_bound = false;
  const auto child = started(plan);
  ::kill(::getpid(), SIGKILL);
}

TEST_CASE("47 a bound child outlives the thread that asked for it, and no parent") {
  // The grandchild has the only write end: our read end tells when it is gone.
  pipe_ends life;
  pipe_ends words;
  auto parent = started({.command = {"/proc/self/exe", "the parent of a bound child"},
                         .descriptors = {{life.in.get(), 5}, {words.in.get(), 6}}});
  life.in.reset();
  words.in.reset();
  char word = 0;
  REQUIRE(::read(words.out.get(), &word, 1) == 1);
  CHECK(word == 'y');
  CHECK_FALSE(is_readable(life.out.get(), 0));
  REQUIRE(parent.signal(SIGKILL));
  REQUIRE(parent.wait() == exit_status{.signal = SIGKILL});
  REQUIRE(is_readable(life.out.get(), patience_ms));
}

TEST_CASE("a child that is not bound goes on when we are gone") {
  pipe_ends life;
  pipe_ends hold;
  auto parent = started({.command = {"/proc/self/exe", "the parent of a child that is not bound"},
                         .descriptors = {{life.in.get(), 5}, {hold.out.get(), 6}}});
  life.in.reset();
  hold.out.reset();
  REQUIRE(parent.wait() == exit_status{.signal = SIGKILL});
  REQUIRE_FALSE(is_readable(life.out.get(), 0));
  REQUIRE(::write(hold.in.get(), "go\n", 3) == 3);
  std::array<char, 8> got{};
  REQUIRE(::read(life.out.get(), got.data(), got.size()) == 5);
}
