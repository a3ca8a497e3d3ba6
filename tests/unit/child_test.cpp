// Children of a node: what they find, how their ends are heard, and when they run again.
#include "tests/unit/family.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <sys/wait.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using tests::family;
using tests::patience;
using tests::reading;

namespace {

constexpr std::uint64_t many = 1000;

std::ptrdiff_t lines_in(const std::string& path) {
  std::ifstream file(path);
  return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
}

}  // namespace

namespace Catch {
template <>
struct StringMaker<bus::exit_status> {
  static std::string convert(const bus::exit_status& how) { return how.describe(); }
};
}  // namespace Catch

// This program once more, as the child of the first case.
TEST_CASE("a child that publishes", "[.]") {
  bus::node here({.name = "child", .transports = {transports::shm()}});
  auto numbers = here.advertise<reading>("numbers");
  REQUIRE(numbers.wait_matched(1, patience));
  for (std::uint64_t i = 1; i <= many; ++i) {
    REQUIRE(numbers.publish_wait(reading{i}, patience));
  }
}

TEST_CASE("a child finds its parent's bus directory by itself, and its end is heard") {
  family one;
  auto heard = one.parent.subscribe<reading>("numbers", {.when_full = bus::drop::none});
  auto child = bus::spawn(one.parent, {"/proc/self/exe", "a child that publishes"});
  REQUIRE(child.pid() > 0);
  std::uint64_t next = 1;
  while (next <= many) {
    const auto got = heard.take(patience);
    REQUIRE(got);
    REQUIRE((*got)->number == next++);
  }
  REQUIRE(child.wait(patience) == bus::exit_status{});
  REQUIRE(child.pid() == -1);
  REQUIRE(child.restarts() == 0);
  REQUIRE(heard.accounts().delivered == many);
}

TEST_CASE("a program that cannot be started is an error that names it and the next step") {
  family one;
  using Catch::Matchers::Contains;
  REQUIRE_THROWS_WITH(bus::spawn(one.parent, {"no-such-program"}),
                      Contains("cannot start no-such-program") && Contains("in $PATH"));
  REQUIRE_THROWS_WITH(bus::spawn(one.parent, {"/etc/passwd"}), Contains("chmod +x"));
  REQUIRE_THROWS_WITH(bus::spawn(one.parent, {}), Contains("no program was named"));
  REQUIRE(::waitpid(-1, nullptr, WNOHANG) == -1);
}

TEST_CASE("a child that failed runs again, later each time, and one that did not has ended") {
  family one;
  const std::string lives = one.file("lives");
  auto failing = one.shell("echo >> " + lives + "; exit 3", {.restarts = bus::restart::on_failure});
  const auto began = std::chrono::steady_clock::now();
  REQUIRE(one.turn([&] { return failing.restarts() == 3 && failing.pid() == -1; }));
  // 100, 200 and 400 ms.
  REQUIRE(std::chrono::steady_clock::now() - began >= 700ms);
  REQUIRE(failing.last_end() == bus::exit_status{.code = 3});
  REQUIRE_FALSE(failing.wait(0s));
  REQUIRE(failing.stop(patience) == bus::exit_status{.code = 3});
  REQUIRE(lines_in(lives) == 4);

  auto content = one.shell("exit 0", {.restarts = bus::restart::on_failure});
  REQUIRE(content.wait(patience) == bus::exit_status{});
  REQUIRE(content.restarts() == 0);
  auto untiring = one.shell("exit 0", {.restarts = bus::restart::always});
  REQUIRE(one.turn([&] { return untiring.restarts() == 1; }));
}

TEST_CASE("a child that is killed is a child that failed") {
  family one;
  auto child = bus::spawn(one.parent, {"sleep", "1000"}, {.restarts = bus::restart::on_failure});
  const pid_t first = child.pid();
  REQUIRE(child.signal(SIGKILL));
  REQUIRE(one.turn([&] { return child.restarts() == 1; }));
  REQUIRE(child.last_end() == bus::exit_status{.signal = SIGKILL});
  REQUIRE(child.pid() > 0);
  REQUIRE(child.pid() != first);
}

TEST_CASE("stop asks first, kills who does not listen, and starts nothing again") {
  family one;
  auto willing = bus::spawn(one.parent, {"sleep", "1000"}, {.restarts = bus::restart::always});
  REQUIRE(willing.stop(patience) == bus::exit_status{.signal = SIGTERM});
  auto stubborn = one.shell("trap '' TERM; echo > " + one.file("ready") + "; exec sleep 1000",
                            {.restarts = bus::restart::always});
  REQUIRE(one.turn([&] { return std::filesystem::exists(one.file("ready")); }));
  REQUIRE(stubborn.stop(50ms) == bus::exit_status{.signal = SIGKILL});
  REQUIRE(willing.restarts() + stubborn.restarts() == 0);
  // A child that stands still cannot listen.
  auto still = bus::spawn(one.parent, {"sleep", "1000"});
  REQUIRE(still.signal(SIGSTOP));
  siginfo_t about{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(still.pid()), &about, WSTOPPED | WNOWAIT) == 0);
  REQUIRE(still.stop(50ms) == bus::exit_status{.signal = SIGKILL});
}

TEST_CASE("a child that rests between two lives is over when it is stopped") {
  family one;
  auto child = one.shell("exit 5", {.restarts = bus::restart::always});
  REQUIRE(one.turn([&] { return child.last_end().has_value(); }));
  REQUIRE(child.stop(patience) == bus::exit_status{.code = 5});
  one.parent.run_for(200ms);
  REQUIRE(child.restarts() == 0);
}

TEST_CASE("coroutines wait for the ends of children") {
  family one;
  asio::io_context& context = one.parent.context();
  auto quick = one.shell("exit 4");
  auto stubborn = one.shell("trap '' TERM; echo > " + one.file("ready") + "; exec sleep 1000");
  REQUIRE(one.turn([&] { return std::filesystem::exists(one.file("ready")); }));
  std::vector<bus::exit_status> ends;
  asio::co_spawn(
      context,
      [&]() -> asio::awaitable<void> {
        ends.push_back(co_await quick.ended());
        ends.push_back(co_await stubborn.stopped(50ms));
        ends.push_back(co_await stubborn.ended());
      },
      asio::detached);
  REQUIRE(one.turn([&] { return ends.size() == 3; }));
  REQUIRE(ends ==
          std::vector<bus::exit_status>{{.code = 4}, {.signal = SIGKILL}, {.signal = SIGKILL}});
}

TEST_CASE("a callback may stop a child, and wait for one") {
  family one;
  auto willing = bus::spawn(one.parent, {"sleep", "1000"});
  auto quick = one.shell("exit 6");
  std::vector<bus::exit_status> ends;
  const auto listener = one.parent.subscribe<reading>("go", [&](const auto&) {
    ends.push_back(willing.stop(patience));
    ends.push_back(quick.wait(patience).value_or(bus::exit_status{}));
  });
  auto go = one.parent.advertise<reading>("go");
  REQUIRE(go.wait_matched(1, patience));
  REQUIRE(go.publish({1}));
  REQUIRE(one.turn([&] { return ends.size() == 2; }));
  REQUIRE(ends == std::vector<bus::exit_status>{{.signal = SIGTERM}, {.code = 6}});
}

TEST_CASE("a handle that goes takes its child with it") {
  family one;
  { const auto child = bus::spawn(one.parent, {"sleep", "1000"}); }
  REQUIRE(::waitpid(-1, nullptr, WNOHANG) == -1);
}
