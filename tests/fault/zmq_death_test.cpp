// Nodes that die, stop, or lose the network between them. Whoever lives learns it within the time
// that transports/zmq/README.md states, and loses nothing but the dead.
#include "tests/contract/world.hpp"
#include "tests/fault/processes.hpp"
#include "transports/zmq/wire.hpp"
#include "transports/zmq/zmq.hpp"

#include <atomic>

#include <sched.h>

#include <catch2/catch.hpp>

namespace {

using namespace std::chrono_literals;

using contract::must;
using contract::party;
using contract::pump_until;
using contract::send_all;
using fault::channel;
using fault::child;
using transports::zeromq::heartbeat_every_ms;
using transports::zeromq::heartbeat_lost_ms;

// Silence is noticed after a heartbeat that was not answered in time. Twice that, since the machine
// is shared.
constexpr std::chrono::milliseconds noticed_within{2 * (heartbeat_every_ms + heartbeat_lost_ms)};

struct zmq_case {
  static bus::transport_maker maker() { return transports::zmq(); }
  static void prepare(bus::transport_setup& setup, const std::string&) {
    setup.listen = {"tcp://127.0.0.1:*"};
  }
};
using world = contract::world<zmq_case>;

std::uint64_t port_of(const party& one) {
  const std::string where = one.where();
  return std::stoul(where.substr(where.rfind(':') + 1));
}

std::string at(const std::string& host, std::uint64_t port) {
  return "zmq:tcp://" + host + ":" + std::to_string(port);
}

bus::outbox& link(party& from, std::uint64_t peer, const std::string& where) {
  bus::outbox& way = from.connect({peer}, where);
  must(pump_until({&from}, [&] { return way.state() != bus::link_state::opening; }), "opening");
  must(way.state() == bus::link_state::open, "gone: " + way.reason().message());
  return way;
}

// A child that listens, says who and where it is, and lives on until it is killed.
void listen_for_ever(const world& stage, channel& parent) {
  const auto self = stage.make();
  parent.say(self->id.value);
  parent.say(port_of(*self));
  std::uint64_t told = 0;
  static_cast<void>(pump_until({self.get()},
                               [&] {
                                 if (told == 0 && self->heard.accepted > 0) parent.say(++told);
                                 return false;
                               },
                               {.timeout = 60s}));
}

// A child that sends `count` messages to (peer, port), says so, and lives on until it is killed.
void send_for_ever(const world& stage, channel& parent, std::uint64_t count) {
  const auto self = stage.make();
  const std::uint64_t peer = parent.hear();
  bus::outbox& way = link(*self, peer, at("127.0.0.1", parent.hear()));
  send_all({self.get()}, way, self->make_many(1, count, 3000));
  must(pump_until({self.get()}, [&] { return way.unsettled() == 0; }), "never settled");
  parent.say(count);
  static_cast<void>(pump_until({self.get()}, [] { return false; }, {.timeout = 60s}));
}

std::int64_t milliseconds_since(std::int64_t begun_ns) {
  return (bus::steady_ns() - begun_ns) / 1'000'000;
}

}  // namespace

TEST_CASE("a receiver that is killed is known to be gone, and every sample comes home") {
  world stage;
  child victim([&](channel& parent) { listen_for_ever(stage, parent); });
  party& sender = stage.add();
  const std::uint64_t peer = victim.pipe().hear();
  bus::outbox& way = link(sender, peer, at("127.0.0.1", victim.pipe().hear()));
  const auto mine = sender.make_many(1, 200, 50'000);
  send_all(stage.all(), way, std::vector<bus::sample>(mine));
  const std::int64_t begun_ns = bus::steady_ns();
  victim.kill();
  REQUIRE(stage.pump_until([&] { return way.state() == bus::link_state::gone; }));
  // The kernel says so at once: no heartbeat is needed.
  REQUIRE(milliseconds_since(begun_ns) < heartbeat_every_ms + heartbeat_lost_ms);
  REQUIRE(way.reason() == bus::errc::gone);
  REQUIRE(way.unsettled() == 0);
  REQUIRE(stage.comes_home([&] {
    return std::all_of(mine.begin(), mine.end(), [](const auto& one) { return one.unique(); });
  }));
}

TEST_CASE("a sender that is killed has left once, after all that it sent") {
  world stage;
  child victim([&](channel& parent) { send_for_ever(stage, parent, 100); });
  party& receiver = stage.add();
  receiver.heard.keep = false;
  victim.pipe().say(receiver.id.value);
  victim.pipe().say(port_of(receiver));
  REQUIRE(stage.pump_until([&] { return victim.pipe().has_news(); }, {.look_every = 10ms}));
  const std::int64_t begun_ns = bus::steady_ns();
  victim.kill();
  REQUIRE(stage.pump_until([&] { return !receiver.heard.departures.empty(); }));
  REQUIRE(milliseconds_since(begun_ns) < heartbeat_every_ms + heartbeat_lost_ms);
  REQUIRE(receiver.heard.accepted == 100);
  REQUIRE(receiver.heard.unproved == 0);
  REQUIRE(receiver.heard.departures.size() == 1);
  REQUIRE(receiver.heard.departures.front().reason == bus::errc::gone);
}

TEST_CASE("a stopped peer is taken for gone after its heartbeats were missed, in both directions") {
  world stage;
  child listener([&](channel& parent) { listen_for_ever(stage, parent); });
  child speaker([&](channel& parent) { send_for_ever(stage, parent, 10); });
  party& self = stage.add();
  self.heard.keep = false;
  speaker.pipe().say(self.id.value);
  speaker.pipe().say(port_of(self));
  REQUIRE(stage.pump_until([&] { return speaker.pipe().has_news(); }, {.look_every = 10ms}));
  const std::uint64_t peer = listener.pipe().hear();
  bus::outbox& way = link(self, peer, at("127.0.0.1", listener.pipe().hear()));
  const std::int64_t begun_ns = bus::steady_ns();
  ::kill(listener.id(), SIGSTOP);
  ::kill(speaker.id(), SIGSTOP);
  REQUIRE(stage.pump_until(
      [&] { return way.state() == bus::link_state::gone && self.heard.departures.size() == 1; }));
  REQUIRE(milliseconds_since(begun_ns) < noticed_within.count());
  REQUIRE(milliseconds_since(begun_ns) > heartbeat_lost_ms / 2);
}

TEST_CASE("a peer that is only busy is not taken for gone") {
  world stage;
  party& sender = stage.add();
  party& busy = stage.add();
  bus::outbox& way = stage.link(sender, busy);
  send_all({&sender}, way, sender.make_many(1, 10, 100));
  // Only the sender lives; the receiver's node is deep in some callback.
  REQUIRE_FALSE(pump_until({&sender}, [&] { return way.state() == bus::link_state::gone; },
                           {.timeout = 1500ms + std::chrono::milliseconds(heartbeat_lost_ms)}));
  REQUIRE(stage.pump_until([&] { return busy.heard.accepted == 10; }));
}

TEST_CASE("a sleeping receiver wakes to return what another thread let go of") {
  world stage;
  party& sender = stage.add({.link_depth = 64});
  party& receiver = stage.add({.link_depth = 64});
  bus::outbox& way = stage.link(sender, receiver);
  for (std::uint64_t round = 0; round < 20; ++round) {
    send_all(stage.all(), way, sender.make_many(round * 40 + 1, 40, 100));
    REQUIRE(stage.pump_until([&] { return receiver.heard.samples.size() == 40; }));
    std::jthread user([held = std::move(receiver.heard.samples)]() mutable {
      while (!held.empty()) {
        held.pop_back();
        std::this_thread::yield();
      }
    });
    receiver.heard.samples.clear();
    REQUIRE(stage.pump_until([&] { return way.unsettled() == 0; }));
  }
}

namespace {

void run(const std::string& command) {
  must(std::system(command.c_str()) == 0, "failed: " + command);
}

constexpr std::uint64_t may_not = 77;  // this user cannot make network namespaces

void far_end(channel& near) {
  must(::unshare(CLONE_NEWNET) == 0, "unshare");
  near.say(1);
  static_cast<void>(near.hear());  // the cable is there
  run("ip addr add 10.0.0.2/24 dev far && ip link set far up && ip link set lo up");
  bus::transport_setup setup;
  setup.listen = {"tcp://*:7400"};
  setup.insecure = true;
  party self(transports::zmq(), setup);
  self.heard.keep = false;
  must(self.where() == "zmq:tcp://10.0.0.2:7400,tcp://127.0.0.1:7400", self.where());
  std::uint64_t last = 0;
  std::uint64_t disordered = 0;
  self.heard.on_sample = [&](const bus::sample& one) {
    disordered += one.head().sequence > last ? 0 : 1;
    last = one.head().sequence;
  };
  near.say(self.id.value);
  must(pump_until({&self}, [&] { return self.heard.departures.size() == 1; }, {.timeout = 40s}),
       "the far end never missed the near one");
  near.say(self.heard.accepted);
  must(pump_until({&self}, [&] { return self.heard.departures.size() == 2; }, {.timeout = 40s}),
       "the near end never came back");
  must(disordered == 0 && self.heard.unproved == 0, "damaged, doubled or out of order");
  near.say(self.heard.accepted);
}

void near_end(child& far, bus::node_id peer) {
  bus::transport_setup setup;
  party self(transports::zmq(), setup);
  // A candidate of another network first, as a node with two interfaces has.
  const std::string where = "zmq:tcp://127.0.0.1:7400,tcp://10.0.0.2:7400";
  std::uint64_t sent = 100;
  {
    bus::outbox& way = link(self, peer.value, where);
    send_all({&self}, way, self.make_many(1, sent, 20'000));
    must(pump_until({&self}, [&] { return way.unsettled() == 0; }), "never settled");
    run("ip link set near down");
    const std::int64_t begun_ns = bus::steady_ns();
    // In the middle of messages, too.
    auto taken = way.send(self.make_many(sent + 1, 50, 20'000));
    must(taken.has_value(), "send");
    sent += *taken;
    must(pump_until({&self}, [&] { return way.state() == bus::link_state::gone; }), "not gone");
    must(milliseconds_since(begun_ns) < noticed_within.count(), "noticed late");
    must(way.unsettled() == 0, "something is still held");
  }
  const std::uint64_t before = far.pipe().hear();
  must(before >= 100 && before <= sent, "accepted " + std::to_string(before));
  run("ip link set near up");
  bus::outbox& again = link(self, peer.value, where);
  send_all({&self}, again, self.make_many(sent + 1, 100, 20'000));
  must(pump_until({&self}, [&] { return again.unsettled() == 0; }), "never settled again");
  self.ways.clear();
  must(far.pipe().hear() == before + 100, "lost or doubled after the cut");
}

// Two nodes in two network namespaces that are joined by one cable, which is pulled. Namespaces and
// cable vanish with the processes.
void pull_the_cable(channel& parent) {
  if (::unshare(CLONE_NEWNET) != 0) {
    parent.say(may_not);
    return;
  }
  child far(far_end);
  static_cast<void>(far.pipe().hear());
  run("ip link add near type veth peer name far netns " + std::to_string(far.id()));
  run("ip addr add 10.0.0.1/24 dev near && ip link set near up && ip link set lo up");
  far.pipe().say(1);
  const std::uint64_t peer = far.pipe().hear();
  near_end(far, {peer});
  must(far.wait() == 0, "the far end failed");
  parent.say(0);
}

}  // namespace

TEST_CASE("a pulled cable is noticed at both ends, and nothing is doubled when it is back") {
  child stage(pull_the_cable);
  REQUIRE(stage.wait() == 0);
  if (stage.pipe().hear() == may_not) WARN("not run: this user may not make network namespaces");
}
