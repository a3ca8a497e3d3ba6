// Cases 1 to 9, 11 and 13 of the failures that shared memory must survive: a publisher or a
// subscriber killed at exactly the step (bus/base/step.hpp) that the case names. Each case ends
// with the same questions: is nothing torn, foreign, stale or doubled (I2); is every message
// delivered or counted (I3); does nobody wait for the dead (I1); is all memory and every credit
// home (I4); was the fault named (I8).
//
// A slot has no owner word in shared memory, and no state: who lends it, keeps its books in private
// memory, and a reader knows offsets only. Where that makes a case impossible as it was written,
// what it claims is tested all the same, and the comment says why it holds.
#include "bus/base/step.hpp"
#include "bus/route/ledger.hpp"
#include "tests/fault/processes.hpp"
#include "tests/fault/shm_stage.hpp"
#include "tests/model/probe.hpp"
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"

#include <fstream>

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

// Twice what it takes to notice a death here: the kernel tells at once, and a machine may be busy.
constexpr auto soon = 10s;

// Memory of this name that this process maps.
std::size_t mapped(const std::string& name) {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) {
    count += line.find("/memfd:" + name) != std::string::npos ? 1 : 0;
  }
  return count;
}

// How a message travels: by an entry of the lane, or with its frame in a cell, where a small
// payload is, too.
enum class by : std::uint8_t { entry, reference, value };

void send_one(party& from, bus::outbox& way, std::uint64_t sequence, by how) {
  bus::sample one = from.make(sequence, how == by::value ? 40 : 3000);
  if (how == by::entry) return contract::send_all({&from}, way, {one});
  must(pump_until({&from}, [&] { return way.give(std::move(one)).value_or(0) == 1; }), "no room");
}

// Lets all live until each of the children has said something: their words ring nobody.
bool hears_of(const world& stage, std::initializer_list<child*> all) {
  const auto have_spoken = [&] {
    return std::all_of(all.begin(), all.end(), [](child* one) { return one->pipe().has_news(); });
  };
  return stage.pump_until(have_spoken, {.look_every = 1ms});
}

// A publisher that sends to `peer` until it dies at `where`; it must.
void publish_until(const world& stage, channel& parent, std::uint64_t peer,
                   const std::string& where, by how) {
  const auto self = stage.make({.memory_bytes_max = 4 << 20, .link_depth = 16});
  bus::outbox& way = link(*self, peer);
  parent.say(self->id.value);
  must(bus::crash_at(where), "no such step: " + where);
  for (std::uint64_t sequence = 1; sequence <= 1000; ++sequence) {
    send_one(*self, way, sequence, how);
  }
  must(false, "lived");
}

// What a subscriber of ours has of a publisher that died: `count` messages, whole and in order, one
// goodbye, and none of its memory once the samples are dropped.
void check_dead_publisher(const world& stage, party& subscriber, child& dead, std::uint64_t id,
                          std::uint64_t count) {
  const auto gone = [&] { return !subscriber.heard.departures.empty(); };
  REQUIRE(stage.pump_until(gone, {.timeout = soon}));
  REQUIRE(dead.wait() == -SIGKILL);
  REQUIRE(subscriber.heard.departures.size() == 1);
  CHECK(subscriber.heard.departures[0].peer.value == id);
  CHECK(subscriber.heard.departures[0].reason == bus::errc::gone);
  CHECK(subscriber.heard.departures[0].accepted_before == count);
  CHECK(subscriber.heard.accepted == count);
  CHECK(subscriber.heard.in_order());
  CHECK(subscriber.heard.unproved == 0);
  CHECK_FALSE(subscriber.heard.spoke_after_leaving);
  subscriber.heard.samples.clear();
  CHECK(mapped("omnibus-arena") == 0);
  CHECK(mapped("omnibus-lane") == 0);
}

// A publisher that dies at `where` while it sends to us: we have heard `count`.
void dies_publishing(const std::string& where, std::uint64_t count, by how = by::entry) {
  INFO(where);
  world stage;
  party& subscriber = stage.add();
  child dead(
      [&](channel& parent) { publish_until(stage, parent, subscriber.id.value, where, how); });
  REQUIRE(hears_of(stage, {&dead}));
  check_dead_publisher(stage, subscriber, dead, dead.pipe().hear(), count);
}

bus::node make_node(const std::string& directory) {
  return bus::node({.name = "n",
                    .transports = {transports::shm()},
                    .directory = directory,
                    .waiting = bus::wait_policy::sleep,
                    .memory_bytes_max = 8 << 20});
}

// A node that publishes one message after another, each when its listeners are asleep, until it
// dies at `where`; and blocking takers. None of them is asked anything: their ledgers say it all.
struct aftermath {
  std::uint64_t published = 0;
  std::uint64_t delivered = 0;  // by all listeners together
  std::uint64_t cut = 0;        // what they know they lost with the dead
  bool is_settled = false;      // each was owed what was published, and knows what became of it
};

aftermath publish_to_sleepers(const std::string& where, unsigned listeners) {
  const tests::scratch_directory scratch;
  std::vector<std::unique_ptr<child>> all;
  std::vector<bus::node_id> ids;
  for (unsigned i = 0; i < listeners; ++i) {
    all.push_back(std::make_unique<child>([&](channel& parent) {
      bus::node node = make_node(scratch.path());
      auto heard = node.subscribe<crew::numbered>("numbers");
      parent.say(node.id().value);
      // Each sleep may be longer than the whole test: what is lost is not found by looking again.
      for (std::uint64_t last = 0;;) {
        if (const auto got = heard.take(60s)) last = crew::check(**got, 1, last);
      }
    }));
    ids.push_back({all.back()->pipe().hear(crew::patience)});
  }
  child dead([&](channel& parent) {
    bus::node node = make_node(scratch.path());
    parent.say(node.id().value);
    auto numbers = node.advertise<crew::numbered>("numbers");
    must(numbers.wait_matched(listeners, crew::patience), "nobody listens");
    must(bus::crash_at(where), "no such step: " + where);
    for (int i = 0; i < 200; ++i) {
      static_cast<void>(numbers.publish(crew::make(numbers.sequence() + 1, 1)));
      node.run_for(20ms);
    }
  });
  const bus::node_id id{dead.pipe().hear(crew::patience)};
  must(dead.wait() == -SIGKILL, where + ": lived");
  aftermath left{.published = crew::published_by(scratch.path(), id)};
  left.is_settled = crew::eventually(
      [&] {
        left.delivered = left.cut = 0;
        bool all_know = true;
        for (const bus::node_id one : ids) {
          const auto row = crew::row_of(scratch.path(), one, bus::row_kind::subscription);
          if (!row) return false;
          const auto lost =
              row->counts[bus::column::lost + static_cast<std::size_t>(bus::loss::cut)];
          const auto had = row->counts[bus::column::delivered];
          left.delivered += had;
          left.cut += lost;
          all_know = all_know && had + lost == left.published;
        }
        return all_know;
      },
      soon);
  return left;
}

// The same, when it is known to the message what is left.
void check_left(const std::string& where, unsigned listeners, const aftermath& known) {
  INFO(where);
  const aftermath left = publish_to_sleepers(where, listeners);
  CHECK(left.is_settled);
  CHECK(left.published == known.published);
  CHECK(left.delivered == known.delivered);
  CHECK(left.cut == known.cut);
}

}  // namespace

TEST_CASE("case 1: a publisher killed when it has taken a slot takes its whole memory with it") {
  // There is no owner to be written late: the slot is in the publisher's private books, and the
  // memory itself is its own. Capacity is rebuilt by the kernel, when the last reader lets go.
  dies_publishing("arena.take:6", 5);
}

TEST_CASE("case 2: a publisher killed in the middle of a payload has not published it") {
  world stage;
  party& subscriber = stage.add();
  child dead([&](channel& parent) {
    const auto self = stage.make();
    bus::outbox& way = link(*self, subscriber.id.value);
    parent.say(self->id.value);
    contract::send_all({self.get()}, way, self->make_many(1, 5, 3000));
    auto half = self->carrier->lend(3000);
    contract::fill(half->bytes().first(1500), self->id.value, 6);
    ::raise(SIGKILL);
  });
  REQUIRE(hears_of(stage, {&dead}));
  check_dead_publisher(stage, subscriber, dead, dead.pipe().hear(), 5);
  // Whole, but without its frame.
  dies_publishing("loan.commit.frame:6", 5);
}

TEST_CASE("case 3: a message that was not made valid before its publisher died is counted as cut") {
  // READY is the mark of an entry or a cell in one subscriber's lane; before it, there is none.
  dies_publishing("lane.push.offset:6", 5);
  dies_publishing("lane.push.mark:6", 5);
  for (const by how : {by::reference, by::value}) {
    dies_publishing("lane.cell.fill:6", 5, how);
    dies_publishing("lane.cell.mark:6", 5, how);
  }
  // The publisher's ledger had said that it would be published: so the loss has a name.
  check_left("node.publish.offer:2", 2, {.published = 2, .delivered = 2, .cut = 2});
  // What is written where its only reader reads it is nothing before the ledger says so.
  check_left("node.publish.published:2", 1, {.published = 1, .delivered = 1, .cut = 0});
  check_left("lane.cell.mark:2", 1, {.published = 2, .delivered = 1, .cut = 1});
}

TEST_CASE("case 4: a publisher killed before it wakes the sleeper has its message delivered") {
  // The end of its socket wakes whoever it did not; the lane is read to its end first.
  for (const char* const where : {"bell.ring.look:3", "bell.wake.look:1", "bell.wake.post:2"}) {
    INFO(where);
    const aftermath left = publish_to_sleepers(where, 1);
    CHECK(left.is_settled);
    CHECK(left.published > 0);
    CHECK(left.delivered == left.published);
    CHECK(left.cut == 0);
  }
}

TEST_CASE(
    "case 5: of a publisher killed between two subscribers, each has its message, or a count") {
  // Each link is offered a message and rung before the next: who comes later is not owed a wakeup
  // for what it was not sent, but the count of it.
  check_left("lane.cell.fill:1", 2, {.published = 1, .delivered = 1, .cut = 1});
  // The first was woken and not marked; the second was sent its message and not woken.
  check_left("bell.ring.look:2", 2, {.published = 1, .delivered = 2, .cut = 0});
}

namespace {

// A subscriber that keeps up to `keeps` samples, lets go of the oldest, and dies at `where`.
void subscribe_until(const world& stage, channel& parent, const std::string& where,
                     std::size_t keeps) {
  const auto self = stage.make();
  self->heard.on_sample = [&](const bus::sample&) {
    while (self->heard.samples.size() > keeps) {
      self->heard.samples.erase(self->heard.samples.begin());
    }
  };
  parent.say(self->id.value);
  must(bus::crash_at(where), "no such step: " + where);
  static_cast<void>(pump_until({self.get()}, [] { return false; }));
  must(false, "lived");
}

// A publisher between one that dies at `where` and a healthy one. Nobody waits for the dead, and
// all that it held comes home.
void dies_subscribing(const std::string& where, std::size_t keeps, by how = by::entry) {
  INFO(where);
  constexpr std::uint64_t count = 300;  // many times what a lane holds
  constexpr contract::limits small{.memory_bytes_max = 2 << 20, .link_depth = 16};
  world stage;
  party& publisher = stage.add(small);
  child doomed([&](channel& parent) { subscribe_until(stage, parent, where, keeps); });
  child healthy([&](channel& parent) { hear_all(stage, parent, count); });
  bus::outbox& to_doomed = link(publisher, doomed.pipe().hear());
  bus::outbox& to_healthy = link(publisher, healthy.pipe().hear());
  std::vector<bus::sample> kept;
  std::uint64_t refused = 0;
  for (std::uint64_t sequence = 1; sequence <= count; ++sequence) {
    const bus::sample one = publisher.make(sequence, how == by::value ? 40 : 3000);
    if (kept.size() < 16) kept.push_back(one);
    // Waits for room there, until it is gone: its death is the news that ends the wait.
    bool is_gone = to_doomed.state() == bus::link_state::gone;
    const auto offered = [&] {
      const auto taken =
          how == by::entry ? to_doomed.send(std::span(&one, 1)) : to_doomed.give(bus::sample(one));
      is_gone = !taken;
      refused += is_gone ? 1 : 0;
      return is_gone || *taken == 1;
    };
    REQUIRE((is_gone || stage.pump_until(offered, {.timeout = soon})));
    contract::send_all(stage.all(), to_healthy, {one});
  }
  REQUIRE(stage.pump_until([&] { return to_doomed.state() == bus::link_state::gone; },
                           {.timeout = soon}));
  REQUIRE(doomed.wait() == -SIGKILL);
  CHECK(to_doomed.reason() == bus::errc::gone);
  CHECK(to_doomed.unsettled() == 0);
  CHECK(healthy.pipe().hear() == count);
  CHECK(healthy.wait() == 0);
  CHECK(stage.comes_home([&] {
    static_cast<void>(to_healthy.unsettled());
    return std::all_of(kept.begin(), kept.end(), [](const auto& one) { return one.unique(); });
  }));
}

}  // namespace

TEST_CASE(
    "case 6: a subscriber killed while it holds slots gives back those, and holds up nobody") {
  dies_subscribing("lane.take.accept:12", 16);  // with eleven of them
  dies_subscribing("lane.release.cell:1", 8);   // in the act of letting go of one
  dies_subscribing("lane.take.reference:12", 16, by::reference);
  dies_subscribing("lane.take.value:12", 8, by::value);
}

TEST_CASE("case 7: a subscriber killed between release and wakeup leaves no sleeper behind") {
  // No value counts the slots that are free: the sender compares parities. What the dead one did
  // not post, its death does.
  dies_subscribing("lane.release.bit:3", 2);
  dies_subscribing("lane.release.look:3", 2);
  dies_subscribing("lane.release.look:40", 0);
  dies_subscribing("lane.report.cells:3", 2, by::reference);
  dies_subscribing("lane.report.cells:3", 2, by::value);
}

TEST_CASE("case 8: who takes back after the dead may die at each step of it") {
  // The publisher is the one who takes back, from a subscriber that was killed with sixteen
  // samples. Nothing of its books is shared, so nobody has to finish them, or could free anything
  // twice: the subscriber that lives has all that was sent, and the publisher's next life starts
  // afresh.
  for (const int passing : {1, 2, 9, 16}) {
    INFO("lane.reclaim.credit:" << passing);
    world stage;
    party& healthy = stage.add();
    child holder([&](channel& parent) { hold(stage, parent, 16); });
    const std::uint64_t peer = holder.pipe().hear();
    child dead([&](channel& parent) {
      const auto self = stage.make({.memory_bytes_max = 2 << 20, .link_depth = 16});
      bus::outbox& to_holder = link(*self, peer);
      bus::outbox& to_healthy = link(*self, healthy.id.value);
      for (std::uint64_t sequence = 1; sequence <= 16; ++sequence) {
        const bus::sample one = self->make(sequence, 3000);
        contract::send_all({self.get()}, to_holder, {one});
        contract::send_all({self.get()}, to_healthy, {one});
      }
      must(bus::crash_at("lane.reclaim.credit:" + std::to_string(passing)), "no such step");
      parent.say(self->id.value);
      static_cast<void>(pump_until({self.get()}, [] { return false; }));
    });
    REQUIRE(hears_of(stage, {&holder, &dead}));
    holder.kill();
    REQUIRE(holder.wait() == -SIGKILL);
    check_dead_publisher(stage, healthy, dead, dead.pipe().hear(), 16);
    party& next = stage.add();
    contract::send_all(stage.all(), stage.link(next, healthy), next.make_many(1, 16, 3000));
    CHECK(stage.pump_until([&] { return healthy.heard.accepted == 32; }));
    CHECK(healthy.heard.in_order());
  }
}

TEST_CASE("case 9: what a stopped publisher commits after its link has ended is refused") {
  // A slot is fenced from nobody: it is its publisher's, who alone uses it again. What ends is the
  // link, and a late commit finds it gone; so nobody ever gets it for something of its successor's.
  world stage;
  child first([&](channel& parent) { hold(stage, parent, 5); });
  const std::uint64_t peer = first.pipe().hear();
  party& second = stage.add();
  child stopped([&](channel& parent) {
    const auto self = stage.make({.memory_bytes_max = 1 << 20, .link_depth = 16});
    bus::outbox& way = link(*self, peer);
    contract::send_all({self.get()}, way, self->make_many(1, 5, 3000));
    auto lent = self->carrier->lend(3000);
    contract::fill(lent->bytes().first(1500), self->id.value, 6);
    ::raise(SIGSTOP);  // in the middle; until all has changed around it
    contract::fill(lent->bytes().first(3000), self->id.value, 6);
    const bus::sample late =
        std::move(*lent).commit(contract::frame_for(self->id.value, self->id.value, 6, 3000));
    must(pump_until({self.get()}, [&] { return way.state() == bus::link_state::gone; }),
         "the old link goes on");
    const auto taken = way.send(std::span(&late, 1));
    must(!taken && taken.error() == bus::errc::gone, "a late commit was taken");
    must(way.unsettled() == 0, "the dead one holds something");
    bus::outbox& fresh = link(*self, second.id.value);
    contract::send_all({self.get()}, fresh, self->make_many(1, 5, 3000));
    parent.say(0);
    static_cast<void>(parent.hear());
  });
  REQUIRE(first.pipe().hear() == 5);
  int status = 0;
  REQUIRE(::waitpid(stopped.id(), &status, WUNTRACED) == stopped.id());
  REQUIRE(WIFSTOPPED(status));
  first.kill();
  REQUIRE(first.wait() == -SIGKILL);
  ::kill(stopped.id(), SIGCONT);
  REQUIRE(stage.pump_until([&] { return second.heard.accepted == 5; }));
  CHECK(second.heard.in_order());
  CHECK(second.heard.unproved == 0);
  REQUIRE(hears_of(stage, {&stopped}));
  static_cast<void>(stopped.pipe().hear());
  stopped.pipe().say(0);
  CHECK(stopped.wait() == 0);
}

TEST_CASE("case 11: laps and credits that wrap confuse nobody") {
  // In one process, over real memory: 2^32 laps cannot be waited for, so both ends start two laps
  // before.
  using transports::shared::arena;
  using transports::shared::lane_in;
  using transports::shared::lane_out;
  using transports::shared::probe;
  const by how = GENERATE(by::entry, by::reference, by::value);
  constexpr std::uint32_t depth = 8;
  auto slots = fault::got(arena::make(1 << 20));
  auto bell = fault::got(bus::bell::make());
  auto out = fault::got(lane_out::make(depth));
  auto in = fault::got(lane_in::make({.sender = {7},
                                      .depth = depth,
                                      .arena_bytes = slots->bytes_max(),
                                      .arena = fault::got(slots->hand_out()),
                                      .lane = fault::got(out.hand_out()),
                                      .bell = fault::got(bell->keys())}));
  REQUIRE(out.open(fault::got(in->hand_out())));
  probe::start_late(out, *in);
  contract::ear heard;
  for (std::uint64_t sequence = 1; sequence <= std::uint64_t{6} * depth; ++sequence) {
    if (!out.has_credit() || !out.has_cell()) REQUIRE(out.scan() > 0);
    const std::uint64_t bytes = how == by::value ? 40 : 100;
    const unsigned size_class = arena::class_for(bytes);
    bus::block* const slot = slots->reuse(size_class);
    bus::loan lent(slot ? *slot : *fault::got(slots->carve(size_class)));
    contract::fill(lent.bytes().first(bytes), 7, sequence);
    bus::sample one = std::move(lent).commit(contract::frame_for(7, 7, sequence, bytes));
    const std::uint64_t offset = slots->offset_of(one.memory());
    switch (how) {
      case by::entry:
        out.push(std::move(one), {}, offset);
        break;
      case by::reference:
        out.push_by_reference(std::move(one), offset);
        break;
      case by::value:
        out.push_by_value(one);
        break;
    }
    // In batches of another length than the lane's, with one kept over each.
    if (sequence % 5 != 0) continue;
    REQUIRE(in->poll(depth, heard) == 5);
    REQUIRE(in->empty());
    heard.samples.erase(heard.samples.begin(), heard.samples.end() - 1);
  }
  static_cast<void>(in->poll(depth, heard));
  CHECK(heard.accepted == std::uint64_t{6} * depth);
  CHECK(heard.unproved == 0);
  heard.samples.clear();
  static_cast<void>(out.scan());
  CHECK(out.in_flight() == 0);
}

TEST_CASE("case 11: sequences near their maximum are counted as any other") {
  bus::source_account account(UINT64_MAX - 3);
  CHECK(account.arrived(UINT64_MAX - 3, 1).stale == 0);
  const auto after_one = account.arrived(UINT64_MAX - 1, 1);
  CHECK(after_one.stale == 0);
  CHECK(after_one.missing == 1);
  CHECK(account.arrived(UINT64_MAX - 1, 1).stale == 1);
  CHECK(account.arrived(UINT64_MAX - 2, 1).stale == 1);
  CHECK(account.published_up_to(UINT64_MAX - 1) == 0);
  CHECK(account.last() == UINT64_MAX - 1);
}

TEST_CASE("case 13: nobody maps memory whose creator died before it was whole") {
  // What a creator hands over, it hands over last, by a descriptor: before note.send, nobody has
  // even a name for it. Each step of a sender's first link, and of a receiver's answer.
  constexpr std::array sender{"memory.create:1",   "memory.reserve:1", "memory.seal:1",
                              "lane.make.head:1",  "memory.create:2",  "memory.hand_out:1",
                              "memory.hand_out:2", "socket.bind:1",    "socket.listen:1",
                              "socket.connect:1",  "note.send:1",      "note.receive:1",
                              "link.open:1"};
  constexpr std::array receiver{"socket.bind:1",       "socket.listen:1",   "note.receive:1",
                                "link.adopt:1",        "memory.create:1",   "memory.reserve:1",
                                "answers.make.head:1", "memory.hand_out:1", "note.send:1",
                                "link.reading:1"};
  world stage;
  party& healthy = stage.add();
  const auto dies = [&](const child::body& lives) {
    child dead(lives);
    REQUIRE(stage.pump_until(
        [&] {
          siginfo_t ended{};
          return ::waitid(P_PID, static_cast<id_t>(dead.id()), &ended,
                          WEXITED | WNOHANG | WNOWAIT) == 0 &&
                 ended.si_pid == dead.id();
        },
        {.timeout = soon, .look_every = 1ms}));
    CHECK(dead.wait() == -SIGKILL);
  };
  for (const char* const where : sender) {
    INFO("sender: " << where);
    dies([&](channel&) {
      must(bus::crash_at(where), "no such step");
      const auto self = stage.make();
      contract::send_all({self.get()}, link(*self, healthy.id.value), self->make_many(1, 1, 100));
      must(false, "lived");
    });
    CHECK(healthy.heard.accepted == 0);
  }
  for (const char* const where : receiver) {
    INFO("receiver: " << where);
    std::uint64_t id = 0;
    child dead([&](channel& parent) {
      must(bus::crash_at(where), "no such step");
      const auto self = stage.make();
      parent.say(self->id.value);
      static_cast<void>(pump_until({self.get()}, [] { return false; }, {.timeout = soon}));
    });
    try {
      id = dead.pipe().hear();
      auto way = healthy.carrier->connect({id}, "shm:" + bus::to_hex(id));
      if (way) {
        bus::outbox& box = **way;
        CHECK(stage.pump_until([&] { return box.state() == bus::link_state::gone; },
                               {.timeout = soon, .look_every = 1ms}));
        CHECK(box.unsettled() == 0);
      }
    } catch (const std::exception&) {
      // It died before it had a name.
    }
    CHECK(dead.wait() == -SIGKILL);
  }
  // The next one, with all that the dead left in the directory, is as well as the first.
  party& next = stage.add();
  contract::send_all(stage.all(), stage.link(next, healthy), next.make_many(1, 10, 100));
  CHECK(stage.pump_until([&] { return healthy.heard.accepted == 10; }));
  CHECK(healthy.heard.in_order());
}
