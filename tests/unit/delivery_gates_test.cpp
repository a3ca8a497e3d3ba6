// Backpressure as its subscribers cause it (docs/delivery.md): one that blocks costs nobody else a
// message, and is not waited for longer than it asked.
#include "tests/unit/delivery.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <catch2/catch.hpp>

using namespace delivery;
using namespace std::chrono_literals;

TEST_CASE("who stands still is waited for once, as long as it asked, and what it misses expired") {
  const bench world(any_scheme());
  bus::node stuck = world.make("stuck");
  bus::node writer = world.make("writer");
  constexpr auto block_for = 50ms;
  auto blocked = stuck.subscribe<reading>("numbers", blocking(8, block_for));
  auto numbers = writer.advertise<reading>("numbers");
  REQUIRE(turn({&stuck, &writer}, [&] { return numbers.matched() == 1; }));
  const std::int64_t begun_ns = bus::steady_ns();
  const std::uint64_t sent = fill(numbers);
  const auto outcome = numbers.publish_wait({sent + 1}, patience);
  CHECK_FALSE(outcome.error);
  CHECK(outcome.blocked == 1);
  CHECK(outcome.taken == 0);
  CHECK(bus::steady_ns() - begun_ns >= std::chrono::nanoseconds(block_for).count());
  constexpr std::uint64_t more = 100;
  for (std::uint64_t i = 2; i <= more; ++i) {
    REQUIRE(numbers.has_room());
    REQUIRE(numbers.publish_wait({sent + i}, patience).blocked == 1);
  }
  const auto row = gate_of(world, writer.id());
  CHECK(row.counts[bus::column::gate_waits] == 1);
  CHECK(row.counts[bus::column::gate_lapsed] == 1);
  CHECK(row.counts[bus::column::gate_expired] == more);
  CHECK(row.counts[bus::column::gate_missed] == more);

  CHECK(collect(blocked, sent) == from_to(1, sent));
  REQUIRE(turn({&stuck, &writer}, [&] { return blocked.accounts().expected == sent + more; }));
  CHECK(blocked.accounts().lost_by(bus::loss::expired) == more);
  CHECK(blocked.accounts().lost_in_all() == more);
  CHECK(blocked.accounts().balanced());
  // It is waited for again.
  const std::uint64_t again = fill(numbers);
  CHECK(again > 0);
  CHECK(numbers.publish_wait({0}, 0ns).error == bus::errc::timed_out);
  CHECK(gate_of(world, writer.id()).counts[bus::column::gate_waits] == 2);
  REQUIRE(turn({&stuck, &writer}, [&] { return blocked.accounts().queued == again; }));
  CHECK(blocked.accounts().lost_in_all() == more);
}

TEST_CASE("a wait that begins with publish_wait ends with the subscription's deadline") {
  const bench world(any_scheme());
  bus::node stuck = world.make("stuck");
  bus::node writer = world.make("writer");
  auto blocked = stuck.subscribe<reading>("numbers", blocking(2, 10ms));
  auto numbers = writer.advertise<reading>("numbers");
  REQUIRE(turn({&stuck, &writer}, [&] { return numbers.matched() == 1; }));
  REQUIRE(numbers.publish({1}));
  // It sleeps meanwhile, and nobody would wake it.
  REQUIRE(numbers.publish_wait({2}, for_ever).blocked == 1);
  REQUIRE(numbers.wait_room(for_ever));
}

TEST_CASE("a full subscription that blocks delays no other of its node, on its topic or another") {
  const bench world(any_scheme());
  bus::node reader = world.make("reader");
  bus::node writer = world.make("writer");
  constexpr std::uint64_t count = 900;
  auto blocked = reader.subscribe<reading>("numbers", blocking(4));
  auto same = reader.subscribe<reading>("numbers", {.depth = 2 * count});
  auto other = reader.subscribe<reading>("letters", {.depth = 2 * count});
  auto numbers = writer.advertise<reading>("numbers");
  auto letters = writer.advertise<reading>("letters");
  REQUIRE(
      turn({&reader, &writer}, [&] { return numbers.matched() == 1 && letters.matched() == 1; }));
  for (std::uint64_t i = 1; i <= count; ++i) {
    REQUIRE(numbers.publish({i}).taken == 1);
    REQUIRE(letters.publish_wait({i}, 0ns));
    REQUIRE(letters.has_room());
    // Nobody takes from the one that blocks.
    if (i % 100 != 0) continue;
    REQUIRE(turn({&reader, &writer}, [&] { return other.accounts().queued == i; }));
    REQUIRE(same.accounts().queued == i);
  }
  CHECK_FALSE(numbers.has_room());
  CHECK(collect(same, count) == from_to(1, count));
  CHECK(collect(other, count) == from_to(1, count));
  CHECK(blocked.accounts().queued <= 4);
  CHECK(blocked.accounts().balanced());
  const auto got = drain(blocked);
  CHECK(got == from_to(1, got.size()));
  CHECK(blocked.accounts().lost_by(bus::loss::queue_full) == count - got.size());
}

TEST_CASE("a link that other topics have filled is waited for once, too") {
  const bench world(any_scheme());
  bus::node stuck = world.make("stuck");
  bus::node writer = world.make("writer");
  auto blocked = stuck.subscribe<reading>("numbers", blocking(8, 20ms));
  auto other = stuck.subscribe<reading>("letters", {.depth = 4096});
  auto numbers = writer.advertise<reading>("numbers");
  auto letters = writer.advertise<reading>("letters");
  REQUIRE(
      turn({&stuck, &writer}, [&] { return numbers.matched() == 1 && letters.matched() == 1; }));
  std::uint64_t sent = 0;
  while (letters.publish({sent + 1}).taken == 1) {
    REQUIRE(++sent < 10'000);
  }
  constexpr std::uint64_t count = 50;
  for (std::uint64_t i = 1; i <= count; ++i) {
    REQUIRE(numbers.publish_wait({i}, patience).blocked == 1);
  }
  CHECK(gate_of(world, writer.id()).counts[bus::column::gate_waits] == 1);
  CHECK(gate_of(world, writer.id()).counts[bus::column::gate_missed] == count);
  REQUIRE(turn({&stuck, &writer}, [&] {
    return blocked.accounts().expected == count && other.accounts().expected == sent + 1;
  }));
  CHECK(blocked.accounts().lost_in_all() == count);
  CHECK(other.accounts().queued == sent);
  CHECK(other.accounts().lost_in_all() == 1);
  REQUIRE(turn({&stuck, &writer}, [&] { return numbers.has_room(); }));
  REQUIRE(numbers.publish_wait({count + 1}, 0ns));
  CHECK(collect(blocked, 1) == from_to(count + 1, count + 1));
}

TEST_CASE("a subscription that ends lets go of the publisher that waits for it") {
  const bench world(any_scheme());
  asio::io_context loop(1);
  bus::node reader = world.make("reader", &loop);
  bus::node writer = world.make("writer", &loop);
  std::optional<bus::subscriber<reading>> blocked(
      reader.subscribe<reading>("numbers", blocking(4)));
  auto numbers = writer.advertise<reading>("numbers");
  std::optional<bool> came;
  const auto publish = [&]() -> asio::awaitable<void> {
    asio::steady_timer timer(loop);
    while (numbers.matched() == 0) {
      timer.expires_after(1ms);
      co_await timer.async_wait(asio::use_awaitable);
    }
    static_cast<void>(fill(numbers));
    asio::post(loop, [&] { blocked.reset(); });
    came = co_await numbers.room();
    loop.stop();
  };
  asio::co_spawn(loop, publish(), asio::detached);
  loop.run_for(patience);
  REQUIRE(came);
  CHECK(*came);
}

TEST_CASE("a publisher that ends while somebody waits for its room says so") {
  const bench world(any_scheme());
  asio::io_context loop(1);
  bus::node reader = world.make("reader", &loop);
  bus::node writer = world.make("writer", &loop);
  auto blocked = reader.subscribe<reading>("numbers", blocking(4));
  auto numbers = std::make_unique<bus::publisher<reading>>(writer.advertise<reading>("numbers"));
  std::vector<bool> came;
  const auto wait = [&]() -> asio::awaitable<void> {
    came.push_back(co_await numbers->room());
    if (came.size() == 3) loop.stop();
  };
  const auto publish = [&]() -> asio::awaitable<void> {
    asio::steady_timer timer(loop);
    while (numbers->matched() == 0) {
      timer.expires_after(1ms);
      co_await timer.async_wait(asio::use_awaitable);
    }
    // Places may come one after the other.
    for (std::uint64_t sent = fill(*numbers); sent < 4; sent += fill(*numbers)) {
      timer.expires_after(1ms);
      co_await timer.async_wait(asio::use_awaitable);
    }
    for (int i = 0; i < 3; ++i) asio::co_spawn(loop, wait(), asio::detached);
    asio::post(loop, [&] { numbers.reset(); });
  };
  asio::co_spawn(loop, publish(), asio::detached);
  loop.run_for(patience);
  CHECK(came == std::vector<bool>{false, false, false});
}

TEST_CASE("a publisher that a callback ends while it waits has published nothing") {
  const bench world("shm");
  bus::node reader = world.make("reader");
  bus::node writer = world.make("writer");
  auto blocked = reader.subscribe<reading>("numbers", blocking(4));
  auto numbers = std::make_unique<bus::publisher<reading>>(writer.advertise<reading>("numbers"));
  auto orders = reader.advertise<reading>("orders");
  const auto obeying =
      writer.subscribe<reading>("orders", [&](const bus::received<reading>&) { numbers.reset(); });
  REQUIRE(
      turn({&reader, &writer}, [&] { return numbers->matched() == 1 && orders.matched() == 1; }));
  const std::uint64_t sent = fill(*numbers);
  REQUIRE(orders.publish({1}));
  CHECK(numbers->publish_wait({sent + 1}, patience).error == bus::errc::closed);
  CHECK(numbers == nullptr);
  REQUIRE(turn({&reader, &writer}, [&] { return blocked.matched() == 0; }));
  CHECK(collect(blocked, sent) == from_to(1, sent));
  CHECK(blocked.accounts().balanced());
}

TEST_CASE("of several publishers of a node, only the one that is blocked waits") {
  const bench world(any_scheme());
  bus::node reader = world.make("reader");
  bus::node writer = world.make("writer");
  auto blocked = reader.subscribe<reading>("numbers/a", blocking(4));
  auto open = reader.subscribe<reading>("numbers/b", blocking(4));
  auto a = writer.advertise<reading>("numbers/a");
  auto b = writer.advertise<reading>("numbers/b");
  REQUIRE(turn({&reader, &writer}, [&] { return a.matched() == 1 && b.matched() == 1; }));
  REQUIRE(turn({&reader, &writer}, [&] {
    static_cast<void>(fill(a));
    return blocked.accounts().queued == 4;
  }));
  for (std::uint64_t i = 1; i <= 200; ++i) {
    REQUIRE(a.publish_wait({0}, 0ns).error == bus::errc::timed_out);
    REQUIRE(turn({&reader, &writer}, [&] { return b.has_room(); }));
    REQUIRE(b.publish_wait({i}, 0ns));
    REQUIRE(collect(open, 1) == from_to(i, i));
  }
  CHECK(open.accounts().lost_in_all() == 0);
}

TEST_CASE("a subscription that comes late blocks from its first message on") {
  const bench world(any_scheme());
  bus::node early = world.make("early");
  bus::node late = world.make("late");
  bus::node writer = world.make("writer");
  auto free = early.subscribe<reading>("numbers");
  auto numbers = writer.advertise<reading>("numbers");
  REQUIRE(turn({&early, &writer}, [&] { return numbers.matched() == 1; }));
  for (std::uint64_t i = 1; i <= 10; ++i) REQUIRE(numbers.publish({i}));
  REQUIRE(turn({&early}, [&] { return free.accounts().queued == 10; }));
  // One where nobody was, and one beside another.
  auto apart = late.subscribe<reading>("**", blocking(8));
  auto beside = early.subscribe<reading>("*", blocking(8));
  REQUIRE(turn({&early, &late, &writer}, [&] {
    return apart.matched() == 1 && beside.matched() == 1 && numbers.matched() == 2;
  }));
  const std::uint64_t first = numbers.sequence() + 1;
  std::uint64_t last = first;
  std::vector<std::uint64_t> to_apart;
  std::vector<std::uint64_t> to_beside;
  const auto take_all = [&] {
    for (const auto one : drain(apart)) to_apart.push_back(one);
    for (const auto one : drain(beside)) to_beside.push_back(one);
  };
  for (; last < first + 100; ++last) {
    const bool came = turn({&early, &late, &writer}, [&] {
      if (numbers.publish_wait({last}, 0ns)) return true;
      take_all();
      return false;
    });
    REQUIRE(came);
  }
  REQUIRE(turn({&early, &late, &writer}, [&] {
    take_all();
    return to_apart.size() == 100 && to_beside.size() == 100;
  }));
  CHECK(to_apart == from_to(first, last - 1));
  CHECK(to_beside == from_to(first, last - 1));
  CHECK(apart.accounts().lost_in_all() == 0);
  CHECK(beside.accounts().lost_in_all() == 0);
}

TEST_CASE("several publishers share the places of one subscription, and none is starved") {
  const bench world(any_scheme());
  constexpr std::size_t publishers = 12;
  constexpr std::uint64_t count = 60;
  constexpr std::uint32_t depth = 4;
  bus::node reader = world.make("reader");
  bus::node writer = world.make("writer");
  auto blocked = reader.subscribe<reading>("numbers/*", blocking(depth));
  std::vector<bus::publisher<reading>> all;
  for (std::size_t i = 0; i < publishers; ++i) {
    all.push_back(writer.advertise<reading>("numbers/" + std::to_string(i)));
  }
  // The first one never publishes, and keeps what it is granted.
  std::vector<std::uint64_t> next(publishers, 1);
  next[0] = count + 1;
  std::vector<std::uint64_t> last(publishers, 0);
  std::uint64_t taken = 0;
  REQUIRE(turn({&reader, &writer}, [&] {
    return std::all_of(all.begin(), all.end(), [](auto& one) { return one.matched() == 1; });
  }));
  REQUIRE(turn({&reader, &writer}, [&] {
    for (std::size_t i = 0; i < publishers; ++i) {
      if (next[i] <= count && all[i].publish_wait({i * 1000 + next[i]}, 0ns)) ++next[i];
    }
    REQUIRE(blocked.accounts().queued <= depth + publishers);
    if (const auto one = blocked.try_take()) {
      ++taken;
      const std::uint64_t number = (*one)->number;
      REQUIRE(++last[number / 1000] == number % 1000);
    }
    return taken == (publishers - 1) * count;
  }));
  CHECK(blocked.accounts().lost_in_all() == 0);
  CHECK(blocked.accounts().balanced());
}

TEST_CASE("callbacks block, too: what they are not ready for waits at the publisher") {
  const bench world(any_scheme());
  constexpr std::uint64_t count = 500;
  bus::node reader = world.make("reader");
  bus::node writer = world.make("writer");
  std::uint64_t last = 0;
  const auto heard = reader.subscribe<reading>(
      "numbers", [&](const bus::received<reading>& one) { REQUIRE(one->number == ++last); },
      blocking(4));
  auto numbers = writer.advertise<reading>("numbers");
  REQUIRE(turn({&reader, &writer}, [&] { return numbers.matched() == 1; }));
  std::uint64_t next = 1;
  REQUIRE(turn({&reader, &writer}, [&] {
    while (next <= count && numbers.publish_wait({next}, 0ns)) {
      // Never more on the way than was promised.
      REQUIRE(next - last <= 4);
      ++next;
    }
    return last == count;
  }));
  CHECK(heard.accounts().lost_in_all() == 0);
}

TEST_CASE("a publisher outlives its subscribers that block, and begins anew with each") {
  const bench world("shm");
  bus::node writer = world.make("writer");
  auto numbers = writer.advertise<reading>("numbers");
  for (int life = 0; life < 3; ++life) {
    bus::node reader = world.make("reader");
    auto blocked = reader.subscribe<reading>("numbers", blocking(8));
    REQUIRE(turn({&reader, &writer}, [&] { return numbers.matched() == 1; }));
    std::uint64_t sent = 0;
    while (numbers.has_room()) REQUIRE(numbers.publish({++sent}));
    CHECK(sent == 4);
    CHECK(collect(blocked, sent) == from_to(1, sent));
    CHECK(blocked.accounts().lost_in_all() == 0);
    static_cast<void>(fill(numbers));
    CHECK_FALSE(numbers.has_room());
    {
      const bus::node ended = std::move(reader);
      const auto too = std::move(blocked);
    }
    REQUIRE(turn({&writer}, [&] { return numbers.matched() == 0; }));
    CHECK(numbers.has_room());
  }
}
