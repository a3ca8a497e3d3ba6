// A user may have 128 inotify instances; the 128th node on a machine could not be made.
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <filesystem>
#include <vector>

#include <sys/inotify.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

bus::node make_node(const std::string& directory) {
  return bus::node({.name = "n", .transports = {transports::shm()}, .directory = directory});
}

// All that the user may still have; false when the process's own limit came first.
bool take_all(std::vector<bus::fd>& instances) {
  for (;;) {
    bus::fd one(::inotify_init1(IN_CLOEXEC));
    if (one) {
      instances.push_back(std::move(one));
      continue;
    }
    const bus::fd other(::dup(0));
    return static_cast<bool>(other);
  }
}

}  // namespace

TEST_CASE("nodes without an inotify instance hear of those who come and of those who go") {
  const tests::scratch_directory scratch;
  std::vector<bus::fd> instances;
  if (!take_all(instances)) {
    WARN("not shown here: more inotify instances than open files");
    return;
  }
  bus::node early = make_node(scratch.path());
  REQUIRE(early.inside().meeting_place().waits_at_pipe());
  auto numbers = early.advertise<crew::numbered>("numbers");
  instances.clear();
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

TEST_CASE("who waits at a pipe finds out that the directory went, when it next has to do with it") {
  const tests::scratch_directory scratch;
  const std::string directory = scratch.path() + "/bus";
  std::vector<bus::fd> instances;
  if (!take_all(instances)) return;
  bus::node early = make_node(directory);
  REQUIRE(early.inside().meeting_place().waits_at_pipe());
  instances.clear();
  std::filesystem::remove_all(directory);
  auto numbers = early.advertise<crew::numbered>("numbers");
  REQUIRE(crew::eventually(
      [&] {
        early.run_for(1ms);
        return std::filesystem::exists(directory);
      },
      10s));
  bus::node late = make_node(directory);
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
  std::vector<bus::fd> instances;
  if (!take_all(instances)) return;
  { const bus::node gone = make_node(scratch.path()); }
  REQUIRE(std::filesystem::is_empty(scratch.path() + "/waiting"));
}
