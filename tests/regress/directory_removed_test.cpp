// `rm -rf` of the bus directory under a live bus: the links that were there stopped carrying, since
// a card that went away was taken for a node that left.
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <filesystem>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

bus::node make_node(const std::string& directory) {
  return bus::node({.name = "n", .transports = {transports::shm()}, .directory = directory});
}

}  // namespace

TEST_CASE("links outlive the directory in which they were made") {
  const tests::scratch_directory scratch;
  const std::string directory = scratch.path() + "/bus";
  bus::node writer = make_node(directory);
  bus::node reader = make_node(directory);
  auto numbers = writer.advertise<crew::numbered>("numbers");
  auto heard = reader.subscribe<crew::numbered>("numbers");
  const auto turn = [&](auto done) {
    return crew::eventually(
        [&] {
          reader.run_for(1ms);
          writer.run_for(1ms);
          return done();
        },
        10s);
  };
  REQUIRE(turn([&] { return numbers.matched() == 1; }));
  std::filesystem::remove_all(directory);
  // Both look at what happened, as often as they like.
  for (int i = 0; i < 20; ++i) static_cast<void>(turn([] { return true; }));
  for (std::uint64_t i = 1; i <= 100; ++i) {
    REQUIRE(numbers.publish(crew::make(i, 1)).taken == 1);
    const auto got = heard.take(10s);
    REQUIRE(got);
    REQUIRE((*got)->sequence == i);
  }
  REQUIRE(heard.accounts().balanced());
}

TEST_CASE("a node whose directory and peer are gone forgets the peer") {
  const tests::scratch_directory scratch;
  const std::string directory = scratch.path() + "/bus";
  bus::node writer = make_node(directory);
  auto numbers = writer.advertise<crew::numbered>("numbers");
  {
    bus::node reader = make_node(directory);
    const auto heard = reader.subscribe<crew::numbered>("numbers");
    REQUIRE(crew::eventually(
        [&] {
          reader.run_for(1ms);
          writer.run_for(1ms);
          return numbers.matched() == 1;
        },
        10s));
    std::filesystem::remove_all(directory);
  }
  REQUIRE(crew::eventually(
      [&] {
        writer.run_for(1ms);
        return numbers.matched() == 0;
      },
      10s));
  REQUIRE(numbers.publish(crew::make(1, 1)).links == 0);
}
