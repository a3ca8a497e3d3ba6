// bus why as a pure function: for every way in which messages fail to arrive, the first broken step
// and a fix that names what to do.
#include "bus/route/explain.hpp"

#include "bus/base/error_code.hpp"
#include "bus/route/directory.hpp"

#include <string>

#include <catch2/catch.hpp>

namespace {

using bus::explanation;

constexpr std::int64_t now_ns = 100'000'000'000;
constexpr bus::node_id talker_id{0x11};
constexpr bus::node_id hearer_id{0x22};

bus::wire::Type type(const std::string& name, std::uint64_t hash) {
  bus::wire::Type made;
  made.set_name(name);
  made.set_encoding(2);
  made.set_hash(hash);
  return made;
}

bus::node_report node(bus::node_id id, const std::string& name) {
  bus::node_report made;
  made.id = id;
  made.life = bus::liveness::alive;
  made.card.set_version(bus::card_version);
  made.card.set_node(id.value);
  made.card.set_name(name);
  made.card.set_pid(static_cast<std::uint32_t>(1000 + id.value));
  return made;
}

bus::ledger_entry& add_row(bus::node_report& to, bus::row_kind kind, std::uint32_t number,
                           bus::node_id peer = {}, std::uint64_t other = 0) {
  bus::ledger_entry row;
  row.kind = kind;
  row.number = number;
  row.peer = peer;
  row.other = other;
  to.ledger.entries.push_back(row);
  return to.ledger.entries.back();
}

void publishes(bus::node_report& one, const std::string& topic, std::uint64_t published) {
  auto& words = *one.card.add_advertisements();
  words.set_publisher(1);
  words.set_topic(topic);
  *words.mutable_type() = type("demo.Quake", 7);
  add_row(one, bus::row_kind::publisher, 1).counts[bus::column::published] = published;
}

bus::wire::Interest& subscribes(bus::node_report& one, const std::string& pattern) {
  auto& words = *one.card.add_interests();
  words.set_subscription(1);
  words.set_pattern(pattern);
  words.set_depth(1024);
  add_row(one, bus::row_kind::subscription, 1);
  return words;
}

// A link from the talker to the hearer over shm, and its match.
bus::wire::Link& links(bus::node_report& from, bus::node_id to, const std::string& state) {
  auto& link = *from.links.add_links();
  link.set_peer(to.value);
  link.set_peer_name("hearer");
  link.set_state(state);
  link.set_proof("pid 1034 uid 0");
  auto& first = *link.add_candidates();
  first.set_scheme("inproc");
  first.set_cost_ns(200);
  first.set_verdict("the peer has no inproc address");
  auto& second = *link.add_candidates();
  second.set_scheme("shm");
  second.set_address("shm:22");
  second.set_cost_ns(1'500);
  second.set_chosen(state == "open");
  second.set_verdict(state == "open" ? "chosen: it opened, and no cheaper way did" : "opening");
  auto& match = *from.links.add_matches();
  match.set_publisher(1);
  match.set_peer(to.value);
  match.set_attached(state == "open");
  match.set_verdict(state == "open" ? "attached" : "waiting for the link");
  add_row(from, bus::row_kind::link, 0, to);
  return link;
}

struct pair {
  bus::node_report talker = node(talker_id, "talker");
  bus::node_report hearer = node(hearer_id, "hearer");

  // Everything is well: `published` samples were sent, and arrived.
  explicit pair(std::uint64_t published = 42, const std::string& pattern = "quakes/**") {
    publishes(talker, "quakes/ak", published);
    subscribes(hearer, pattern);
    links(talker, hearer_id, "open");
    auto& heard = add_row(hearer, bus::row_kind::source, 1, talker_id, 1);
    heard.counts[bus::column::source_sequence] = published;
    heard.counts[bus::column::source_arrived] = published;
  }
  bus::ledger_entry& heard() { return hearer.ledger.entries[1]; }
  bus::ledger_entry& link_row() { return talker.ledger.entries[1]; }

  [[nodiscard]] explanation why(const std::string& topic = "quakes/ak") const {
    return bus::explain({.directory = "/run/bus", .steady_ns = now_ns, .nodes = {talker, hearer}},
                        topic);
  }
};

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("messages that arrive are flowing, and the text names way, cost and sequences") {
  const auto told = pair().why();
  CHECK(told.how == explanation::state::flowing);
  CHECK(told.broken.empty());
  REQUIRE(told.paths.size() == 1);
  REQUIRE(told.paths[0].winner() != nullptr);
  CHECK(told.paths[0].winner()->scheme == "shm");
  CHECK(told.paths[0].sent == 42);
  CHECK(told.paths[0].received == 42);
  const std::string text = to_text(told);
  CHECK(has(text, "quakes/ak: flowing"));
  CHECK(has(text, "last sent 42, last received 42, by shm at an estimated 1.5 us"));
  CHECK(has(text, "the peer has no inproc address"));
  CHECK(has(text, "pid 1034 uid 0"));
}

TEST_CASE("a matched pair that has published nothing is matched, and not broken") {
  const auto told = pair(0).why();
  CHECK(told.how == explanation::state::matched);
  CHECK(told.broken.empty());
}

TEST_CASE("nobody at all: says to start somebody with the same directory") {
  const auto told = bus::explain({.directory = "/run/bus", .steady_ns = 0, .nodes = {}}, "a");
  CHECK(told.how == explanation::state::broken);
  CHECK(has(told.broken, "nobody publishes a"));
  CHECK(has(told.fix, "/run/bus"));
}

TEST_CASE("a typing error finds the nearest published name") {
  const auto told = pair().why("quakes/sk");
  CHECK(told.how == explanation::state::broken);
  CHECK(has(told.broken, "nobody publishes quakes/sk"));
  CHECK(told.fix == "did you mean quakes/ak?");
}

TEST_CASE("a subscriber with a typing error is named, from the publisher's side") {
  pair both(42, "quake/ak");
  const auto told = both.why();
  CHECK(has(told.broken, "nobody subscribes to quakes/ak"));
  CHECK(told.fix == "did you mean quake/ak?");
}

TEST_CASE("a name that the rules refuse is the first broken step") {
  const auto told = pair().why("quakes//ak");
  CHECK(told.how == explanation::state::broken);
  CHECK(has(told.broken, "no topic"));
}

TEST_CASE("types that differ are refused with both names") {
  pair both;
  *both.hearer.card.mutable_interests(0)->mutable_type() = type("demo.Alert", 9);
  const auto told = both.why();
  CHECK(told.how == explanation::state::broken);
  CHECK(has(told.broken, "types differ"));
  CHECK(has(told.broken, "demo.Quake"));
  CHECK(has(told.broken, "demo.Alert"));
  CHECK(has(told.fix, "demo.Quake"));
}

TEST_CASE("one name with two schemas says to build from one schema") {
  pair both;
  *both.hearer.card.mutable_interests(0)->mutable_type() = type("demo.Quake", 8);
  CHECK(has(both.why().fix, "same schema"));
}

TEST_CASE("a card of another version is not linked") {
  pair both;
  both.hearer.card.set_version(9);
  const auto told = both.why();
  CHECK(has(told.broken, "version 9"));
  CHECK(has(told.fix, "same release"));
}

TEST_CASE("a card that may not be read is a matter of rights") {
  pair both;
  both.hearer.card.Clear();
  both.hearer.card_error = bus::errc::denied;
  const auto told = both.why();
  CHECK(has(told.broken, "rights"));
  CHECK(has(told.fix, "chmod 2770"));
  CHECK(has(to_text(told), "permission denied"));
}

TEST_CASE("a link that was denied is a matter of rights") {
  pair both;
  auto& link = *both.talker.links.mutable_links(0);
  link.set_state("unreachable");
  link.set_reason("permission denied");
  link.mutable_candidates(1)->set_chosen(false);
  link.mutable_candidates(1)->set_verdict("tried: permission denied");
  both.talker.links.mutable_matches(0)->set_attached(false);
  const auto told = both.why();
  CHECK(has(told.broken, "link: no rights"));
  CHECK(has(told.fix, "one user"));
  CHECK(has(to_text(told), "tried: permission denied"));
}

TEST_CASE("a peer that takes nothing for a second is stopped, shown by the ledger alone") {
  pair both;
  both.heard().counts[bus::column::source_sequence] = 30;
  both.link_row().counts[bus::column::link_unsettled] = 12;
  both.link_row().counts[bus::column::link_moved_ns] = now_ns - 5'000'000'000;
  auto told = both.why();
  CHECK(told.how == explanation::state::broken);
  CHECK(has(told.broken, "let go of nothing for 5 s"));
  CHECK(has(told.broken, "12 samples"));
  CHECK_FALSE(has(told.fix, "kill -CONT"));

  both.hearer.looks_stopped = true;
  told = both.why();
  CHECK(has(told.broken, "says /proc"));
  CHECK(has(told.fix, "kill -CONT 1034"));
}

TEST_CASE("samples that were counted and are held are no sign of a stopped peer") {
  pair both;
  both.link_row().counts[bus::column::link_unsettled] = 12;
  both.link_row().counts[bus::column::link_moved_ns] = 0;
  CHECK(both.why().how == explanation::state::flowing);
}

TEST_CASE("samples on the way for less than a second are on the way") {
  pair both;
  both.heard().counts[bus::column::source_sequence] = 30;
  both.link_row().counts[bus::column::link_unsettled] = 12;
  both.link_row().counts[bus::column::link_moved_ns] = now_ns - 1'000'000;
  const auto told = both.why();
  CHECK(told.how == explanation::state::flowing);
  CHECK(has(to_text(told), "12 samples on the way"));
}

TEST_CASE("a stopped process does not prove anything while its books balance") {
  pair both;
  both.hearer.looks_stopped = true;
  CHECK(both.why().how == explanation::state::flowing);
}

TEST_CASE("a peer that is stopped before it answers the handshake is found at the link") {
  pair both;
  both.hearer.ledger.entries.pop_back();
  both.talker.links.mutable_links(0)->set_state("opening");
  both.talker.links.mutable_matches(0)->set_attached(false);
  both.hearer.looks_stopped = true;
  const auto told = both.why();
  CHECK(has(told.broken, "link: hearer"));
  CHECK(has(told.broken, "has not answered"));
}

TEST_CASE("a link says in runs which publishers it carries, and which wait for it") {
  pair both;
  both.talker.links.clear_matches();
  both.hearer.ledger.entries.pop_back();  // it has counted nothing yet
  auto& link = *both.talker.links.mutable_links(0);
  CHECK(has(both.why().broken, "link: "));
  for (int i = 0; i < 2; ++i) link.add_waiting(1);
  CHECK(has(both.why().broken, "waiting for the link"));
  link.clear_waiting();
  for (int i = 0; i < 2; ++i) link.add_attached(1);
  CHECK_FALSE(has(both.why().broken, "attached: "));
  CHECK_FALSE(has(both.why().broken, "link: "));
}

TEST_CASE("a link that cannot be reached says why and what to look at") {
  pair both;
  auto& link = *both.talker.links.mutable_links(0);
  link.set_state("unreachable");
  link.set_reason("connection refused");
  const auto told = both.why();
  CHECK(has(told.broken, "unreachable: connection refused"));
  CHECK(has(told.fix, "firewall"));
}

TEST_CASE("a remote peer that was met over a network is a path of its own") {
  pair both;
  auto& link = links(both.talker, bus::node_id{0x99}, "unreachable");
  link.set_reason("timed out");
  link.set_peer_name("far");
  both.talker.links.mutable_matches(1)->set_attached(false);
  const auto told = both.why();
  REQUIRE(told.paths.size() == 2);
  CHECK_FALSE(told.paths[1].to.here);
  CHECK(told.paths[1].to.node_name == "far");
  CHECK(has(told.broken, "timed out"));
}

TEST_CASE("a peer of OMNIBUS_PEERS that cannot be reached is named when somebody is missing") {
  pair both;
  both.talker.card.clear_advertisements();
  both.talker.links.Clear();
  auto& call = *both.hearer.links.add_links();
  call.set_peer_name("tcp://10.0.0.9:7400");
  call.set_state("unreachable");
  call.set_reason("connection refused");
  const auto told = both.why();
  CHECK(has(told.broken, "nobody publishes"));
  CHECK(has(told.broken, "tcp://10.0.0.9:7400"));
  CHECK(has(told.fix, "OMNIBUS_LISTEN"));
}

TEST_CASE("a node that calls others and listens nowhere is told to listen") {
  pair both;
  both.talker.card.clear_advertisements();
  auto& call = *both.hearer.links.add_links();
  call.set_peer_name("tcp://10.0.0.9:7400");
  call.set_state("open");
  CHECK(has(both.why().broken, "listens nowhere"));
  CHECK(has(both.why().fix, "OMNIBUS_LISTEN"));
  both.hearer.card.add_addresses("zmq:tcp://10.0.0.1:7400");
  CHECK_FALSE(has(both.why().broken, "listens nowhere"));
}

TEST_CASE("a dead publisher is told with its last sequence, and bus gc") {
  pair both;
  both.talker.life = bus::liveness::dead;
  const auto told = both.why();
  CHECK(has(told.broken, "alive: talker"));
  CHECK(has(told.broken, "up to sequence 42"));
  CHECK(has(told.fix, "bus gc"));
}

TEST_CASE("leftovers of the dead beside the living are a note and break nothing") {
  pair both;
  bus::node_report dead = node(bus::node_id{0x33}, "old");
  publishes(dead, "quakes/ak", 7);
  dead.life = bus::liveness::dead;
  const auto told = bus::explain(
      {.directory = "/run/bus", .steady_ns = now_ns, .nodes = {both.talker, both.hearer, dead}},
      "quakes/ak");
  CHECK(told.how == explanation::state::flowing);
  REQUIRE(told.notes.size() == 1);
  CHECK(has(told.notes[0], "bus gc"));
}

TEST_CASE("losses are told by their cause, with advice, and do not stop the flow") {
  pair both;
  auto& books = both.hearer.ledger.entries[0].counts;
  books[bus::column::lost + static_cast<std::size_t>(bus::loss::overwritten)] = 3;
  const auto told = both.why();
  CHECK(told.how == explanation::state::flowing);
  CHECK(has(to_text(told), "has lost 3: overwritten"));
  CHECK(has(told.fix, "depth"));
}

TEST_CASE("a subscriber that lost all is broken at received") {
  pair both;
  both.heard().counts[bus::column::source_arrived] = 0;
  both.heard().counts[bus::column::source_lost] = 42;
  CHECK(has(both.why().broken, "received: 0 samples arrived, 42 lost"));
}

TEST_CASE("a queue that nobody empties is a warning") {
  pair both;
  both.hearer.ledger.entries[0].counts[bus::column::queued] = 1024;
  CHECK(has(to_text(both.why()), "its queue is full (1024)"));
}

TEST_CASE("a publisher without a links file has not met the subscriber yet") {
  pair both;
  both.talker.links.Clear();
  const auto told = both.why();
  CHECK(has(told.broken, "no link to it yet"));
}

TEST_CASE("the worst path is the answer, and every path is told") {
  pair both;
  bus::node_report other = node(bus::node_id{0x44}, "other");
  *subscribes(other, "quakes/ak").mutable_type() = type("demo.Alert", 9);
  const auto told = bus::explain(
      {.directory = "/run/bus", .steady_ns = now_ns, .nodes = {both.talker, both.hearer, other}},
      "quakes/ak");
  CHECK(told.how == explanation::state::broken);
  REQUIRE(told.paths.size() == 2);
  CHECK(told.paths[0].how == explanation::state::flowing);
  CHECK(told.paths[1].how == explanation::state::broken);
  CHECK(has(told.broken, "demo.Alert"));
}

TEST_CASE("a subscription that blocks is named, with the time that it has held its publisher up") {
  pair both(42);
  auto& interest = *both.hearer.card.mutable_interests(0);
  interest.set_when_full(2);
  interest.set_block_for_ns(1'500'000'000);
  add_row(both.talker, bus::row_kind::gate, 1, hearer_id, 1);
  const auto counts = [&]() -> auto& { return both.talker.ledger.entries.back().counts; };
  counts()[bus::column::gate_waits] = 3;
  counts()[bus::column::gate_waited_ns] = 250'000'000;
  CHECK(has(to_text(both.why()), "it was waited for 3 times, 0.250 s in all"));

  counts()[bus::column::gate_since_ns] = now_ns - 1'200'000'000;
  auto told = both.why();
  CHECK(told.how == explanation::state::flowing);
  CHECK(has(to_text(told), "blocked by hearer (0000000000000022) for 1.2 s"));
  CHECK(has(told.fix, "take() faster"));

  // What it holds is not let go of: that is no sign that it stands still.
  both.link_row().counts[bus::column::link_unsettled] = 8;
  both.link_row().counts[bus::column::link_moved_ns] = 1;
  both.heard().counts[bus::column::source_sequence] = 30;
  CHECK(both.why().how == explanation::state::flowing);
  both.hearer.looks_stopped = true;
  CHECK(both.why().how == explanation::state::broken);

  counts()[bus::column::gate_lapsed] = 1;
  counts()[bus::column::gate_expired] = 12;
  CHECK(
      has(to_text(both.why()), "its deadline of 1.5 s is over, and 12 samples went on without it"));
}

TEST_CASE("a pattern asks about every topic that it matches") {
  CHECK(pair().why("quakes/*").paths.size() == 1);
  CHECK(pair().why("**").how == explanation::state::flowing);
}
