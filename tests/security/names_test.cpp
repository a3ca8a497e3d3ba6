// Names of topics that the rules refuse, offered by every way that a name can come: the API, a card
// in the bus directory, and the words of a peer, over each transport.
#include "bus/bus.hpp"
#include "bus/node/ledger_file.hpp"
#include "bus/node/rendezvous.hpp"
#include "schemas/bus/control.pb.h"
#include "tests/contract/world.hpp"
#include "tests/scratch.hpp"
#include "transports/inproc/inproc.hpp"
#include "transports/shm/shm.hpp"
#include "transports/zmq/zmq.hpp"

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using contract::must;

namespace {

using std::string_literals::operator""s;

std::string levels(std::size_t count) {
  std::string name = "a";
  for (std::size_t i = 1; i < count; ++i) name += "/a";
  return name;
}

const std::vector<std::string> bad_names = {
    "",         std::string(256, 'a'),
    levels(33), "a\0b"s,
    "a\nb",     "a\033[31mb",
    "a\x7f",    "\xc2\x9b",
    "a//b",     "/a",
    "a/",       "/",
    "*",        "**",
    "a/*",      "a/**/b",
    "a/*b",
};
// Protobuf refuses the message that has one of these.
const std::vector<std::string> bad_utf8 = {"\xff\xfe", "\xc0\xaf", "\xed\xa0\x80",
                                           "\xf4\x90\x80\x80"};

std::vector<std::string> all_bad() {
  std::vector<std::string> all = bad_names;
  all.insert(all.end(), bad_utf8.begin(), bad_utf8.end());
  return all;
}

struct way {
  const char* scheme;
  bus::transport_maker maker;
};
const std::vector<way> ways = {
    {"inproc", transports::inproc()}, {"shm", transports::shm()}, {"zmq", transports::zmq()}};

bus::node make_node(const std::string& directory, const way& over) {
  return bus::node({.name = "victim",
                    .transports = {over.maker},
                    .directory = directory,
                    .listen = {"tcp://127.0.0.1:*"}});
}

bus::sample attach(contract::party& by, const std::string& topic, std::uint32_t publisher) {
  bus::wire::Control words;
  words.mutable_attach()->set_publisher(publisher);
  words.mutable_attach()->set_topic(topic);
  words.mutable_attach()->set_next_sequence(1);
  const std::string bytes = words.SerializeAsString();
  auto lent = by.carrier->lend(bytes.size());
  must(lent.has_value(), "lend");
  std::memcpy(lent->bytes().data(), bytes.data(), bytes.size());
  bus::frame head;
  head.flags = bus::frame_flag::control;
  head.node = by.id.value;
  head.bytes = bytes.size();
  return std::move(*lent).commit(head);
}

bool is_known(bus::node& node, const contract::party& by, std::uint32_t publisher) {
  bus::frame head;
  head.node = by.id.value;
  head.publisher = publisher;
  return node.inside().provenance_of(head).topic != nullptr;
}

}  // namespace

TEST_CASE("statement 6: a bad topic name is refused by the API, whatever the transport") {
  for (const way& over : ways) {
    const tests::scratch_directory scratch;
    bus::node node = make_node(scratch.path(), over);
    for (const std::string& name : all_bad()) {
      INFO(over.scheme << ": '" << name << "'");
      try {
        static_cast<void>(node.advertise<bus::raw>(name));
        FAIL("advertised");
      } catch (const bus::error& refused) {
        REQUIRE(refused.code() == bus::errc::bad_name);
      }
    }
    static_cast<void>(node.advertise<bus::raw>("a/good/one"));
  }
}

TEST_CASE("statement 6: a bad topic name in a peer's words reaches nobody, over any transport") {
  for (const way& over : ways) {
    INFO(over.scheme);
    const tests::scratch_directory scratch;
    bus::node node = make_node(scratch.path(), over);
    auto all = node.subscribe<bus::raw>("**");
    const auto card = node.inside().meeting_place().read_card(node.id());
    REQUIRE(card);
    REQUIRE(card->addresses_size() == 1);
    bus::transport_setup setup;
    setup.directory = scratch.path();
    contract::party liar(over.maker, setup);
    bus::outbox& out = liar.connect(node.id(), card->addresses(0));
    const auto say = [&](const bus::sample& words) {
      return contract::pump_until({&liar},
                                  [&] {
                                    node.run_for(1ms);
                                    return out.state() == bus::link_state::open &&
                                           out.send({&words, 1}).value_or(std::size_t{0}) == 1;
                                  },
                                  {.look_every = 1ms});
    };
    std::uint32_t publisher = 0;
    for (const std::string& name : all_bad()) REQUIRE(say(attach(liar, name, ++publisher)));
    const std::uint32_t good = ++publisher;
    REQUIRE(say(attach(liar, "a/good/one", good)));
    // Words come in order: when the last is known, the others have been judged.
    REQUIRE(contract::pump_until({&liar},
                                 [&] {
                                   node.run_for(1ms);
                                   return is_known(node, liar, good);
                                 },
                                 {.look_every = 1ms}));
    for (std::uint32_t bad = 1; bad < good; ++bad) REQUIRE_FALSE(is_known(node, liar, bad));
    REQUIRE(all.matched() == 1);
  }
}

TEST_CASE("statement 6: bad names in a card match nothing, and harm nobody who reads it") {
  const tests::scratch_directory scratch;
  bus::node node = make_node(scratch.path(), ways[1]);
  auto one = node.advertise<bus::raw>("a/good/one");
  auto all = node.subscribe<bus::raw>("**");
  auto hostile = bus::rendezvous::open(scratch.path(), bus::node_id::random());
  REQUIRE(hostile);
  const auto id = bus::node_id::random();
  const auto books = bus::ledger_file::create(hostile->directory(), id);  // it is alive
  REQUIRE(books);
  bus::wire::Card card;
  card.set_version(bus::card_version);
  card.set_node(id.value);
  card.set_name("hostile");
  card.add_addresses("shm:" + bus::to_hex(id.value));
  for (const std::string& name : bad_names) {
    auto& words = *card.add_advertisements();
    words.set_topic(name);
    words.set_publisher(static_cast<std::uint32_t>(card.advertisements_size()));
    if (name.find('*') != name.npos) continue;  // as a pattern, it may be good
    auto& interest = *card.add_interests();
    interest.set_pattern(name);
    interest.set_subscription(1000U + static_cast<std::uint32_t>(card.interests_size()));
  }
  REQUIRE(hostile->write_card(card));
  bus::node late = make_node(scratch.path(), ways[1]);
  auto heard = late.subscribe<bus::raw>("a/good/one");
  const auto until = bus::deadline::after(20s);
  while (one.matched() < 2 && !until.passed()) {
    node.run_for(1ms);
    late.run_for(1ms);
  }
  // The node's own subscription and the late one's, and nobody else's.
  REQUIRE(one.matched() == 2);
  REQUIRE(one.publish(std::as_bytes(std::span("x", 1))).links == 2);
}
