// Batches, from their table up to what a subscriber makes of them.
#include "bus/link/batch.hpp"

#include "bus/bus.hpp"
#include "bus/link/pool.hpp"
#include "schemas/demo/quake.pb.h"
#include "tests/scratch.hpp"
#include "transports/inproc/inproc.hpp"
#include "transports/shm/shm.hpp"
#include "transports/zmq/zmq.hpp"

#include <array>
#include <chrono>
#include <cstring>
#include <numeric>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

struct reading {
  std::uint64_t number;
  double value;
};

std::vector<reading> readings(std::uint64_t first, std::uint64_t count) {
  std::vector<reading> made;
  for (std::uint64_t i = 0; i < count; ++i) made.push_back({first + i, 0.5});
  return made;
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Two nodes on one thread, linked by one transport.
class pair_of_nodes {
 public:
  explicit pair_of_nodes(const bus::transport_maker& maker)
      : writer({.name = "w", .transports = {maker}, .directory = scratch.path(), .listen = here()}),
        reader(
            {.name = "r", .transports = {maker}, .directory = scratch.path(), .listen = here()}) {}

  template <class Done>
  bool turn_until(Done&& done) {
    const auto until = bus::deadline::after(20s);
    while (!done()) {
      if (until.passed()) return false;
      reader.run_for(100us);
      writer.run_for(100us);
    }
    return true;
  }

  const tests::scratch_directory scratch;
  bus::node writer;
  bus::node reader;

 private:
  static std::vector<std::string> here() { return {"tcp://127.0.0.1:*"}; }
};

bus::transport_maker maker_of(int which) {
  if (which == 0) return transports::inproc();
  return which == 1 ? transports::shm() : transports::zmq();
}

}  // namespace

TEST_CASE("the bytes of a batch are those of LAYOUT.md's example") {
  std::array<std::byte, 84> payload{};
  REQUIRE(bus::batch::bytes_for(68, 3) == 84);
  bus::batch::writer into(payload, 3);
  std::memcpy(into.add(2).data(), "ab", 2);
  static_cast<void>(into.add(0));
  std::memcpy(into.add(4).data(), "cdef", 4);
  REQUIRE(text_of(std::span(payload).first(2)) == "ab");
  REQUIRE(text_of(std::span(payload).subspan(64, 4)) == "cdef");
  constexpr std::array<unsigned char, 16> table = {2,  0, 0, 0, 64, 0, 0, 0,
                                                   68, 0, 0, 0, 3,  0, 0, 0};
  REQUIRE(std::memcmp(payload.data() + 68, table.data(), table.size()) == 0);
}

TEST_CASE("a batch whose count has no room has no messages") {
  std::array<std::byte, 64> payload{};
  const auto claim = [&](std::uint32_t count) {
    std::memcpy(payload.data() + 60, &count, sizeof count);
    return bus::batch::count_in(payload);
  };
  REQUIRE(claim(15) == 15);
  REQUIRE(claim(16) == 0);
  REQUIRE(claim(UINT32_MAX) == 0);
  REQUIRE(claim(0) == 0);
  REQUIRE(bus::batch::count_in(std::span(payload).first(3)) == 0);
  REQUIRE(bus::batch::count_in({}) == 0);
}

TEST_CASE("whatever a table says, a message lies within the payload and before the table") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  std::vector<std::byte> payload(700);
  std::uint64_t whole = 0;
  for (int round = 0; round < 200'000; ++round) {
    const auto count = static_cast<std::uint32_t>(random() % 20 + 1);
    for (std::uint32_t i = 0; i < count; ++i) {
      const auto end = static_cast<std::uint32_t>(random() % 4 == 0 ? random() : random() % 800);
      std::memcpy(
          payload.data() + payload.size() - 4 * (count + std::size_t{1}) + 4 * std::size_t{i}, &end,
          sizeof end);
    }
    const auto index = static_cast<std::uint32_t>(random() % count);
    const auto message = bus::batch::message_in(payload, index, count);
    if (message.empty()) continue;
    ++whole;
    const auto* const table = payload.data() + payload.size() - 4 * (std::size_t{count} + 1);
    if (message.data() < payload.data() || message.data() + message.size() > table) FAIL("outside");
  }
  REQUIRE(whole > 1000);
}

TEST_CASE("messages that were published together arrive one by one, over every transport") {
  const int which = GENERATE(0, 1, 2);
  pair_of_nodes two(maker_of(which));
  auto heard = two.reader.subscribe<reading>("numbers", {.depth = 4096});
  auto numbers = two.writer.advertise<reading>("numbers");
  REQUIRE(two.turn_until([&] { return numbers.matched() == 1 && heard.matched() == 1; }));
  REQUIRE(numbers.publish({1, 0.5}).messages == 1);
  const auto many = readings(2, 1000);
  const auto outcome = numbers.publish(many);
  REQUIRE(outcome);
  REQUIRE(outcome.messages == 1000);
  REQUIRE(numbers.publish({1002, 0.5}).messages == 1);
  REQUIRE(numbers.sequence() == 1002);
  for (std::uint64_t number = 1; number <= 1002; ++number) {
    std::optional<bus::received<reading>> got;
    REQUIRE(two.turn_until([&] { return (got = heard.try_take()).has_value(); }));
    REQUIRE((*got)->number == number);
    REQUIRE(got->head().sequence == number);
    REQUIRE(got->head().bytes == sizeof(reading));
    REQUIRE(got->head().flags == 0);
    REQUIRE(reinterpret_cast<std::uintptr_t>(got->bytes().data()) % alignof(reading) == 0);
  }
  REQUIRE(heard.accounts().balanced());
  REQUIRE(heard.accounts().delivered == 1002);
  REQUIRE(two.turn_until([&] { return numbers.backlog() == 0; }));
}

TEST_CASE("protobuf and raw messages of any size are published together") {
  pair_of_nodes two(transports::shm());
  auto felt = two.reader.subscribe<demo::Quake>("quakes", {.depth = 2000});
  auto lines = two.reader.subscribe<bus::raw>("lines", {.depth = 2000});
  auto quakes = two.writer.advertise<demo::Quake>("quakes");
  auto text = two.writer.advertise<bus::raw>("lines");
  REQUIRE(two.turn_until([&] { return quakes.matched() == 1 && text.matched() == 1; }));

  std::vector<demo::Quake> some(700);
  for (std::size_t i = 0; i < some.size(); ++i) some[i].set_id(std::string(i % 97, 'q'));
  REQUIRE(quakes.publish(some).messages == some.size());
  // A message that fills a batch alone, and empty ones, in between.
  const std::string long_line(100'000, 'x');
  std::vector<std::span<const std::byte>> words;
  for (std::size_t i = 0; i < 300; ++i) {
    const std::string_view line = std::string_view(long_line).substr(0, i == 150 ? 100'000 : i % 5);
    words.push_back(std::as_bytes(std::span(line)));
  }
  REQUIRE(text.publish(words).messages == words.size());

  for (const demo::Quake& one : some) {
    const auto got = felt.take(10s);
    REQUIRE(got);
    REQUIRE((*got)->id() == one.id());
  }
  for (const auto& word : words) {
    const auto got = lines.take(10s);
    REQUIRE(got);
    REQUIRE(text_of(got->bytes()) == text_of(word));
  }
}

TEST_CASE("a batch that is filled in place arrives, and one that is dropped goes home") {
  pair_of_nodes two(transports::shm());
  auto heard = two.reader.subscribe<bus::raw>("numbers");
  auto numbers = two.writer.advertise<bus::raw>("numbers");
  REQUIRE(two.turn_until([&] { return numbers.matched() == 1; }));
  REQUIRE(numbers.loan({.messages = 0, .bytes = 8}).error() == bus::errc::too_big);
  REQUIRE(numbers.loan({.messages = bus::batch::messages_max + 1, .bytes = 8}).error() ==
          bus::errc::too_big);
  for (int i = 0; i < 100'000; ++i) REQUIRE(numbers.loan({.messages = 64, .bytes = 1000}));
  auto lent = numbers.loan({.messages = 10, .bytes = 100});
  REQUIRE(lent);
  REQUIRE(lent->size() == 10);
  for (std::uint32_t i = 0; i < 10; ++i) {
    REQUIRE((*lent)[i].size() == 100);
    std::memset((*lent)[i].data(), static_cast<int>('a' + i), 100);
  }
  REQUIRE(numbers.publish(std::move(*lent)).messages == 10);
  for (char letter = 'a'; letter < 'a' + 10; ++letter) {
    const auto got = heard.take(10s);
    REQUIRE(got);
    REQUIRE(text_of(got->bytes()) == std::string(100, letter));
  }
}

TEST_CASE("a message holds its whole batch, and the last one gives it back") {
  pair_of_nodes two(transports::shm());
  auto heard = two.reader.subscribe<reading>("numbers");
  auto numbers = two.writer.advertise<reading>("numbers");
  REQUIRE(two.turn_until([&] { return numbers.matched() == 1; }));
  REQUIRE(numbers.publish(readings(1, 50)));
  std::vector<bus::received<reading>> kept;
  for (int i = 0; i < 50; ++i) {
    auto got = heard.take(10s);
    REQUIRE(got);
    kept.push_back(std::move(*got));
  }
  REQUIRE(two.turn_until([&] { return numbers.backlog() == 1; }));
  while (kept.size() > 1) kept.pop_back();
  two.reader.run_for(1ms);
  REQUIRE(numbers.backlog() == 1);
  REQUIRE(kept.front()->number == 1);
  kept.clear();
  REQUIRE(two.turn_until([&] { return numbers.backlog() == 0; }));
}

TEST_CASE("a queue that keeps the newest drops the oldest messages of a batch, and counts them") {
  pair_of_nodes two(transports::shm());
  auto heard = two.reader.subscribe<reading>("numbers", {.depth = 100});
  auto numbers = two.writer.advertise<reading>("numbers");
  REQUIRE(two.turn_until([&] { return numbers.matched() == 1; }));
  REQUIRE(numbers.publish(readings(1, 60)));
  REQUIRE(numbers.publish(readings(61, 60)));    // 20 of the first batch go
  REQUIRE(numbers.publish(readings(121, 250)));  // longer than the queue
  REQUIRE(two.turn_until([&] { return heard.accounts().expected == 370; }));
  REQUIRE(heard.accounts().queued == 100);
  REQUIRE(heard.accounts().lost_by(bus::loss::overwritten) == 270);
  for (std::uint64_t number = 271; number <= 370; ++number) {
    const auto got = heard.take(10s);
    REQUIRE(got);
    REQUIRE((*got)->number == number);
  }
  REQUIRE(heard.accounts().balanced());
  REQUIRE(two.turn_until([&] { return numbers.backlog() == 0; }));
}

TEST_CASE("a queue that drops the newest loses nothing of a batch that it has begun") {
  pair_of_nodes two(transports::shm());
  auto heard =
      two.reader.subscribe<reading>("numbers", {.depth = 10, .when_full = bus::drop::newest});
  auto numbers = two.writer.advertise<reading>("numbers");
  REQUIRE(two.turn_until([&] { return numbers.matched() == 1; }));
  for (std::uint64_t first = 1; first < 1000; first += 100) {
    REQUIRE(numbers.publish(readings(first, 100)));
  }
  for (std::uint64_t number = 1; number <= 1000; ++number) {
    const auto got = heard.take(10s);
    REQUIRE(got);
    REQUIRE((*got)->number == number);
  }
  REQUIRE(heard.accounts().delivered == 1000);
  REQUIRE(heard.accounts().lost_in_all() == 0);
}

TEST_CASE("a subscription that ends with half a batch waiting gives it back") {
  pair_of_nodes two(transports::shm());
  auto numbers = two.writer.advertise<reading>("numbers");
  {
    auto heard = two.reader.subscribe<reading>("numbers");
    REQUIRE(two.turn_until([&] { return numbers.matched() == 1; }));
    REQUIRE(numbers.publish(readings(1, 50)));
    for (int i = 0; i < 25; ++i) REQUIRE(heard.take(10s));
    REQUIRE(numbers.backlog() == 1);
  }
  REQUIRE(two.turn_until([&] { return numbers.backlog() == 0; }));
}

TEST_CASE("a callback hears each message of a batch, whatever it throws") {
  pair_of_nodes two(transports::shm());
  std::vector<std::uint64_t> numbers_heard;
  const auto heard =
      two.reader.subscribe<reading>("numbers", [&](const bus::received<reading>& one) {
        numbers_heard.push_back(one->number);
        if (one->number == 5) throw std::runtime_error("five");
      });
  auto numbers = two.writer.advertise<reading>("numbers");
  REQUIRE(two.turn_until([&] { return numbers.matched() == 1; }));
  REQUIRE(numbers.publish(readings(1, 20)));
  REQUIRE_THROWS_WITH(two.turn_until([&] { return numbers_heard.size() == 20; }), "five");
  std::vector<std::uint64_t> all(20);
  std::iota(all.begin(), all.end(), 1U);
  REQUIRE(numbers_heard == all);
  REQUIRE(heard.accounts().delivered == 20);
  REQUIRE(two.turn_until([&] { return numbers.backlog() == 0; }));
}

TEST_CASE("a callback that ends its own subscription hears nothing more of the batch") {
  pair_of_nodes two(transports::shm());
  std::uint64_t calls = 0;
  std::optional<bus::listener> heard;
  heard.emplace(two.reader.subscribe<reading>("numbers", [&](const bus::received<reading>& one) {
    ++calls;
    if (one->number == 7) heard.reset();
  }));
  auto numbers = two.writer.advertise<reading>("numbers");
  REQUIRE(two.turn_until([&] { return numbers.matched() == 1; }));
  REQUIRE(numbers.publish(readings(1, 20)));
  REQUIRE(two.turn_until([&] { return !heard.has_value(); }));
  REQUIRE(two.turn_until([&] { return numbers.matched() == 0 && numbers.backlog() == 0; }));
  REQUIRE(calls == 7);
}

TEST_CASE("a batch with nobody listening is numbered and not encoded") {
  const tests::scratch_directory scratch;
  bus::node node({.name = "n", .transports = {transports::shm()}, .directory = scratch.path()});
  auto numbers = node.advertise<reading>("numbers");
  const auto outcome = numbers.publish(readings(1, 1000));
  REQUIRE(outcome);
  REQUIRE(outcome.links == 0);
  REQUIRE(outcome.messages == 1000);
  REQUIRE(numbers.sequence() == 1000);
}

TEST_CASE("a batch that a link has no room for is counted, message by message") {
  pair_of_nodes two(transports::shm());
  auto heard = two.reader.subscribe<reading>("numbers", {.depth = 4096});
  auto numbers = two.writer.advertise<reading>("numbers");
  REQUIRE(two.turn_until([&] { return numbers.matched() == 1; }));
  // The link holds 1,024 samples of 256 messages at the most.
  const auto first = numbers.publish(readings(1, 300'000));
  REQUIRE_FALSE(first);
  REQUIRE(first.messages == 300'000);
  REQUIRE(two.turn_until([&] { return heard.accounts().expected == 300'000; }));
  REQUIRE(heard.accounts().balanced());
  REQUIRE(heard.accounts().lost_by(bus::loss::queue_full) > 0);
}
