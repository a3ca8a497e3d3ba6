// Places, windows and gates: what a subscription that blocks has promised always fits, nobody is
// left without, and who stands still is waited for once.
#include "bus/route/credit.hpp"

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

#include <catch2/catch.hpp>

namespace {

constexpr std::int64_t second_ns = 1'000'000'000;

}  // namespace

TEST_CASE("a gate is open up to its limit, and limits never fall") {
  bus::gate one(second_ns);
  CHECK_FALSE(one.granted());
  CHECK_FALSE(one.has_place(1));
  CHECK(one.grant(8));
  CHECK_FALSE(one.grant(4));
  CHECK(one.has_place(8));
  CHECK_FALSE(one.has_place(9));
}

TEST_CASE("a gate lapses after its deadline, once in a stall, and a grant ends it") {
  bus::gate one(second_ns);
  CHECK(one.grant(8));
  CHECK(one.lapses_at_ns() == INT64_MAX);
  CHECK(one.stopped(100) == bus::gate::state::waiting);
  CHECK(one.lapses_at_ns() == 100 + second_ns);
  CHECK(one.stopped(100 + second_ns - 1) == bus::gate::state::waiting);
  CHECK(one.stopped(100 + second_ns) == bus::gate::state::lapsed);
  CHECK(one.lapses_at_ns() == INT64_MAX);
  CHECK(one.stopped(200 + second_ns) == bus::gate::state::lapsed);
  CHECK(one.waits() == 1);
  CHECK(one.since_ns() == 100);
  CHECK_FALSE(one.grant(16));
  one.passed(300 + second_ns);
  CHECK_FALSE(one.lapsed());
  CHECK(one.since_ns() == 0);
  CHECK(one.waited_ns() == 200 + second_ns);
  CHECK(one.stopped(400 + second_ns) == bus::gate::state::waiting);
  CHECK(one.waits() == 2);
}

TEST_CASE(
    "a gate that is to be waited for without end never lapses, and one of no patience at once") {
  bus::gate patient(INT64_MAX);
  CHECK(patient.stopped(100) == bus::gate::state::waiting);
  CHECK(patient.lapses_at_ns() == INT64_MAX);
  CHECK(patient.stopped(INT64_MAX) == bus::gate::state::waiting);
  bus::gate hasty(0);
  CHECK(hasty.stopped(100) == bus::gate::state::lapsed);
}

TEST_CASE("a queue of one place gives it again and again") {
  bus::places all(1);
  bus::window one;
  all.join(one, 0);
  CHECK(all.raise(one, 0, 0));
  for (std::uint64_t last = 1; last < 100; ++last) {
    REQUIRE(one.limit == last);
    // It has come, and waits: there is no place for another.
    REQUIRE_FALSE(all.raise(one, last, 1));
    REQUIRE(all.raise(one, last, 0));
  }
}

TEST_CASE("a stream costs one grant for some places, not one each") {
  bus::places all(64);
  bus::window one;
  all.join(one, 0);
  CHECK(all.raise(one, 0, 0));
  std::uint64_t grants = 1;
  for (std::uint64_t last = 1; last <= 6400; ++last) grants += all.raise(one, last, 0) ? 1 : 0;
  CHECK(one.limit >= 6400);
  CHECK(grants <= 6400 / 16 + 1);
}

TEST_CASE("whatever publishers and their subscriber do, what was promised fits, and all go on") {
  struct publisher {
    bus::window promised;
    std::uint64_t published = 0;
    std::uint64_t taken = 0;
  };
  const unsigned seed = GENERATE(1U, 2U, 3U, 4U, 5U);
  const std::uint32_t depth = GENERATE(1U, 2U, 7U, 64U);
  const std::size_t publishers = GENERATE(1U, 3U, 100U);
  INFO("seed " << seed << ", depth " << depth << ", publishers " << publishers);
  std::mt19937 random(seed);
  bus::places all(depth);
  std::vector<publisher> them(publishers);
  std::deque<std::size_t> queue;
  const auto offer = [&](publisher& to) {
    static_cast<void>(all.raise(to.promised, to.published, queue.size()));
  };
  const auto fits = [&] { return queue.size() + all.held() <= all.most(); };
  for (publisher& one : them) {
    all.join(one.promised, 0);
    offer(one);
    REQUIRE(fits());
  }
  const std::size_t most = depth + publishers;
  REQUIRE(all.most() == most);
  for (int step = 0; step < 20'000; ++step) {
    const std::size_t who = random() % publishers;
    publisher& one = them[who];
    // The first one never publishes, and keeps whatever it was promised.
    if (random() % 2 == 0 && who != 0 && one.published < one.promised.limit) {
      ++one.published;
      all.moved(one.promised, one.published);
      // One in ten never comes.
      if (random() % 10 != 0) queue.push_back(who);
      offer(one);
    } else if (!queue.empty()) {
      ++them[queue.front()].taken;
      queue.pop_front();
      for (publisher& each : them) offer(each);
    }
    REQUIRE(fits());
    REQUIRE(queue.size() <= most);
  }
  // Once the queue is empty, everybody has a place.
  queue.clear();
  for (publisher& each : them) {
    offer(each);
    CHECK(each.promised.held > 0);
  }
  REQUIRE(fits());
  for (publisher& each : them) all.leave(each.promised);
  CHECK(all.held() == 0);
  CHECK(all.most() == depth);
}
