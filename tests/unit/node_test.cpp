// The node as its users see it: one thread, several nodes, real transports.
#include "bus/bus.hpp"
#include "schemas/demo/quake.pb.h"
#include "tests/scratch.hpp"
#include "transports/inproc/inproc.hpp"
#include "transports/shm/shm.hpp"

#include <atomic>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

struct reading {
  std::uint64_t number;
  double value;
};

struct other_reading {
  std::uint32_t number;
};

bus::bill_of_transports only_shm() { return {transports::shm()}; }
bus::bill_of_transports both() { return {transports::inproc(), transports::shm()}; }

}  // namespace

TEST_CASE("a bad topic name is refused with the rule and the place") {
  const tests::scratch_directory scratch;
  bus::node node({.name = "n", .transports = both(), .directory = scratch.path()});
  REQUIRE_THROWS_WITH(node.advertise<reading>("a//b"), Catch::Contains("a//b"));
  REQUIRE_THROWS_WITH(node.advertise<reading>("a/*"), Catch::Contains("byte 2"));
  REQUIRE_THROWS_AS(node.subscribe<reading>("a/b*"), bus::error);
}

TEST_CASE("a node without transports, or without a directory of its own, says what to do") {
  const tests::scratch_directory scratch;
  REQUIRE_THROWS_WITH(bus::node({.name = "n", .transports = {}, .directory = scratch.path()}),
                      Catch::Contains("transports::standard()"));
  REQUIRE_THROWS_WITH(
      bus::node({.name = "n", .transports = both(), .directory = "/proc/no-such/omnibus"}),
      Catch::Contains("OMNIBUS_DIR"));
}

TEST_CASE("publishing to nobody costs nothing and is counted") {
  const tests::scratch_directory scratch;
  bus::node node({.name = "n", .transports = both(), .directory = scratch.path()});
  auto numbers = node.advertise<reading>("numbers");
  const auto outcome = numbers.publish({1, 2.0});
  REQUIRE(outcome);
  REQUIRE(outcome.links == 0);
  REQUIRE(numbers.sequence() == 1);
}

TEST_CASE("a node hears itself") {
  const tests::scratch_directory scratch;
  bus::node node({.name = "n", .transports = both(), .directory = scratch.path()});
  auto heard = node.subscribe<reading>("numbers");
  auto numbers = node.advertise<reading>("numbers");
  REQUIRE(numbers.wait_matched(1, 10s));
  REQUIRE(numbers.publish({7, 0.5}).taken == 1);
  const auto got = heard.take(10s);
  REQUIRE(got);
  REQUIRE((*got)->number == 7);
  REQUIRE(heard.accounts().balanced());
}

TEST_CASE("two nodes on two threads exchange a million numbers, and the books balance") {
  const tests::scratch_directory scratch;
  const auto bill = GENERATE(0, 1) == 0 ? only_shm : both;
  constexpr std::uint64_t count = 1'000'000;
  std::atomic<bool> ready{false};
  std::uint64_t taken = 0;
  std::uint64_t published = 0;
  bus::accounts books;
  std::jthread reader([&] {
    bus::node node({.name = "reader", .transports = bill(), .directory = scratch.path()});
    auto numbers =
        node.subscribe<reading>("numbers/*", {.depth = 4096, .when_full = bus::drop::newest});
    ready.store(true);
    std::uint64_t last = 0;
    while (const auto got = numbers.take(10s)) {
      if ((*got)->number <= last) std::abort();
      last = (*got)->number;
      ++taken;
      if (last == count) break;
    }
    books = numbers.accounts();
  });
  {
    bus::node node({.name = "writer", .transports = bill(), .directory = scratch.path()});
    auto numbers = node.advertise<reading>("numbers/all");
    REQUIRE(numbers.wait_matched(1, 10s));
    for (std::uint64_t i = 1; i <= count; ++i) {
      // The last one must arrive, so that the reader can stop.
      while (!numbers.publish({i, 0.0}) && i == count) std::this_thread::yield();
    }
    published = numbers.sequence();
  }
  reader.join();
  REQUIRE(ready.load());
  REQUIRE(books.balanced());
  REQUIRE(books.delivered == taken);
  REQUIRE(books.expected <= published);
  REQUIRE(books.delivered + books.lost_in_all() == books.expected);
}

TEST_CASE("protobuf goes through shared memory and wildcards, to callbacks") {
  const tests::scratch_directory scratch;
  bus::node writer({.name = "w", .transports = only_shm(), .directory = scratch.path()});
  bus::node reader({.name = "r", .transports = only_shm(), .directory = scratch.path()});
  std::vector<std::string> ids;
  const auto felt = reader.subscribe<demo::Quake>(
      "quakes/**", [&](const bus::received<demo::Quake>& quake) { ids.push_back(quake->id()); });
  auto quakes = writer.advertise<demo::Quake>("quakes/ak/ml");
  const auto turn_both = [&](auto done) {
    const auto until = bus::deadline::after(10s);
    while (!done() && !until.passed()) {
      reader.run_for(1ms);
      static_cast<void>(writer.run_for(1ms));
    }
    return done();
  };
  REQUIRE(turn_both([&] { return quakes.matched() == 1; }));
  demo::Quake quake;
  quake.set_id("ak123");
  REQUIRE(quakes.publish(quake).taken == 1);
  REQUIRE(turn_both([&] { return ids.size() == 1; }));
  REQUIRE(ids.front() == "ak123");
}

TEST_CASE("types that differ are not linked") {
  const tests::scratch_directory scratch;
  bus::node writer({.name = "w", .transports = only_shm(), .directory = scratch.path()});
  bus::node reader({.name = "r", .transports = only_shm(), .directory = scratch.path()});
  auto numbers = writer.advertise<reading>("numbers");
  auto heard = reader.subscribe<other_reading>("numbers");
  REQUIRE_FALSE(numbers.wait_matched(1, 200ms));
  REQUIRE(numbers.publish({1, 1.0}).links == 0);
}

TEST_CASE("a callback that throws or ends a subscription costs nobody else a message") {
  const tests::scratch_directory scratch;
  bus::node node({.name = "n", .transports = both(), .directory = scratch.path()});
  auto numbers = node.advertise<reading>("numbers");
  int thrown = 0;
  int heard_first = 0;
  int heard_last = 0;
  std::optional<bus::listener> first;
  std::optional<bus::listener> second;
  first.emplace(node.subscribe<reading>("numbers", [&](const auto&) {
    if (++heard_first == 2) first.reset();
  }));
  second.emplace(node.subscribe<reading>("numbers", [&](const auto& one) {
    if (one->number != 3) return;
    ++thrown;
    throw std::runtime_error("not this one");
  }));
  auto last = node.subscribe<reading>("numbers", [&](const auto&) { ++heard_last; });
  REQUIRE(numbers.wait_matched(1, 5s));
  for (std::uint64_t i = 1; i <= 5; ++i) REQUIRE(numbers.publish({i, 0.0}));
  const auto until = bus::deadline::after(5s);
  while (heard_last < 5 && !until.passed()) {
    try {
      node.run_for(10ms);
    } catch (const std::runtime_error&) {
      continue;
    }
  }
  REQUIRE(heard_first == 2);
  REQUIRE(thrown == 1);
  REQUIRE(heard_last == 5);
  REQUIRE(last.accounts().delivered == 5);
}

TEST_CASE("who asks and waits is answered at once, and only a stream is left to grow") {
  bus::tide dialogue;
  std::size_t pauses = 0;
  for (int i = 0; i < 10'000; ++i) {
    dialogue.turned(1);
    dialogue.turned(0);
    if (dialogue.linger(false)) ++pauses;
  }
  REQUIRE(pauses < 16);

  bus::tide stream;
  pauses = 0;
  for (int i = 0; i < 10'000; ++i) {
    stream.turned(8);
    stream.turned(0);
    if (stream.linger(false)) ++pauses;
    stream.turned(0);
    REQUIRE_FALSE(stream.linger(false));
  }
  REQUIRE(pauses > 9'000);

  bus::tide sleeper;
  for (int i = 0; i < 10'000; ++i) {
    sleeper.turned(1);
    sleeper.turned(0);
    REQUIRE_FALSE(sleeper.linger(true));
    sleeper.slept();
  }
}

TEST_CASE("a coroutine on the user's loop takes what another node publishes") {
  const tests::scratch_directory scratch;
  constexpr int count = 1000;
  asio::io_context context;
  bus::node reader(
      {.name = "r", .transports = only_shm(), .directory = scratch.path(), .context = &context});
  auto numbers = reader.subscribe<reading>("numbers");
  int taken = 0;
  asio::co_spawn(
      context,
      [&]() -> asio::awaitable<void> {
        while (taken < count) {
          const auto got = co_await numbers.next();
          if (got->number != static_cast<std::uint64_t>(++taken)) std::abort();
        }
        context.stop();
      },
      asio::detached);
  std::jthread writer_thread([&] {
    bus::node writer({.name = "w", .transports = only_shm(), .directory = scratch.path()});
    auto source = writer.advertise<reading>("numbers");
    if (!source.wait_matched(1, 10s)) std::abort();
    for (std::uint64_t i = 1; i <= count; ++i) {
      while (!source.publish({i, 0.0})) std::abort();
      if (i % 100 == 0) writer.run_for(1ms);
    }
  });
  context.run_for(30s);
  REQUIRE(taken == count);
}

TEST_CASE("a slow subscriber's losses are counted by cause, to the last one") {
  const tests::scratch_directory scratch;
  bus::node writer(
      {.name = "w", .transports = only_shm(), .directory = scratch.path(), .link_depth = 64});
  bus::node reader(
      {.name = "r", .transports = only_shm(), .directory = scratch.path(), .link_depth = 64});
  auto numbers = writer.advertise<reading>("numbers");
  auto heard = reader.subscribe<reading>("numbers", {.depth = 8, .when_full = bus::drop::newest});
  const auto until = bus::deadline::after(10s);
  while (numbers.matched() == 0 && !until.passed()) {
    reader.run_for(1ms);
    writer.run_for(1ms);
  }
  REQUIRE(numbers.matched() == 1);
  constexpr std::uint64_t count = 1000;
  for (std::uint64_t i = 1; i <= count; ++i) static_cast<void>(numbers.publish({i, 0.0}));
  std::uint64_t taken = 0;
  while (heard.accounts().expected < count && !until.passed()) {
    while (heard.try_take()) ++taken;
    writer.run_for(1ms);
  }
  while (heard.try_take()) ++taken;
  const bus::accounts books = heard.accounts();
  REQUIRE(books.expected == count);
  REQUIRE(books.delivered == taken);
  REQUIRE(books.balanced());
  REQUIRE(books.lost_by(bus::loss::queue_full) == count - taken);
  REQUIRE(taken < count);
}
