// A subscription that drops the newest took from all links only as many messages as its own queue
// had room for: those of every other subscription of its node waited behind.
#include "bus/bus.hpp"
#include "tests/scratch.hpp"
#include "transports/shm/shm.hpp"

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

struct letter {
  std::uint64_t number;
};

}  // namespace

TEST_CASE("a node takes what came for all its subscriptions, however short one's queue is") {
  const tests::scratch_directory scratch;
  const auto make = [&](const char* name) {
    return bus::node(
        {.name = name, .transports = {transports::shm()}, .directory = scratch.path()});
  };
  bus::node reader = make("reader");
  bus::node writer = make("writer");
  auto narrow = reader.subscribe<letter>("narrow", {.depth = 1, .when_full = bus::drop::newest});
  auto wide = reader.subscribe<letter>("wide", {.depth = 1000, .when_full = bus::drop::newest});
  auto to_narrow = writer.advertise<letter>("narrow");
  auto to_wide = writer.advertise<letter>("wide");
  const auto until = bus::deadline::after(20s);
  while (!(to_narrow.matched() == 1 && to_wide.matched() == 1) && !until.passed()) {
    reader.run_for(1ms);
    writer.run_for(1ms);
  }
  constexpr std::uint64_t many = 500;
  for (std::uint64_t i = 1; i <= many; ++i) REQUIRE(to_wide.publish({i}).taken == 1);
  REQUIRE(to_narrow.publish({1}).taken == 1);
  // One turn: it ends with the only one that is for the narrow one.
  REQUIRE(narrow.try_take());
  CHECK(wide.accounts().queued == many);
}
