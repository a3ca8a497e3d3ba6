// Processes that share memory and die: at any instant, holding anything, in any namespace. Those
// who live must lose nothing but the dead.
#include "tests/fault/processes.hpp"
#include "tests/fault/shm_stage.hpp"

#include <random>

#include <sched.h>

#include <catch2/catch.hpp>

namespace {

using namespace std::chrono_literals;

using contract::must;
using contract::party;
using contract::pump_until;
using fault::channel;
using fault::child;
using fault::hear_all;
using fault::hold;
using fault::link;

using world = fault::shm_world;

// A publisher that sends until it is killed, or `count` messages.
void speak(const world& stage, channel& parent, std::uint64_t peer, std::uint64_t count,
           std::uint64_t bytes) {
  const auto self = stage.make();
  bus::outbox& way = link(*self, peer);
  parent.say(self->id.value);
  for (std::uint64_t sequence = 1; sequence <= count; ++sequence) {
    contract::send_all({self.get()}, way, self->make_many(sequence, 1, bytes));
  }
  // In the middle of the next payload, which nobody may ever see.
  auto half = self->carrier->lend(bytes);
  contract::fill(half->bytes().first(bytes / 2), self->id.value, count + 1);
  ::raise(SIGKILL);
}

}  // namespace

TEST_CASE("case 6: a subscriber killed while it holds samples returns all, and harms no other") {
  world stage;
  party& publisher = stage.add();
  constexpr std::uint64_t rounds = 2000;
  child holder([&](channel& parent) { hold(stage, parent, 100); });
  child healthy([&](channel& parent) { hear_all(stage, parent, rounds); });
  bus::outbox& doomed = link(publisher, holder.pipe().hear());
  bus::outbox& well = link(publisher, healthy.pipe().hear());

  std::vector<bus::sample> held;
  std::uint64_t sequence = 0;
  for (int i = 0; i < 100; ++i) {
    held.push_back(publisher.make(++sequence, 1000));
    REQUIRE(*doomed.send(std::span(&held.back(), 1)) == 1);
    contract::send_all(stage.all(), well, {held.back()});
  }
  REQUIRE(holder.pipe().hear() == 100);
  holder.kill();
  REQUIRE(holder.wait() == -SIGKILL);
  REQUIRE(stage.pump_until([&] { return doomed.state() == bus::link_state::gone; }));
  REQUIRE(doomed.reason() == bus::errc::gone);
  REQUIRE(doomed.unsettled() == 0);
  while (sequence < rounds) {
    contract::send_all(stage.all(), well, publisher.make_many(++sequence, 1, 1000));
  }
  REQUIRE(healthy.pipe().hear() == rounds);
  REQUIRE(healthy.wait() == 0);
  REQUIRE(stage.comes_home([&] {
    static_cast<void>(well.state() == bus::link_state::open ? well.unsettled() : 0);
    return std::all_of(held.begin(), held.end(), [](const auto& one) { return one.unique(); });
  }));
}

TEST_CASE("case 2: of a publisher killed in the middle of a payload, all before is delivered") {
  world stage;
  party& subscriber = stage.add();
  constexpr std::uint64_t count = 200;  // fewer than the depth: none waits for room
  child publisher([&](channel& parent) { speak(stage, parent, subscriber.id.value, count, 5000); });
  REQUIRE(stage.pump_until([&] { return publisher.pipe().has_news(); }, {.look_every = 5ms}));
  const std::uint64_t id = publisher.pipe().hear();
  REQUIRE(publisher.wait() == -SIGKILL);
  // Dead already; all that it sent is still to be read.
  REQUIRE(stage.pump_until([&] { return !subscriber.heard.departures.empty(); }));
  REQUIRE(subscriber.heard.departures.size() == 1);
  REQUIRE(subscriber.heard.departures[0].peer.value == id);
  REQUIRE(subscriber.heard.departures[0].reason == bus::errc::gone);
  REQUIRE(subscriber.heard.departures[0].accepted_before == count);
  REQUIRE(subscriber.heard.accepted == count);
  REQUIRE(subscriber.heard.in_order());
  REQUIRE(subscriber.heard.unproved == 0);
}

TEST_CASE("a publisher killed at a random instant tears nothing and leaves once") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 25; ++round) {
    world stage;
    party& subscriber = stage.add();
    child publisher(
        [&](channel& parent) { speak(stage, parent, subscriber.id.value, UINT64_MAX, 3000); });
    subscriber.heard.keep = false;
    std::uint64_t last = 0;
    bool is_ordered = true;
    subscriber.heard.on_sample = [&](const bus::sample& one) {
      is_ordered = is_ordered && one.head().sequence == ++last;
    };
    const std::uint64_t enough = std::uniform_int_distribution<std::uint64_t>(1, 5000)(random);
    REQUIRE(stage.pump_until([&] { return subscriber.heard.accepted >= enough; }));
    publisher.kill();
    REQUIRE(stage.pump_until([&] { return !subscriber.heard.departures.empty(); }));
    REQUIRE(publisher.wait() == -SIGKILL);
    REQUIRE(subscriber.heard.departures.size() == 1);
    REQUIRE(is_ordered);
    REQUIRE(subscriber.heard.unproved == 0);
    REQUIRE_FALSE(subscriber.heard.spoke_after_leaving);
  }
}

TEST_CASE(
    "case 24: a publisher's death is noticed although a child that it forked keeps its sockets") {
  world stage;
  party& subscriber = stage.add();
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  bus::fd linger(ends[0]);
  bus::fd release(ends[1]);
  child publisher([&](channel& parent) {
    release.reset();
    const auto self = stage.make();
    bus::outbox& way = link(*self, subscriber.id.value);
    contract::send_all({self.get()}, way, self->make_many(1, 10, 100));
    if (::fork() == 0) {
      char end = 0;
      static_cast<void>(!::read(linger.get(), &end, 1));  // until the test closes `release`
      ::_exit(0);
    }
    parent.say(self->id.value);
    static_cast<void>(parent.hear());
  });
  REQUIRE(stage.pump_until([&] { return publisher.pipe().has_news(); }, {.look_every = 5ms}));
  publisher.kill();
  REQUIRE(publisher.wait() == -SIGKILL);
  REQUIRE(stage.pump_until([&] { return !subscriber.heard.departures.empty(); }));
  REQUIRE(subscriber.heard.accepted == 10);
}

TEST_CASE("a forked child that ends in the ordinary way ends none of its parent's links") {
  world stage;
  party& publisher = stage.add();
  party& subscriber = stage.add();
  bus::outbox& way = stage.link(publisher, subscriber);
  child heir([&](channel&) {
    publisher.die();
    subscriber.die();
  });
  REQUIRE(heir.wait() == 0);
  contract::send_all(stage.all(), way, publisher.make_many(1, 10, 100));
  REQUIRE(stage.pump_until([&] { return subscriber.heard.accepted == 10; }));
  REQUIRE(subscriber.heard.departures.empty());
  REQUIRE(stage.link(subscriber, publisher).state() == bus::link_state::open);
}

TEST_CASE(
    "case 34: nodes in pid, ipc and network namespaces of their own share but the directory") {
  world stage;
  constexpr std::uint64_t count = 3000;
  // Whoever unshares a pid namespace enters it only with the next child.
  const auto apart = [](const child::body& body) {
    return [body](channel& parent) {
      if (::unshare(CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWNET) != 0) {
        parent.say(0);
        return;
      }
      parent.say(1);
      child inner([&](channel& middle) {
        static_cast<void>(middle);
        body(parent);
      });
      must(inner.wait() == 0, "in the namespace");
    };
  };
  child listener(apart([&](channel& parent) { hear_all(stage, parent, count); }));
  if (listener.pipe().hear() == 0) {
    WARN("unshare is not permitted here: namespaces are not tested");
    return;
  }
  const std::uint64_t id = listener.pipe().hear();
  child speaker(apart([&](channel&) {
    const auto self = stage.make();
    bus::outbox& way = link(*self, id);
    must(way.describe().starts_with("pid 0 uid"), "saw a pid of another namespace");
    for (std::uint64_t sequence = 1; sequence <= count; ++sequence) {
      contract::send_all({self.get()}, way, self->make_many(sequence, 1, 100));
    }
    must(pump_until({self.get()}, [&] { return way.unsettled() == 0; }, {.look_every = 5ms}),
         "never settled");
  }));
  REQUIRE(speaker.pipe().hear() == 1);
  REQUIRE(listener.pipe().hear() == count);
  REQUIRE(speaker.wait() == 0);
  REQUIRE(listener.wait() == 0);
}
