// Two nodes that publish to each other; one is killed. The other one noticed the death by its own
// way out, wrote off what had not come, and then refused what still lay in its lane.
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t count = 500;

bus::node make_node(const std::string& directory) {
  return bus::node({.name = "n", .transports = {transports::shm()}, .directory = directory});
}

void speak(fault::channel& parent, const std::string& directory) {
  bus::node node = make_node(directory);
  const auto replies = node.subscribe<crew::numbered>("replies", [](const auto&) {});
  auto numbers = node.advertise<crew::numbered>("numbers");
  crew::must(numbers.wait_matched(1, crew::patience), "nobody listens");
  while (replies.matched() == 0) node.run_for(1ms);
  // The listener does not turn any more.
  static_cast<void>(parent.hear());
  for (std::uint64_t i = 1; i <= count; ++i) {
    crew::must(numbers.publish(crew::make(i, 1)).taken == 1, "not taken");
  }
  parent.say(1);
  static_cast<void>(parent.hear());
}

void listen(fault::channel& parent, const std::string& directory) {
  bus::node node = make_node(directory);
  // So few places that the lane is emptied in many turns.
  auto heard =
      node.subscribe<crew::numbered>("numbers", {.depth = 8, .when_full = bus::drop::newest});
  auto replies = node.advertise<crew::numbered>("replies");
  crew::must(heard.wait_matched(1, crew::patience), "nobody speaks");
  crew::must(replies.wait_matched(1, crew::patience), "nobody hears replies");
  parent.say(1);
  static_cast<void>(parent.hear());  // the speaker is dead
  std::uint64_t last = 0;
  while (const auto got = heard.take(1s)) last = crew::check(**got, 1, last);
  crew::must(heard.accounts().expected == count, "expected is not what was published");
  crew::must(heard.accounts().balanced(), "the books do not balance");
  parent.say(heard.accounts().delivered);
}

}  // namespace

TEST_CASE("what a dead publisher had sent is delivered before it is written off") {
  const tests::scratch_directory scratch;
  fault::child listener([&](fault::channel& parent) { listen(parent, scratch.path()); });
  fault::child speaker([&](fault::channel& parent) { speak(parent, scratch.path()); });
  REQUIRE(listener.pipe().hear(crew::patience) == 1);
  speaker.pipe().say(1);
  REQUIRE(speaker.pipe().hear(crew::patience) == 1);
  speaker.kill();
  REQUIRE(speaker.wait() == -SIGKILL);
  listener.pipe().say(1);
  CHECK(listener.pipe().hear(crew::patience) == count);
  CHECK(listener.wait() == 0);
}
