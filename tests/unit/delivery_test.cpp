// Backpressure as a publisher sees it (docs/delivery.md): whoever waits for room loses nothing, and
// whoever does not learns what it costs.
#include "tests/unit/delivery.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include <sys/syscall.h>
#include <unistd.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <catch2/catch.hpp>

using namespace delivery;
using namespace std::chrono_literals;

namespace {

// Whether the kernel has this thread of ours asleep.
bool sleeps(pid_t thread) {
  std::ifstream words("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string line;
  std::getline(words, line);
  const auto name_ends = line.rfind(") ");
  return name_ends != std::string::npos && line[name_ends + 2] == 'S';
}

}  // namespace

TEST_CASE("a slow subscription that blocks loses nothing to a publisher that waits") {
  const bench world(any_scheme());
  constexpr std::uint64_t count = 3000;
  constexpr std::uint32_t depth = 16;
  bus::accounts books;
  std::uint64_t most = 0;
  std::uint64_t taken = 0;
  std::jthread reader([&] {
    bus::node node = world.make("reader");
    auto heard = node.subscribe<reading>("numbers", blocking(depth));
    while (taken < count) {
      const auto one = heard.take(patience);
      if (!one || (*one)->number != ++taken) break;
      most = std::max(most, heard.accounts().queued);
      if (taken % 100 == 0) std::this_thread::sleep_for(1ms);  // it is slow; nothing waits for this
    }
    books = heard.accounts();
  });
  bus::node node = world.make("writer");
  auto numbers = node.advertise<reading>("numbers");
  REQUIRE(numbers.wait_matched(1, patience));
  for (std::uint64_t i = 1; i <= count; ++i) {
    const auto outcome = numbers.publish_wait({i}, patience);
    REQUIRE(outcome);
    REQUIRE(outcome.taken == 1);
  }
  const auto row = gate_of(world, node.id());
  reader.join();
  CHECK(taken == count);
  CHECK(books.expected == count);
  CHECK(books.delivered == count);
  CHECK(books.lost_in_all() == 0);
  CHECK(most < depth);
  CHECK(row.counts[bus::column::gate_waits] > 0);
  CHECK(row.counts[bus::column::gate_waited_ns] > 0);
  CHECK(row.counts[bus::column::gate_since_ns] == 0);
  CHECK(row.counts[bus::column::gate_missed] == 0);
}

TEST_CASE("publish_wait waits for memory that subscribers hold") {
  const bench world(GENERATE(std::string("inproc"), "shm"));
  constexpr std::uint64_t memory = 8 << 20;
  const std::vector<std::byte> large(memory / 4);
  bus::node reader = world.make("reader");
  bus::node_options about{.name = "writer", .transports = {}};
  about.memory_bytes_max = memory;
  bus::node writer = world.make(std::move(about));
  auto heard = reader.subscribe<bus::raw>("images");
  auto images = writer.advertise<bus::raw>("images");
  REQUIRE(turn({&reader, &writer}, [&] { return images.matched() == 1; }));
  std::vector<bus::received<bus::raw>> kept;
  for (bool all = false; !all;) {
    const auto outcome = images.publish_wait(large, 0ns);
    all = outcome.error == bus::errc::no_memory;
    REQUIRE((all || outcome.taken == 1));
    REQUIRE(kept.size() < 8);
    if (all) continue;
    auto one = heard.take(patience);
    REQUIRE(one);
    kept.push_back(std::move(*one));
  }
  REQUIRE(kept.size() >= 2);
  const std::uint64_t sent = images.sequence();
  REQUIRE(sent == kept.size());
  CHECK(images.publish_wait(large, 10ms).error == bus::errc::no_memory);
  CHECK(images.sequence() == sent);

  const auto publisher = static_cast<pid_t>(::syscall(SYS_gettid));
  std::atomic<bool> is_late = false;
  std::jthread holder([&] {
    const auto until = bus::deadline::after(patience);
    while (!sleeps(publisher) && !until.passed()) std::this_thread::yield();
    is_late = until.passed();
    kept.pop_back();
  });
  CHECK(images.publish_wait(large, for_ever).taken == 1);
  CHECK_FALSE(is_late);
  CHECK(images.sequence() == sent + 1);
}

TEST_CASE("publish_wait waits until a network link has room for so many bytes") {
  const bench world("zmq");
  // Three of these are more than may be on the way (transport_setup::link_bytes_max).
  const std::vector<std::byte> large(90 << 20);
  constexpr std::uint64_t count = 5;
  bus::accounts books;
  std::jthread reader([&] {
    bus::node node = world.make("reader");
    auto heard = node.subscribe<bus::raw>("images", blocking(8));
    for (std::uint64_t i = 0; i < count; ++i) {
      if (!heard.take(patience)) break;
    }
    books = heard.accounts();
  });
  bus::node node = world.make("writer");
  auto images = node.advertise<bus::raw>("images");
  REQUIRE(images.wait_matched(1, patience));
  for (std::uint64_t i = 1; i <= count; ++i) {
    const auto outcome = images.publish_wait(large, patience);
    REQUIRE(outcome);
    REQUIRE(outcome.taken == 1);
  }
  while (images.backlog() > 0) node.run_for(1ms);
  reader.join();
  CHECK(books.delivered == count);
  CHECK(books.lost_in_all() == 0);
}

TEST_CASE("a coroutine waits for room, and nothing is lost") {
  const bench world(any_scheme());
  constexpr std::uint64_t count = 1000;
  asio::io_context loop(1);
  bus::node reader = world.make("reader", &loop);
  bus::node writer = world.make("writer", &loop);
  auto heard = reader.subscribe<reading>("numbers", blocking(8));
  auto numbers = writer.advertise<reading>("numbers");
  std::uint64_t taken = 0;
  const auto publish = [&]() -> asio::awaitable<void> {
    asio::steady_timer timer(loop);
    while (numbers.matched() == 0) {
      timer.expires_after(1ms);
      co_await timer.async_wait(asio::use_awaitable);
    }
    for (std::uint64_t i = 1; i <= count; ++i) {
      if (!co_await numbers.room() || !numbers.publish({i})) std::abort();
    }
  };
  const auto follow = [&]() -> asio::awaitable<void> {
    while (taken < count) {
      const auto one = co_await heard.next();
      if (one->number != ++taken) std::abort();
    }
    loop.stop();
  };
  asio::co_spawn(loop, publish(), asio::detached);
  asio::co_spawn(loop, follow(), asio::detached);
  loop.run_for(patience);
  CHECK(taken == count);
  CHECK(heard.accounts().lost_in_all() == 0);
  CHECK(gate_of(world, writer.id()).counts[bus::column::gate_waits] > 0);
}

TEST_CASE("publish waits for nobody: it says who had no place, and all others get everything") {
  const bench world(any_scheme());
  bus::node stuck = world.make("stuck");
  bus::node free = world.make("free");
  bus::node writer = world.make("writer");
  constexpr std::uint32_t depth = 8;
  constexpr std::uint64_t count = 500;
  auto blocked = stuck.subscribe<reading>("numbers", blocking(depth));
  auto heard = free.subscribe<reading>("numbers", {.depth = 2 * count});
  auto numbers = writer.advertise<reading>("numbers");
  REQUIRE(turn({&stuck, &free, &writer}, [&] { return numbers.matched() == 2; }));
  std::uint64_t missed = 0;
  for (std::uint64_t i = 1; i <= count; ++i) {
    const auto outcome = numbers.publish({i});
    REQUIRE_FALSE(outcome.error);
    missed += outcome.blocked;
    REQUIRE((outcome.blocked == 0 || outcome.by == stuck.id()));
    REQUIRE(outcome.taken == 2 - outcome.blocked);
    REQUIRE(static_cast<bool>(outcome) == (outcome.blocked == 0));
    // The one that is free has it before the next one is published.
    REQUIRE(
        turn({&free}, [&] { return heard.accounts().delivered + heard.accounts().queued == i; }));
  }
  CHECK(missed == count - depth / 2);  // of its places, half are kept for other publishers
  CHECK(collect(heard, count) == from_to(1, count));
  CHECK(heard.accounts().balanced());
  CHECK(gate_of(world, writer.id()).counts[bus::column::gate_missed] == missed);

  // It goes on: what it missed is charged, and what comes now arrives.
  CHECK(collect(blocked, depth / 2) == from_to(1, depth / 2));
  REQUIRE(turn({&stuck, &writer}, [&] { return blocked.accounts().expected == count; }));
  const auto books = blocked.accounts();
  CHECK(books.balanced());
  CHECK(books.lost_by(bus::loss::queue_full) == missed);
  CHECK(books.lost_in_all() == missed);
  REQUIRE(numbers.has_room());
  REQUIRE(numbers.publish({count + 1}));
  CHECK(collect(blocked, 1) == from_to(count + 1, count + 1));
}

TEST_CASE("publish_wait that timed out has done nothing, so that it can be tried again") {
  const bench world(any_scheme());
  bus::node first = world.make("first");
  bus::node second = world.make("second");
  bus::node third = world.make("third");
  bus::node writer = world.make("writer");
  auto roomy = first.subscribe<reading>("numbers", blocking(64));
  auto narrow = second.subscribe<reading>("numbers", blocking(4));
  auto free = third.subscribe<reading>("numbers");
  auto numbers = writer.advertise<reading>("numbers");
  REQUIRE(turn({&first, &second, &third, &writer}, [&] { return numbers.matched() == 3; }));
  const std::uint64_t sent = fill(numbers);
  for (int i = 0; i < 3; ++i) {
    const auto outcome = numbers.publish_wait({sent + 1}, i * 1ms);
    REQUIRE(outcome.error == bus::errc::timed_out);
    REQUIRE(outcome.blocked == 1);
    REQUIRE(outcome.by == second.id());
    REQUIRE(outcome.taken == 0);
    REQUIRE(numbers.sequence() == sent);
  }
  CHECK(collect(narrow, sent) == from_to(1, sent));
  REQUIRE(turn({&second, &writer}, [&] { return numbers.has_room(); }));
  REQUIRE(numbers.publish_wait({sent + 1}, 0ns).taken == 3);
  CHECK(collect(roomy, sent + 1) == from_to(1, sent + 1));
  CHECK(collect(narrow, 1) == from_to(sent + 1, sent + 1));
  CHECK(collect(free, sent + 1) == from_to(1, sent + 1));
  for (bus::subscriber<reading>* one : {&roomy, &narrow, &free}) {
    CHECK(one->accounts().expected == sent + 1);
    CHECK(one->accounts().lost_in_all() == 0);
  }
}
