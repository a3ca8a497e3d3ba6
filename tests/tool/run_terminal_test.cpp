// `bus run` in a terminal, as a shell with job control runs it: what is typed reaches the program
// once, and the shell sees of `bus run` what it would have seen of the program.
#include "bus/base/clock.hpp"
#include "bus/base/fd.hpp"
#include "tests/tool/workbench.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using namespace tool_tests;

namespace {

constexpr int patience_ms = 20'000;

// A terminal in which a shell runs `bus words...` in the foreground, in a group of its own.
class terminal {
 public:
  terminal(const scratch& where, std::vector<std::string> words) {
    words.insert(words.begin(), BUS_COMMAND);
    std::vector<char*> raw;
    for (std::string& word : words) raw.push_back(word.data());
    raw.push_back(nullptr);
    const std::string directory = where.path() + "/bus";
    std::array<int, 2> news{};
    std::array<int, 2> orders{};
    REQUIRE(::pipe2(news.data(), O_CLOEXEC) == 0);
    REQUIRE(::pipe2(orders.data(), O_CLOEXEC) == 0);
    int master = -1;
    shell_ = ::forkpty(&master, nullptr, nullptr, nullptr);
    REQUIRE(shell_ >= 0);
    if (shell_ == 0) {
      ::setenv("OMNIBUS_DIR", directory.c_str(), 1);
      be_shell(raw.data(), {.news = news[1], .orders = orders[0]});
    }
    master_ = bus::fd(master);
    news_ = bus::fd(news[0]);
    orders_ = bus::fd(orders[1]);
    ::close(news[1]);
    ::close(orders[0]);
  }
  ~terminal() {
    ::kill(shell_, SIGKILL);
    ::waitpid(shell_, nullptr, 0);
  }
  terminal(const terminal&) = delete;
  terminal& operator=(const terminal&) = delete;

  void type(const std::string& keys) const {
    REQUIRE(::write(master_.get(), keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()));
  }
  // Whether the terminal shows `part`, sooner or later.
  [[nodiscard]] bool shows(const std::string& part) {
    while (!has(seen_, part)) {
      std::array<char, 1024> some{};
      if (!is_readable(master_)) return false;
      const ssize_t got = ::read(master_.get(), some.data(), some.size());
      if (got <= 0) return false;
      seen_.append(some.data(), static_cast<std::size_t>(got));
    }
    return true;
  }
  [[nodiscard]] const std::string& seen() const noexcept { return seen_; }
  // The next that the shell is told of its job: a status of waitpid(); -1: nothing.
  [[nodiscard]] int next() const {
    int status = -1;
    if (!is_readable(news_) || ::read(news_.get(), &status, sizeof status) != sizeof status) {
      return -1;
    }
    return status;
  }
  // As the shell's `fg`.
  void foreground() const { REQUIRE(::write(orders_.get(), "f", 1) == 1); }

 private:
  static bool is_readable(const bus::fd& one) {
    pollfd watched{.fd = one.get(), .events = POLLIN, .revents = 0};
    return ::poll(&watched, 1, patience_ms) == 1;
  }

  struct lines {
    int news;
    int orders;
  };
  // The child of a process that may have threads: nothing here allocates.
  [[noreturn]] static void be_shell(char* const* words, lines to_test) {
    // To take the terminal back from the background.
    ::signal(SIGTTOU, SIG_IGN);
    const pid_t job = ::fork();
    if (job == 0) {
      ::setpgid(0, 0);
      ::tcsetpgrp(0, ::getpid());
      for (const int one : {SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU}) ::signal(one, SIG_DFL);
      sigset_t none;
      ::sigemptyset(&none);
      ::sigprocmask(SIG_SETMASK, &none, nullptr);
      ::execv(BUS_COMMAND, words);
      ::_exit(126);
    }
    int status = 0;
    while (::waitpid(job, &status, WUNTRACED) == job) {
      ::tcsetpgrp(0, ::getpgrp());
      static_cast<void>(!::write(to_test.news, &status, sizeof status));
      char order = 0;
      if (!WIFSTOPPED(status) || ::read(to_test.orders, &order, 1) != 1) break;
      ::tcsetpgrp(0, job);
      ::kill(-job, SIGCONT);
    }
    // The terminal stays until all that it shows is read.
    for (;;) ::pause();
  }

  pid_t shell_ = -1;
  bus::fd master_;
  bus::fd news_;
  bus::fd orders_;
  std::string seen_;
};

// "T": stopped; empty: there is no such process.
std::string state_of(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  const std::string all{std::istreambuf_iterator<char>(file), {}};
  const std::size_t name_end = all.rfind(')');
  return name_end == std::string::npos ? "" : all.substr(name_end + 2, 1);
}

// Whether it is stopped, or goes on, sooner or later: nothing tells of a process that is not ours.
bool becomes(pid_t process, bool is_stopped) {
  const auto until = bus::deadline::after(std::chrono::milliseconds(patience_ms));
  while (!until.passed()) {
    if ((state_of(process) == "T") == is_stopped) return true;
    ::poll(nullptr, 0, 1);
  }
  return false;
}

// What stands between `before` and the end of its line.
std::string word_after(const std::string& text, const std::string& before) {
  const std::size_t from = text.find(before);
  if (from == std::string::npos) return {};
  return text.substr(from + before.size(), text.find_first_of("\r\n", from) - from - before.size());
}

}  // namespace

TEST_CASE("Ctrl-C ends a program and bus run by the same signal: 130 for a shell") {
  const scratch where;
  const bool is_published = GENERATE(false, true);
  std::vector<std::string> words = {"run", "--", "sh", "-c", "echo ready; exec sleep 100"};
  if (is_published) words.insert(words.begin() + 1, {"--out", "a", "--tee"});
  terminal one(where, words);
  REQUIRE(one.shows("ready"));
  one.type("\x03");
  const int status = one.next();
  REQUIRE(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGINT);
}

TEST_CASE("a program that takes Ctrl-C for itself gets it once, and ends as it likes") {
  const scratch where;
  terminal one(where, {"run", "--", "sh", "-c",
                       "n=0; trap 'n=$((n+1)); echo caught $n' INT; echo ready; "
                       "while :; do read line || continue; "  // a signal ends a read
                       "echo line $line; test $line = end && exit 7; done"});
  REQUIRE(one.shows("ready"));
  one.type("\x03");
  REQUIRE(one.shows("caught 1"));
  one.type("end\n");
  const int status = one.next();
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 7);
  REQUIRE(one.shows("line end"));
  CHECK_FALSE(has(one.seen(), "caught 2"));
}

TEST_CASE("Ctrl-Z stops bus run and its program together, and fg lets both go on") {
  const scratch where;
  terminal one(where, {"run", "--", "sh", "-c",
                       "echo program $$; while read line; do echo got $line; "
                       "test $line = end && exit 0; done; exit 9"});
  REQUIRE(one.shows("program "));
  one.type("first\n");
  REQUIRE(one.shows("got first"));
  const pid_t program = std::stoi(word_after(one.seen(), "program "));
  for (int i = 0; i < 2; ++i) {
    one.type("\x1a");
    const int status = one.next();
    REQUIRE(WIFSTOPPED(status));
    CHECK(becomes(program, true));
    one.foreground();
    CHECK(becomes(program, false));
    const std::string line = "again" + std::to_string(i);
    one.type(line + "\n");
    REQUIRE(one.shows("got " + line));
  }
  one.type("end\n");
  const int status = one.next();
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("Ctrl-C after Ctrl-Z and fg ends both") {
  const scratch where;
  terminal one(where, {"run", "--", "sh", "-c", "echo ready; exec cat"});
  REQUIRE(one.shows("ready"));
  one.type("\x1a");
  REQUIRE(WIFSTOPPED(one.next()));
  one.foreground();
  one.type("here\n");
  REQUIRE(one.shows("here\r\nhere"));
  one.type("\x03");
  const int status = one.next();
  REQUIRE(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGINT);
}

TEST_CASE("Ctrl-D ends a program's input and nothing else") {
  const scratch where;
  terminal one(where, {"run", "--", "sh", "-c", "echo ready; cat; echo over; exit 3"});
  REQUIRE(one.shows("ready"));
  one.type("\x04");
  REQUIRE(one.shows("over"));
  const int status = one.next();
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 3);
}

TEST_CASE("who stops and continues bus run alone stops and continues its program, too") {
  const scratch where;
  bus::node reader(where.options("reader"));
  auto said = reader.subscribe<bus::raw>("said");
  running one(where, {"run", "--out", "said", "--", "sh", "-c",
                      "trap 'exit 4' USR1; echo $$ $PPID; while :; do sleep 0.05; done"});
  const auto got = said.take(20s);
  REQUIRE(got);
  const std::string text(reinterpret_cast<const char*>(got->bytes().data()), got->bytes().size());
  const pid_t program = std::stoi(text);
  const pid_t runner = std::stoi(text.substr(text.find(' ')));
  one.send_signal(SIGTSTP);
  CHECK(becomes(program, true));
  CHECK(becomes(runner, true));
  one.send_signal(SIGCONT);
  CHECK(becomes(runner, false));
  CHECK(becomes(program, false));
  one.send_signal(SIGUSR1);
  CHECK(one.wait().code == 4);
}
