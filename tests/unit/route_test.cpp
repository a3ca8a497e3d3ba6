// Who is believed about whom: the rules of bus/route's directory and graveyard.
#include "bus/route/directory.hpp"
#include "bus/route/graveyard.hpp"
#include "bus/route/select.hpp"

#include <array>
#include <string>

#include <catch2/catch.hpp>

namespace {

using origin = bus::directory::origin;

bus::wire::Card card(std::uint64_t node, std::uint64_t revision, const std::string& pattern) {
  bus::wire::Card made;
  made.set_node(node);
  made.set_revision(revision);
  made.add_interests()->set_pattern(pattern);
  return made;
}

bool wants(const bus::directory& all, const std::string& topic) {
  bool found = false;
  all.for_each_interested(topic, [&](bus::node_id, const bus::wire::Interest&) { found = true; });
  return found;
}

}  // namespace

TEST_CASE("hearsay says nothing of a neighbour, nor of a node that speaks for itself") {
  for (const origin better : {origin::local, origin::itself}) {
    bus::directory all;
    REQUIRE(all.upsert(card(1, 1, "true"), better));
    REQUIRE_FALSE(all.upsert(card(1, 99, "false"), origin::hearsay));
    CHECK(wants(all, "true"));
    CHECK_FALSE(wants(all, "false"));
    CHECK(all.find({1})->network == (better == origin::itself));
  }
}

TEST_CASE("a forged revision does not silence the node that it speaks of") {
  for (const origin better : {origin::local, origin::itself}) {
    bus::directory all;
    REQUIRE(all.upsert(card(1, UINT64_MAX, "false"), origin::hearsay));
    REQUIRE(all.upsert(card(1, 1, "true"), better));
    CHECK(wants(all, "true"));
    CHECK_FALSE(wants(all, "false"));
  }
}

TEST_CASE("who fell silent is hearsay until it speaks again") {
  bus::directory all;
  REQUIRE(all.upsert(card(1, 1, "old"), origin::itself));
  REQUIRE(all.find({1})->speaks);
  all.fell_silent({1});
  REQUIRE_FALSE(all.find({1})->speaks);
  REQUIRE(all.upsert(card(1, 2, "told"), origin::hearsay));
  REQUIRE(all.upsert(card(1, 1, "itself"), origin::itself));
  REQUIRE(wants(all, "itself"));
}

TEST_CASE("hearsay is bounded, and what is forgotten makes room") {
  bus::directory all;
  for (std::uint64_t node = 1; node <= bus::directory::hearsay_max; ++node) {
    REQUIRE(all.upsert(card(node, 1, "a"), origin::hearsay));
  }
  REQUIRE_FALSE(all.upsert(card(5000, 1, "a"), origin::hearsay));
  REQUIRE_FALSE(all.find({5000}));
  REQUIRE(all.upsert(card(5001, 1, "a"), origin::itself));
  REQUIRE(all.remove({7}));
  REQUIRE_FALSE(all.remove({7}));
  REQUIRE(all.upsert(card(5000, 1, "a"), origin::hearsay));
}

TEST_CASE("a grave holds until its time is over, or until its node speaks") {
  bus::graveyard graves;
  graves.bury({1}, 100);
  graves.bury({2}, 100);
  CHECK(graves.holds({1}, 99));
  CHECK_FALSE(graves.holds({1}, 100));
  CHECK_FALSE(graves.holds({3}, 0));
  graves.raise({2});
  CHECK_FALSE(graves.holds({2}, 0));
}

TEST_CASE("graves are bounded, and the one that would end first makes room") {
  bus::graveyard graves;
  for (std::uint64_t node = 1; node <= bus::graveyard::graves_max; ++node) {
    graves.bury({node}, static_cast<std::int64_t>(1000 + node));
  }
  graves.bury({9999}, 5000);
  CHECK(graves.size() == bus::graveyard::graves_max);
  CHECK_FALSE(graves.holds({1}, 0));
  CHECK(graves.holds({2}, 0));
  CHECK(graves.holds({9999}, 0));
}

TEST_CASE("a remote peer without an address may have left a way back; a neighbour has not") {
  const std::array<bus::traits, 1> ours = {bus::traits{.scheme = "zmq",
                                                       .reach = bus::reach::network,
                                                       .shares_memory = false,
                                                       .survives_crash = false,
                                                       .bytes_max = 1,
                                                       .latency_ns = 1,
                                                       .bytes_per_second = 1}};
  bus::known_node peer;
  peer.network = true;
  const auto remote = bus::rank_ways(ours, peer);
  CHECK(remote.front().worth_trying);
  CHECK(remote.front().address == "zmq:");
  peer.local = true;
  CHECK_FALSE(bus::rank_ways(ours, peer).front().worth_trying);
}
