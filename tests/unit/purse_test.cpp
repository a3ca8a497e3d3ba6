// The credits of a link that copies bytes, as sender and receiver count them.
#include "bus/link/credits.hpp"
#include "bus/link/pool.hpp"

#include <vector>

#include <catch2/catch.hpp>

namespace {

bus::sample of(bus::pool& memory, std::uint64_t bytes) {
  auto lent = memory.lend(bytes);
  REQUIRE(lent);
  return std::move(*lent).commit({.bytes = bytes});
}

}  // namespace

TEST_CASE("a purse holds so many samples and so many bytes, and no more") {
  const auto memory = bus::pool::make(1 << 20);
  bus::purse purse;
  CHECK_FALSE(purse.has_room(0));
  purse.fill(4, 1000);
  CHECK(purse.has_room(1000));
  CHECK_FALSE(purse.has_room(1001));
  const bus::sample large = of(*memory, 600);
  purse.occupy(large);
  CHECK_FALSE(large.unique());
  CHECK(purse.has_room(400));
  CHECK_FALSE(purse.has_room(401));
  CHECK_FALSE(purse.has_room(100, 1, 301));
  const bus::sample empty = of(*memory, 0);
  for (int i = 0; i < 3; ++i) purse.occupy(empty);
  CHECK_FALSE(purse.has_room(0));
  CHECK(purse.in_flight() == 4);
  CHECK(purse.bytes_in_flight() == 600);
  purse.clear();
  CHECK(large.unique());
  CHECK(purse.in_flight() == 0);
}

TEST_CASE("a purse takes back what was given, once, in any order") {
  const auto memory = bus::pool::make(1 << 20);
  bus::purse purse;
  purse.fill(4, 1000);
  std::vector<bus::sample> mine;
  for (int i = 0; i < 4; ++i) purse.occupy(mine.emplace_back(of(*memory, 10)));
  CHECK_FALSE(purse.take_back({.first = 4, .count = 1}));
  CHECK_FALSE(purse.take_back({.first = 2, .count = UINT32_MAX}));
  CHECK(purse.take_back({.first = 2, .count = 2}));
  CHECK(mine[3].unique());
  CHECK_FALSE(mine[0].unique());
  CHECK_FALSE(purse.take_back({.first = 2, .count = 1}));
  CHECK(purse.next() == 2);
  CHECK(purse.next(1) == 3);
  CHECK(purse.take_back({.first = 0, .count = 1}));
  CHECK(purse.in_flight() == 1);
}

TEST_CASE("a tab lets nobody use a credit twice, or more bytes than there are") {
  bus::tab tab;
  CHECK_FALSE(tab.is_open());
  CHECK_FALSE(tab.may_use(0, 0));
  tab.open(8, 1000);
  CHECK(tab.may_use(7, 1000));
  CHECK_FALSE(tab.may_use(8, 0));
  CHECK_FALSE(tab.may_use(0, 1001));
  tab.use(0, 900);
  CHECK_FALSE(tab.may_use(0, 0));
  CHECK_FALSE(tab.may_use(1, 101));
  tab.release(0, 900);
  // The sender does not know yet.
  CHECK_FALSE(tab.may_use(0, 0));
  CHECK(tab.owes());
  tab.settle();
  CHECK_FALSE(tab.owes());
  CHECK(tab.may_use(0, 1000));
}

TEST_CASE("a tab reports neighbours as one run") {
  bus::tab tab;
  tab.open(8, 1000);
  for (std::uint32_t credit = 0; credit < 5; ++credit) tab.use(credit, 1);
  CHECK_FALSE(tab.is_missed(100));
  for (const std::uint32_t credit : {1U, 2U, 3U, 0U}) tab.release(credit, 1);
  REQUIRE(tab.owed().size() == 2);
  CHECK(tab.owed()[0].first == 1);
  CHECK(tab.owed()[0].count == 3);
  CHECK(tab.owed()[1].first == 0);
  CHECK(tab.is_missed(100));
  CHECK(tab.is_missed(4));
}
