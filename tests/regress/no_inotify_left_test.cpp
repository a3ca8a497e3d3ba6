// A user may have 128 inotify instances; the 128th node on a machine could not be made.
#include "tests/no_inotify.hpp"
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <filesystem>
#include <optional>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

bus::node make_node(const std::string& directory) {
  return bus::node({.name = "n", .transports = {transports::shm()}, .directory = directory});
}

}  // namespace

TEST_CASE("nodes without an inotify instance hear of those who come and of those who go") {
  const tests::scratch_directory scratch;
  std::optional<tests::no_inotify> taken(std::in_place);
  if (!*taken) {
    WARN("not shown here: more inotify instances than open files");
    return;
  }
  bus::node early = make_node(scratch.path());
  REQUIRE(early.inside().meeting_place().waits_at_pipe());
  auto numbers = early.advertise<crew::numbered>("numbers");
  taken.reset();
  {
    // One that has inotify, and came later.
    bus::node late = make_node(scratch.path());
    REQUIRE_FALSE(late.inside().meeting_place().waits_at_pipe());
    auto heard = late.subscribe<crew::numbered>("numbers");
    REQUIRE(crew::eventually(
        [&] {
          early.run_for(1ms);
          late.run_for(1ms);
          return numbers.matched() == 1;
        },
        10s));
    REQUIRE(numbers.publish(crew::make(1, 1)).taken == 1);
    REQUIRE(heard.take(10s));
  }
  REQUIRE(crew::eventually(
      [&] {
        early.run_for(1ms);
        return numbers.matched() == 0;
      },
      10s));
}

TEST_CASE("who waits at a pipe finds out that the directory went, when it next has to do") {
  const tests::scratch_directory scratch;
  const std::string directory = scratch.path() + "/bus";
  std::optional<tests::no_inotify> taken(std::in_place);
  if (!*taken) return;
  bus::node early = make_node(directory);
  REQUIRE(early.inside().meeting_place().waits_at_pipe());
  taken.reset();
  // It has to do once, or more often than it looks.
  const bool busy = GENERATE(false, true);
  INFO((busy ? "busy" : "once"));
  std::optional<bus::publisher<crew::numbered>> passing(early.advertise<crew::numbered>("first"));
  early.run_for(10ms);  // it has looked, and will not at once again
  std::filesystem::remove_all(directory);
  passing.emplace(early.advertise<crew::numbered>("passing"));
  REQUIRE(crew::eventually(
      [&] {
        if (busy) passing.emplace(early.advertise<crew::numbered>("passing"));
        early.run_for(busy ? 1ms : 100ms);
        return std::filesystem::exists(directory);
      },
      10s));
  passing.reset();
  bus::node late = make_node(directory);
  auto numbers = early.advertise<crew::numbered>("numbers");
  auto heard = late.subscribe<crew::numbered>("numbers");
  REQUIRE(crew::eventually(
      [&] {
        early.run_for(1ms);
        late.run_for(1ms);
        return numbers.matched() == 1;
      },
      10s));
}

TEST_CASE("a node that waited at a pipe leaves no pipe behind") {
  const tests::scratch_directory scratch;
  const tests::no_inotify taken;
  if (!taken) return;
  { const bus::node gone = make_node(scratch.path()); }
  REQUIRE(std::filesystem::is_empty(scratch.path() + "/waiting"));
}
