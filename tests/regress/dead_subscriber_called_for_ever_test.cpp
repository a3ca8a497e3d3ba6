// A publisher whose subscriber was killed went on calling it, every two seconds and for ever: only
// the death of publishers was looked into.
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

TEST_CASE("a publisher forgets a subscriber that was killed") {
  const tests::scratch_directory scratch;
  fault::child listener([&](fault::channel& parent) {
    bus::node node({.name = "r", .transports = {transports::shm()}, .directory = scratch.path()});
    const auto heard = node.subscribe<crew::numbered>("numbers");
    parent.say(1);
    node.run();
  });
  REQUIRE(listener.pipe().hear() == 1);
  bus::node writer({.name = "w", .transports = {transports::shm()}, .directory = scratch.path()});
  auto numbers = writer.advertise<crew::numbered>("numbers");
  const auto links = [&] {
    writer.run_for(1ms);
    const auto file = writer.inside().meeting_place().read_links(writer.id());
    return file ? file->links_size() : -1;
  };
  REQUIRE(numbers.wait_matched(1, 10s));
  REQUIRE(crew::eventually([&] { return links() == 1; }, 10s));
  listener.kill();
  REQUIRE(listener.wait() == -SIGKILL);
  REQUIRE(crew::eventually([&] { return links() == 0; }, 10s));
}
