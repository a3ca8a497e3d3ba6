// A child that is locked in, its parent, and the rest of the bus, which the child can reach through
// its parent only.
#include "tests/unit/family.hpp"
#include "transports/inproc/inproc.hpp"

#include <chrono>
#include <csignal>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using tests::family;
using tests::household;
using tests::kin;
using tests::patience;
using tests::reading;

namespace {

constexpr std::uint64_t many = 5'000;

// A child that is locked in.
bus::child lock_in(household& with, const std::string& hidden_case, bus::allow rights,
                   bus::restart when = bus::restart::never) {
  return with.start(hidden_case, {.restarts = when, .sandbox = std::move(rights)});
}

bool says(const bus::explanation& told, const std::string& words) {
  return to_text(told).find(words) != std::string::npos;
}

}  // namespace

// This program once more, as a child.
TEST_CASE("a locked-in child that publishes", "[.]") {
  bus::node here(kin("whatever it says"));
  auto out = here.advertise<reading>("allowed/numbers");
  REQUIRE(out.wait_matched(1, patience));
  for (std::uint64_t i = 1; i <= many; ++i) REQUIRE(out.publish_wait(reading{i}, patience));
}

TEST_CASE("a locked-in child that counts until it is killed", "[.]") {
  REQUIRE(tests::count_for_ever("allowed/numbers"));
}

TEST_CASE("a locked-in child that sends back all it hears", "[.]") {
  bus::node here(kin("child"));
  auto in = here.subscribe<reading>("**", {.when_full = bus::drop::none});
  auto out = here.advertise<reading>("echo");
  REQUIRE(out.wait_matched(1, patience));
  for (;;) {
    const auto one = in.take(patience);
    REQUIRE(one);
    if ((*one)->number == 0) return;
    REQUIRE(out.publish_wait(reading{(*one)->number}, patience));
  }
}

// It hears itself within its own process, as every node does that can.
TEST_CASE("a locked-in child that hears what it says", "[.]") {
  bus::node_options options = kin("child");
  options.transports.push_back(transports::inproc());
  bus::node here(std::move(options));
  auto talk = here.subscribe<reading>("talk", {.when_full = bus::drop::none});
  auto go = here.subscribe<reading>("go", {.when_full = bus::drop::none});
  auto out = here.advertise<reading>("talk");
  REQUIRE(go.take(patience));
  for (std::uint64_t i = 1; i <= 100; ++i) {
    REQUIRE(out.publish_wait(reading{i}, patience));
    const auto own = talk.take(patience);
    REQUIRE(own);
    REQUIRE((*own)->number == i);
  }
  REQUIRE(go.take(patience));
  REQUIRE(talk.accounts().expected == 100);
}

TEST_CASE("a locked-in child that wants more than it may", "[.]") {
  bus::node here(kin("child"));
  auto secret = here.advertise<reading>("secret/numbers");
  auto spied = here.subscribe<reading>("secret/**");
  auto allowed = here.advertise<reading>("allowed/numbers");
  REQUIRE(allowed.wait_matched(1, patience));
  for (std::uint64_t i = 1; i <= 10; ++i) REQUIRE(secret.publish(reading{i}).links == 0);
  // It is told, and can say why.
  const auto until = bus::deadline::after(patience);
  const auto knows = [&] {
    const std::string words = to_text(here.why("secret/numbers"));
    return words.find("may not publish secret/numbers: allow::publish") != std::string::npos &&
           words.find("may not subscribe to secret/**") != std::string::npos;
  };
  while (!knows() && !until.passed()) here.run_for(1ms);
  INFO(to_text(here.why("secret/numbers")));
  REQUIRE(knows());
  REQUIRE(allowed.publish_wait(reading{1}, patience));
  REQUIRE_FALSE(spied.take(50ms));
  REQUIRE(allowed.publish_wait(reading{2}, patience));
  REQUIRE(here.subscribe<reading>("end").take(patience));
}

TEST_CASE("what a locked-in child publishes is heard in its parent's directory, and names it") {
  household one;
  auto numbers = one.other.subscribe<reading>("allowed/*", {.when_full = bus::drop::none});
  auto child = lock_in(one, "a locked-in child that publishes", {.publish = {"allowed/**"}});
  std::uint64_t last = 0;
  bool is_named = false;
  REQUIRE(one.turn_both([&] {
    while (const auto got = numbers.try_take()) REQUIRE((*got)->number == ++last);
    if (last > 0 && !is_named) {
      const bus::explanation told = one.other.why("allowed/numbers");
      INFO(to_text(told));
      REQUIRE(told.publishers.size() == 1);
      REQUIRE(told.publishers.front().node == one.parent.id());
      REQUIRE(told.publishers.front().on_behalf_of == "exe, pid " + std::to_string(child.pid()));
      is_named = true;
    }
    return last == many;
  }));
  REQUIRE(child.wait(patience) == bus::exit_status{});
  REQUIRE(one.turn_both([&] { return numbers.matched() == 0; }));
  REQUIRE(numbers.accounts().expected == many);
  REQUIRE(numbers.accounts().delivered == many);
  REQUIRE(child.relayed().out == many);
  REQUIRE(child.relayed().refused_topics == 0);
  INFO(child.locked_in_by().describe());
  REQUIRE(child.locked_in_by().is_closed());
}

TEST_CASE("a locked-in child hears exactly what it may, from whoever publishes it") {
  household one;
  auto allowed = one.other.advertise<reading>("allowed/a");
  auto own = one.parent.advertise<reading>("allowed/b");
  auto secret = one.other.advertise<reading>("secret");
  auto echo = one.other.subscribe<reading>("echo", {.when_full = bus::drop::none});
  auto child = lock_in(one, "a locked-in child that sends back all it hears",
                       {.publish = {"echo"}, .subscribe = {"allowed/*"}});
  REQUIRE(one.turn_both(
      [&] { return allowed.matched() == 1 && own.matched() == 1 && echo.matched() == 1; }));
  REQUIRE(secret.matched() == 0);
  std::uint64_t sent = 0;
  std::uint64_t came = 0;
  REQUIRE(one.turn_both([&] {
    REQUIRE(secret.publish(reading{sent}).links == 0);
    if (sent < many && allowed.has_room() && own.has_room()) {
      ++sent;
      REQUIRE(allowed.publish(reading{2 * sent}));
      REQUIRE(own.publish(reading{2 * sent + 1}));
    }
    while (echo.try_take()) ++came;
    return came == 2 * many;
  }));
  REQUIRE(child.relayed().in == 2 * many);
  REQUIRE(child.refusals() ==
          std::vector<std::string>{
              "may not subscribe to all of **: allow::subscribe has 'allowed/*' and no more"});
  REQUIRE(allowed.publish(reading{0}));
  REQUIRE(one.turn_both([&] { return child.last_end().has_value(); }));
  REQUIRE(child.last_end() == bus::exit_status{});
  REQUIRE(one.turn_both([&] { return allowed.matched() == 0 && echo.matched() == 0; }));
  REQUIRE(echo.accounts().balanced());
  REQUIRE(echo.accounts().lost_in_all() == 0);
}

TEST_CASE("what a locked-in child says to itself does not come back to it by its parent") {
  household one;
  auto go = one.other.advertise<reading>("go");
  std::uint64_t heard = 0;
  std::optional<bus::listener> own;
  const bool is_heard = GENERATE(false, true);
  if (is_heard) {
    own.emplace(
        one.parent.subscribe<reading>("talk", [&](const bus::received<reading>&) { ++heard; }));
  }
  auto child = lock_in(one, "a locked-in child that hears what it says",
                       {.publish = {"talk"}, .subscribe = {"talk", "go"}});
  REQUIRE(one.turn_both([&] { return go.matched() == 1 && (!own || own->matched() == 1); }));
  REQUIRE(go.publish(reading{1}));
  REQUIRE(one.turn_both([&] { return !own || heard == 100; }));
  REQUIRE(go.publish(reading{2}));
  REQUIRE(one.turn_both([&] { return child.last_end().has_value(); }));
  REQUIRE(child.last_end() == bus::exit_status{});
  // To nobody, if nobody else is there.
  REQUIRE(child.relayed().out == (is_heard ? 100 : 0));
  REQUIRE(child.relayed().in == 2);
  REQUIRE(child.relayed().refused_messages == 0);
}

TEST_CASE("what a locked-in child may not is refused, counted, and explained on both sides") {
  household one;
  auto all = one.other.subscribe<reading>("**");
  auto secret = one.other.advertise<reading>("secret/more");
  auto end = one.other.advertise<reading>("end");
  auto child = lock_in(one, "a locked-in child that wants more than it may",
                       {.publish = {"allowed/**"}, .subscribe = {"end"}});
  std::vector<std::uint64_t> came;
  REQUIRE(one.turn_both([&] {
    static_cast<void>(secret.publish(reading{7}));
    while (const auto got = all.try_take()) {
      // Our own secret is ours to hear.
      if ((*got)->number != 7) came.push_back((*got)->number);
    }
    return came.size() == 2;
  }));
  REQUIRE(came == std::vector<std::uint64_t>{1, 2});
  REQUIRE(secret.matched() == 1);
  const bus::relay_accounts books = child.relayed();
  REQUIRE(books.refused_topics == 1);
  REQUIRE(books.refused_patterns == 1);
  REQUIRE(books.out == 2);
  REQUIRE(child.refusals().size() == 2);
  REQUIRE(one.turn_both([&] {
    const bus::explanation told = one.other.why("secret/numbers");
    return says(told, "may not publish secret/numbers: allow::publish has 'allowed/**'") &&
           says(told, "parent");
  }));
  REQUIRE(one.turn_both(
      [&] { return end.matched() == 1 && end.publish(reading{1}) && child.wait(0ms); }));
  INFO(child.last_end()->describe());
  REQUIRE(child.last_end() == bus::exit_status{});
}

TEST_CASE(
    "what a killed locked-in child had published is cut for whoever subscribes, and counted") {
  household one;
  auto numbers = one.other.subscribe<reading>("allowed/*", {.when_full = bus::drop::none});
  auto child = lock_in(one, "a locked-in child that counts until it is killed",
                       {.publish = {"allowed/*"}}, bus::restart::on_failure);
  std::uint64_t taken = 0;
  for (const std::uint64_t life : {0UL, 1UL, 2UL}) {
    std::uint64_t last = 0;
    REQUIRE(one.turn_both([&] {
      while (const auto got = numbers.try_take()) {
        ++taken;
        last = (*got)->number == 1 ? 1 : last + 1;
        REQUIRE((*got)->number == last);
      }
      return child.restarts() == life && last > many;
    }));
    if (life == 2) {
      REQUIRE(child.stop(patience).signal == SIGTERM);
    } else {
      REQUIRE(child.signal(SIGKILL));
    }
    REQUIRE(one.turn_both([&] {
      while (numbers.try_take()) ++taken;
      return life == 2 ? numbers.matched() == 0 : child.restarts() > life;
    }));
  }
  while (numbers.try_take()) ++taken;
  const bus::accounts books = numbers.accounts();
  REQUIRE(books.balanced());
  REQUIRE(books.delivered == taken);
  REQUIRE(books.expected == books.delivered + books.lost_by(bus::loss::cut));
}

TEST_CASE("a subscriber that makes no room blocks a locked-in child's publisher") {
  household one;
  auto numbers = one.other.subscribe<reading>(
      "allowed/*", {.depth = 8, .when_full = bus::drop::none, .block_for = 1h});
  auto child = lock_in(one, "a locked-in child that publishes", {.publish = {"allowed/**"}});
  REQUIRE(one.turn_both([&] { return numbers.accounts().queued >= 8; }));
  // What is between them is bounded, so the child cannot end.
  std::uint64_t before = 0;
  REQUIRE(one.turn_both([&] {
    const std::uint64_t now = child.relayed().out;
    return now > 0 && std::exchange(before, now) == now;
  }));
  REQUIRE_FALSE(child.last_end());
  REQUIRE(before < many);
  std::uint64_t last = 0;
  REQUIRE(one.turn_both([&] {
    while (const auto got = numbers.try_take()) REQUIRE((*got)->number == ++last);
    return last == many;
  }));
  REQUIRE(numbers.accounts().lost_in_all() == 0);
}

TEST_CASE("a parent that sleeps, and one on an event loop, are woken for a locked-in child") {
  household one;
  bus::node_options options = one.options("third");
  options.waiting = bus::wait_policy::sleep;
  bus::node third(options);
  auto numbers = third.subscribe<reading>("allowed/*", {.when_full = bus::drop::none});
  bus::spawn_options how{.sandbox = bus::allow{.publish = {"allowed/*"}},
                         .environment = tests::calm_sanitizers};
  auto child =
      bus::spawn(third, {"/proc/self/exe", "a locked-in child that publishes"}, std::move(how));
  SECTION("asleep in take()") {
    for (std::uint64_t i = 1; i <= many; ++i) {
      const auto got = numbers.take(patience);
      REQUIRE(got);
      REQUIRE((*got)->number == i);
    }
    REQUIRE(child.wait(patience) == bus::exit_status{});
  }
  SECTION("on an event loop") {
    std::uint64_t last = 0;
    std::optional<bus::exit_status> end;
    asio::co_spawn(
        third.context(),
        [&]() -> asio::awaitable<void> {
          while (last < many) {
            const auto got = co_await numbers.next();
            if (got->number != ++last) break;
          }
          end = co_await child.ended();
          third.stop();
        },
        asio::detached);
    third.run_for(patience);
    REQUIRE(last == many);
    REQUIRE(end == bus::exit_status{});
  }
  REQUIRE(numbers.accounts().delivered == many);
}

TEST_CASE("a forked copy of a parent ends no locked-in child of it") {
  household one;
  auto numbers = one.other.subscribe<reading>("allowed/*", {.when_full = bus::drop::none});
  std::optional<bus::child> child(
      lock_in(one, "a locked-in child that counts until it is killed", {.publish = {"allowed/*"}}));
  REQUIRE(one.turn_both([&] { return numbers.try_take().has_value(); }));
  const pid_t copy = ::fork();
  REQUIRE(copy >= 0);
  if (copy == 0) {
    child.reset();
    ::_exit(0);
  }
  int status = -1;
  REQUIRE(::waitpid(copy, &status, 0) == copy);
  REQUIRE(status == 0);
  const std::uint64_t before = numbers.accounts().delivered;
  REQUIRE(one.turn_both([&] {
    while (numbers.try_take()) continue;
    return numbers.accounts().delivered > before + 2000;
  }));
  REQUIRE_FALSE(child->last_end());
}

TEST_CASE("a child that is locked in by a bad pattern or path, or without pipes, is refused") {
  family one;
  const auto [rights, named] = GENERATE(table<bus::allow, std::string>({
      {{.publish = {"a//b"}}, "allow::publish names 'a//b'"},
      {{.subscribe = {""}}, "allow::subscribe names ''"},
      {{.reads = {"/not/there"}}, "allow::reads names '/not/there'"},
      {{.writes = {"/"}}, "allow::writes names '/', which is all of the file system"},
  }));
  try {
    static_cast<void>(one.start("never", {.sandbox = rights}));
    FAIL("it was started");
  } catch (const bus::error& refused) {
    INFO(refused.what());
    REQUIRE(std::string(refused.what()).find(named) != std::string::npos);
  }
  bus::node_options options{.name = "without", .transports = {transports::shm()}};
  options.directory = one.scratch.path();
  bus::node without(options);
  REQUIRE_THROWS_AS(bus::spawn(without, {"true"}, {.sandbox = bus::allow{}}), bus::error);
}
