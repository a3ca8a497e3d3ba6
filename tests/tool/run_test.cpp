// `bus run` with real programs: what flows comes out byte for byte, and the program is as if it had
// been started without us.
#include "bus/base/fd.hpp"
#include "tests/tool/workbench.hpp"

#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using namespace tool_tests;

namespace {

std::string random_bytes(std::size_t size) {
  const unsigned seed = std::random_device{}();
  UNSCOPED_INFO("seed " << seed);
  std::mt19937 dice(seed);
  std::string made(size, '\0');
  for (char& each : made) each = static_cast<char>(dice());
  return made;
}

std::string file_with(const scratch& where, const std::string& bytes) {
  static int files = 0;
  const std::string path = where.path() + "/file" + std::to_string(++files);
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string text_of(const bus::received<bus::raw>& message) {
  return {reinterpret_cast<const char*>(message.bytes().data()), message.bytes().size()};
}

// What comes out of `bus run --in` when `bytes` went into `bus run --out`.
std::string carried(const std::string& bytes, const std::vector<std::string>& framing) {
  const scratch where;
  std::vector<std::string> out = {"run", "--out", "a", "-w", "1", "--timeout", "60"};
  std::vector<std::string> in = {"run", "--in", "a"};
  out.insert(out.end(), framing.begin(), framing.end());
  in.insert(in.end(), framing.begin(), framing.end());
  for (const char* const word : {"--", "cat"}) {
    out.emplace_back(word);
    in.emplace_back(word);
  }
  out.push_back(file_with(where, bytes));
  running reader(where, in);
  running writer(where, out);
  const outcome read = reader.wait();
  const outcome written = writer.wait();
  CHECK(read.code == 0);
  CHECK(read.err.empty());
  CHECK(written.code == 0);
  CHECK(written.err.empty());
  CHECK(written.out.empty());
  return read.out;
}

std::string framed(const std::string& payload) {
  std::string made;
  for (std::size_t i = 0; i < 4; ++i) {
    made += static_cast<char>(static_cast<unsigned char>(payload.size() >> (8 * i)));
  }
  return made + payload;
}

// Something that a program waits for until the test allows it.
class gate {
 public:
  explicit gate(const scratch& where) : path_(where.path() + "/gate") {
    REQUIRE(::mkfifo(path_.c_str(), 0600) == 0);
    // Of both ends, so that nobody waits for the other to open it.
    fifo_ = bus::fd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
    REQUIRE(fifo_);
  }
  // For a shell.
  [[nodiscard]] std::string waited_for() const { return "read go < " + path_; }
  void open() const { REQUIRE(::write(fifo_.get(), "go\n", 3) == 3); }

 private:
  std::string path_;
  bus::fd fifo_;
};

// Whether the process has ended, its parent having looked or not.
bool ends(pid_t process) {
  const bus::fd handle(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
  if (!handle) return true;
  pollfd end{.fd = handle.get(), .events = POLLIN, .revents = 0};
  return ::poll(&end, 1, 20'000) == 1;
}

}  // namespace

TEST_CASE("what a program writes another one reads byte for byte, in every framing") {
  const std::string random = random_bytes(1 << 20);
  for (const std::vector<std::string>& framing :
       std::vector<std::vector<std::string>>{{}, {"--nul"}, {"--chunks", "1000"}}) {
    INFO((framing.empty() ? "--lines" : framing.front()));
    CHECK((carried(random, framing) == random));
  }
  std::string frames;
  for (std::size_t at = 0; at < random.size(); at += 65'537) {
    frames += framed(random.substr(at, 65'537)) + framed("");
  }
  CHECK((carried(frames, {"--frames"}) == frames));
}

TEST_CASE("an empty output, one without a last newline and a line of 10 MiB come as they are") {
  CHECK(carried("", {}).empty());
  CHECK(carried("one\n\ntwo", {}) == "one\n\ntwo");
  const std::string line = std::string(10 << 20, 'x') + "\nend";
  CHECK((carried(line, {}) == line));
}

TEST_CASE("lines go in order to a slow subscriber that blocks, and none is lost at the end") {
  const scratch where;
  bus::node slow(where.options("slow"));
  auto lines =
      slow.subscribe<bus::raw>("a", {.depth = 4, .when_full = bus::drop::none, .block_for = 60s});
  running writer(where, {"run", "--out", "a", "--", "seq", "1", "3000"});
  for (int i = 1; i <= 3000; ++i) {
    if (i % 1000 == 0) slow.run_for(50ms);
    const auto got = lines.take(60s);
    REQUIRE(got);
    REQUIRE(text_of(*got) == std::to_string(i) + "\n");
  }
  const outcome done = writer.wait();
  CHECK(done.code == 0);
  CHECK(done.err.empty());
  CHECK(lines.accounts().lost_in_all() == 0);
}

TEST_CASE("both outputs may be one topic, in their order, or two") {
  const scratch where;
  bus::node reader(where.options("reader"));
  auto all = reader.subscribe<bus::raw>("all");
  auto errors = reader.subscribe<bus::raw>("errors");
  const std::string script = "for i in 1 2 3; do echo $i; echo e$i >&2; done";
  running one(where, {"run", "--out", "all", "--err", "all", "--", "sh", "-c", script});
  for (const char* const line : {"1\n", "e1\n", "2\n", "e2\n", "3\n", "e3\n"}) {
    const auto got = all.take(20s);
    REQUIRE(got);
    CHECK(text_of(*got) == line);
  }
  CHECK(one.wait().code == 0);
  running two(where, {"run", "--err", "errors", "--tee", "--", "sh", "-c", script});
  for (const char* const line : {"e1\n", "e2\n", "e3\n"}) {
    const auto got = errors.take(20s);
    REQUIRE(got);
    CHECK(text_of(*got) == line);
  }
  const outcome seen = two.wait();
  CHECK(seen.out == "1\n2\n3\n");
  CHECK(seen.err == "e1\ne2\ne3\n");
}

TEST_CASE("the exit code is the program's, and so is the signal of which it died") {
  const scratch where;
  CHECK(where.run({"run", "--", "true"}).code == 0);
  CHECK(where.run({"run", "--out", "a", "--", "sh", "-c", "exit 7"}).code == 7);
  CHECK(where.run({"run", "--", "sh", "-c", "kill -TERM $$"}).code == 128 + SIGTERM);
  CHECK(where.run({"run", "--", "sh", "-c", "kill -9 $$"}).code == 128 + SIGKILL);
}

TEST_CASE("a program that is missing is 127, one that cannot be run 126, and both are said") {
  const scratch where;
  const outcome missing = where.run({"run", "--", "no-such-program"});
  CHECK(missing.code == 127);
  CHECK(has(missing.err, "no-such-program"));
  CHECK(has(missing.err, "$PATH"));
  const outcome refused = where.run({"run", "--", file_with(where, "data")});
  CHECK(refused.code == 126);
  CHECK(has(refused.err, "chmod +x"));
}

TEST_CASE("what cannot be is refused before the program starts, with the next step") {
  const scratch where;
  const auto refused = [&](const std::vector<std::string>& words, const std::string& part) {
    const outcome done = where.run(words);
    INFO(done.err);
    CHECK(done.code == 2);
    CHECK(has(done.err, part));
    CHECK(done.out.empty());
  };
  refused({"run"}, "bus run --out");
  refused({"run", "--lines", "--nul", "--", "echo"}, "take one of");
  refused({"run", "--chunks", "0", "--", "echo"}, "--chunks 0");
  refused({"run", "--chunks", "1048577", "--", "echo"}, "1048576");
  refused({"run", "--out", "a/*", "--", "echo"}, "a/*");
  refused({"run", "--in", "a/**", "--out", "a/b", "--", "echo"}, "would read what it writes");
  refused({"run", "--restart", "often", "--", "echo"}, "often not in {always,never,on-failure}");
  refused({"pipe"}, "bus pipe");
  refused({"pipe", "--frames", "ls", "cat"}, "--frames");
}

TEST_CASE("the program's words are its own, and so are its descriptors") {
  const scratch where;
  const outcome words =
      where.run({"run", "--", "printf", "<%s>", "[a,b]", "", "{}", "--", "-x", "list", "--help"});
  CHECK(words.out == "<[a,b]><><{}><--><-x><list><--help>");
  const outcome open = where.run({"run", "--err", "a", "--", "sh", "-c", "echo /proc/$$/fd/*"});
  CHECK_FALSE(has(open.out, "/fd/4"));
  CHECK(has(open.out, "/fd/2"));
}

TEST_CASE("a signal for us reaches the program, which decides what becomes of it") {
  const scratch where;
  bus::node reader(where.options("reader"));
  auto said = reader.subscribe<bus::raw>("said");
  running one(where, {"run", "--out", "said", "--", "sh", "-c",
                      "trap 'echo usr1' USR1; trap 'echo term; exit 5' TERM; echo ready; "
                      "while :; do sleep 0.05; done"});
  const auto next = [&] {
    const auto got = said.take(20s);
    return got ? text_of(*got) : std::string("nothing");
  };
  REQUIRE(next() == "ready\n");
  one.send_signal(SIGUSR1);
  CHECK(next() == "usr1\n");
  one.send_signal(SIGTERM);
  CHECK(next() == "term\n");
  CHECK(one.wait().code == 5);
}

TEST_CASE("kill -9 of bus run kills the program") {
  const scratch where;
  bus::node reader(where.options("reader"));
  auto said = reader.subscribe<bus::raw>("said");
  pid_t program = 0;
  {
    const running one(where, {"run", "--out", "said", "--", "sh", "-c", "echo $$; exec sleep 100"});
    const auto got = said.take(20s);
    REQUIRE(got);
    program = std::stoi(text_of(*got));
  }
  CHECK(ends(program));
}

TEST_CASE("a program is started again when it fails, until it does not, and that is counted") {
  const scratch where;
  const std::string count = where.path() + "/count";
  const outcome done =
      where.run({"run", "--restart", "on-failure", "--", "sh", "-c",
                 "echo x >> " + count + "; test $(wc -l < " + count + ") = 3 || exit 9"});
  CHECK(done.code == 0);
  CHECK(has(done.err, "sh ended with 9; start 2 in 0.1 s"));
  CHECK(has(done.err, "sh ended with 9; start 3 in 0.2 s"));
  CHECK_FALSE(has(done.err, "start 4"));
}

TEST_CASE("a program that is always started again goes on over one topic until SIGTERM") {
  const scratch where;
  bus::node reader(where.options("reader"));
  auto said = reader.subscribe<bus::raw>("said");
  running one(where, {"run", "--restart", "always", "--out", "said", "--", "echo", "hello"});
  for (int i = 0; i < 3; ++i) {
    const auto got = said.take(20s);
    REQUIRE(got);
    CHECK(text_of(*got) == "hello\n");
    CHECK(got->head().sequence == static_cast<std::uint64_t>(i + 1));
  }
  one.send_signal(SIGTERM);
  const int code = one.wait().code;
  CHECK((code == 128 + SIGTERM || code == 0));
}

TEST_CASE("whoever a program leaves behind with its output is not waited for long") {
  const scratch where;
  bus::node reader(where.options("reader"));
  auto said = reader.subscribe<bus::raw>("said");
  running one(where, {"run", "--out", "said", "--", "sh", "-c", "sleep 100 & echo $!"});
  const auto got = said.take(20s);
  REQUIRE(got);
  const outcome done = one.wait();
  ::kill(std::stoi(text_of(*got)), SIGKILL);
  CHECK(done.code == 0);
  CHECK(has(done.err, "holds its output"));
}

TEST_CASE("a program that wants no more of its input ends as it likes, and the rest is said") {
  const scratch where;
  running reader(where, {"run", "--in", "a", "--", "head", "-c", "5"});
  const outcome sent =
      where.run({"run", "--out", "a", "-w", "1", "--timeout", "60", "--", "seq", "1", "100000"});
  CHECK(sent.code == 0);
  const outcome done = reader.wait();
  CHECK(done.code == 0);
  CHECK(done.out == "1\n2\n3");
  CHECK(has(done.err, "were not read by head"));
}

TEST_CASE("with --keep-open a program's input outlives all who publish") {
  const scratch where;
  running reader(where, {"run", "--in", "a", "--keep-open", "--", "cat"});
  // The second one comes after the first has left: without --keep-open it would find nobody.
  for (const char* const line : {"one", "two"}) {
    const outcome sent =
        where.run({"run", "--out", "a", "-w", "1", "--timeout", "60", "--", "echo", line});
    CHECK(sent.code == 0);
    CHECK(reader.shows(std::string(line) + "\n"));
  }
  reader.send_signal(SIGTERM);
  const outcome done = reader.wait();
  CHECK(done.code == 128 + SIGTERM);
  CHECK(done.out == "one\ntwo\n");
}

TEST_CASE("publishers wait for a program that does not read, until it does") {
  const scratch where;
  const gate go(where);
  running reader(where, {"run", "--in", "a", "--", "sh", "-c", go.waited_for() + "; wc -c"});
  std::uint64_t sent = 0;
  {
    bus::node sender(where.options("sender"));
    auto lines = sender.advertise<bus::raw>("a");
    REQUIRE(lines.wait_matched(1, 20s));
    const std::vector<std::byte> line(50'000);
    // What its pipe and its subscription hold, and then nothing more.
    while (!lines.publish_wait(line, 300ms).error) ++sent;
    CHECK(lines.publish_wait(line, 300ms).error == bus::errc::timed_out);
    go.open();
    for (const std::uint64_t all = sent + 100; sent < all; ++sent) {
      REQUIRE_FALSE(lines.publish_wait(line, 20s).error);
    }
  }
  const outcome done = reader.wait();
  CHECK(done.code == 0);
  CHECK(done.err.empty());
  CHECK(done.out == std::to_string(sent * 50'000) + "\n");
}

TEST_CASE("publishers wait no longer than --block says, and what that loses is said: 125") {
  const scratch where;
  const gate go(where);
  running reader(
      where, {"run", "--in", "a", "--block", "0.2", "--", "sh", "-c", go.waited_for() + "; wc -c"});
  std::uint64_t taken = 0;
  {
    bus::node sender(where.options("sender"));
    auto lines = sender.advertise<bus::raw>("a");
    REQUIRE(lines.wait_matched(1, 20s));
    const std::vector<std::byte> line(50'000);
    for (int missed = 0; missed < 10;) {
      const auto outcome = lines.publish_wait(line, 20s);
      REQUIRE_FALSE(outcome.error);
      missed += static_cast<int>(outcome.blocked);
      if (outcome) ++taken;
    }
    go.open();
  }
  const outcome done = reader.wait();
  INFO(done.err);
  CHECK(done.code == 125);
  CHECK(done.out == std::to_string(taken * 50'000) + "\n");
  CHECK(has(done.err, "10 messages of a were lost on the way"));
}

TEST_CASE("who stands still is waited for a second, and what it missed is said: 125") {
  const scratch where;
  // The program's own code is what somebody waits for, so a loss does not hide that it failed.
  const bool fails = GENERATE(false, true);
  const gate go(where);
  bus::node_options options = where.options("slow");
  options.link_depth = 8;
  bus::node slow(options);
  auto lines = slow.subscribe<bus::raw>("a");
  running writer(where, {"run", "--out", "a", "--chunks", "40000", "--", "sh", "-c",
                         "echo ready; " + go.waited_for() + "; head -c 48000000 /dev/zero; exit " +
                             (fails ? "7" : "0")});
  const auto first = lines.take(20s);
  REQUIRE(first);
  CHECK(text_of(*first) == "ready\n");
  // From here on it does not turn.
  go.open();
  const outcome done = writer.wait();
  INFO(done.err);
  CHECK(done.code == (fails ? 7 : 125));
  CHECK(has(done.err, "messages were missed by a subscriber of a that stood still"));
}

TEST_CASE("no part of a frame is published, and its program is told of") {
  const scratch where;
  bus::node reader(where.options("reader"));
  auto frames = reader.subscribe<bus::raw>("frames");
  const std::string path = file_with(where, framed("whole") + framed("torn").substr(0, 6));
  running torn(where, {"run", "--frames", "--out", "frames", "--", "cat", path});
  const auto got = frames.take(20s);
  REQUIRE(got);
  CHECK(text_of(*got) == "whole");
  const outcome done = torn.wait();
  CHECK(done.code == 125);
  CHECK(has(done.err, "cat does not write frames"));
  CHECK_FALSE(frames.take(100ms));
}

TEST_CASE("what pub reads from a pipe echo --raw writes byte for byte") {
  const scratch where;
  const std::string lines = "one\n\n  two\n" + std::string(3 << 20, 'x') + "\nlast";
  // A piece is 1 MiB at the most: the long line is four.
  running echo(where, {"echo", "--raw", "a", "--count", "8", "--timeout", "60"});
  const outcome sent = where.run({"pub", "--raw", "a", "-w", "1", "--timeout", "60"}, lines);
  CHECK(sent.code == 0);
  CHECK((echo.wait().out == lines));
}

TEST_CASE("pub waits for whoever blocks as long as that asks, and loses nothing") {
  const scratch where;
  bus::node slow(where.options("slow"));
  auto lines =
      slow.subscribe<bus::raw>("a", {.depth = 2, .when_full = bus::drop::none, .block_for = 60s});
  running pub(where, {"pub", "--raw", "a"}, "1\n2\n3\n4\n5\n6\n7\n8\n");
  for (int i = 1; i <= 8; ++i) {
    // Longer than pub waits for a link.
    if (i == 4) slow.run_for(1500ms);
    const auto got = lines.take(20s);
    REQUIRE(got);
    CHECK(text_of(*got) == std::to_string(i) + "\n");
  }
  const outcome done = pub.wait();
  INFO(done.err);
  CHECK(done.code == 0);
}
