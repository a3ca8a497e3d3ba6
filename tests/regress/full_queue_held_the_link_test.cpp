// What waited in a subscription's queue kept its places in the link that had brought it: a queue
// that was full and as deep as the link left no place for any other topic.
#include "bus/bus.hpp"
#include "tests/scratch.hpp"
#include "transports/shm/shm.hpp"
#include "transports/zmq/zmq.hpp"

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

struct letter {
  std::uint64_t number;
};

}  // namespace

TEST_CASE("a full queue from which nobody takes leaves the link to the other topics") {
  const tests::scratch_directory scratch;
  const bool far = GENERATE(false, true);
  const auto when_full = GENERATE(bus::drop::oldest, bus::drop::newest, bus::drop::none);
  constexpr std::uint64_t depth = 64;
  const auto make = [&](const char* name) {
    return bus::node({.name = name,
                      .transports = {far ? transports::zmq() : transports::shm()},
                      .directory = scratch.path(),
                      .listen = {"tcp://127.0.0.1:*"},
                      .link_depth = depth});
  };
  bus::node reader = make("reader");
  bus::node writer = make("writer");
  auto full = reader.subscribe<letter>("full", {.depth = 2 * depth, .when_full = when_full});
  auto other = reader.subscribe<letter>("other");
  auto to_full = writer.advertise<letter>("full");
  auto to_other = writer.advertise<letter>("other");
  const auto turn = [&](auto done) {
    const auto until = bus::deadline::after(20s);
    while (!done() && !until.passed()) {
      reader.run_for(100us);
      writer.run_for(100us);
    }
    return done();
  };
  REQUIRE(turn([&] { return to_full.matched() == 1 && to_other.matched() == 1; }));
  REQUIRE(turn([&] {
    if (to_full.sequence() < 2 * depth && to_full.has_room()) {
      static_cast<void>(to_full.publish({to_full.sequence() + 1}));
    }
    return full.accounts().queued == 2 * depth;
  }));
  for (std::uint64_t i = 1; i <= 10 * depth; ++i) {
    REQUIRE(turn([&] { return to_other.has_room(); }));
    REQUIRE(to_other.publish({i}).taken == 1);
    const auto got = other.take(20s);
    REQUIRE(got);
    REQUIRE((*got)->number == i);
  }
  // What has waited is whole.
  for (std::uint64_t i = 1; i <= 2 * depth; ++i) {
    const auto got = full.take(20s);
    REQUIRE(got);
    REQUIRE((*got)->number == i);
  }
}
