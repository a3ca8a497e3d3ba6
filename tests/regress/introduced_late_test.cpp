// Who came later, or changed later, was never introduced to peers over the network that were known
// already; and a node that had died was taught back by everybody who had not noticed yet.
#include "tests/regress/far_apart.hpp"

#include <algorithm>

#include <catch2/catch.hpp>

using namespace far_apart;

TEST_CASE(
    "a neighbour that comes later, and its later topics, reach peers that are known already") {
  const tests::scratch_directory scratch;
  const std::string here = scratch.path() + "/here";
  const auto door = make_node({.machine = here, .listen = anywhere});
  const auto far = make_node({.machine = scratch.path() + "/there",
                              .listen = anywhere,
                              .peers = {address_of(here, door->inside().id())}});
  auto numbers = far->advertise<crew::numbered>("numbers");
  auto more = far->advertise<crew::numbered>("more");
  REQUIRE(turn({door.get(), far.get()}, [&] {
    return knows(*door, far->inside().id()) && knows(*far, door->inside().id());
  }));
  const auto late = make_node({.machine = here, .listen = anywhere});
  const std::vector<bus::node*> all = {door.get(), far.get(), late.get()};
  auto heard = late->subscribe<crew::numbered>("numbers");
  REQUIRE(turn(all, [&] { return numbers.matched() == 1 && heard.matched() == 1; }));
  REQUIRE(numbers.publish(crew::make(1, 1)).taken == 1);
  REQUIRE(turn(all, [&] { return heard.take(1ms).has_value(); }));

  auto later = late->subscribe<crew::numbered>("more");
  REQUIRE(turn(all, [&] { return more.matched() == 1; }));
  REQUIRE(more.publish(crew::make(1, 2)).taken == 1);
  REQUIRE(turn(all, [&] { return later.take(1ms).has_value(); }));
}

TEST_CASE("a node that was killed is forgotten everywhere, and nobody brings it back") {
  const tests::scratch_directory scratch;
  const std::string here = scratch.path() + "/here";
  fault::child doomed([&](fault::channel& parent) {
    const auto self = make_node({.machine = here, .listen = anywhere});
    const auto heard = self->subscribe<crew::numbered>("numbers");
    parent.say(self->inside().id().value);
    self->run_for(60s);
  });
  const bus::node_id dead{doomed.pipe().hear()};
  const auto door = make_node({.machine = here, .listen = anywhere});
  const std::string call = address_of(here, door->inside().id());
  const auto east =
      make_node({.machine = scratch.path() + "/east", .listen = anywhere, .peers = {call}});
  const auto west =
      make_node({.machine = scratch.path() + "/west", .listen = anywhere, .peers = {call}});
  const std::vector<bus::node*> all = {door.get(), east.get(), west.get()};
  const auto known_to = [&](bus::node_id id) {
    return std::count_if(all.begin(), all.end(), [&](bus::node* one) { return knows(*one, id); });
  };
  auto numbers = east->advertise<crew::numbered>("numbers");
  REQUIRE(turn(all, [&] {
    return known_to(dead) == 3 && numbers.matched() == 1 && knows(*east, west->inside().id());
  }));
  doomed.kill();
  // Its neighbour has no link with it, and so nothing has told of the death; the others had.
  REQUIRE(turn(all, [&] { return !knows(*east, dead) && !knows(*west, dead); }));
  // Everybody says all that he knows, more than once.
  for (int i = 0; i < 5; ++i) {
    std::vector<bus::publisher<crew::numbered>> words;
    words.reserve(all.size());
    for (bus::node* one : all) words.push_back(one->advertise<crew::numbered>("words"));
    const auto until = bus::deadline::after(100ms);
    REQUIRE(turn(all, [&] { return until.passed(); }));
    REQUIRE(!knows(*east, dead));
    REQUIRE(!knows(*west, dead));
  }
  REQUIRE(known_to(dead) == 0);
  REQUIRE(numbers.matched() == 0);
}
