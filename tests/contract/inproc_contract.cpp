// inproc behind the contract, and what only inproc promises.
#include "tests/contract/world.hpp"
#include "transports/inproc/inproc.hpp"

struct inproc_case {
  static bus::transport_maker maker() { return transports::inproc(); }
  static void prepare(bus::transport_setup&, const std::string&) {}
};
using contract_cases = std::tuple<inproc_case>;
#include "tests/contract/suite.inc"

#include <thread>

#include <sys/wait.h>
#include <unistd.h>

namespace {

std::unique_ptr<party> party_of(const std::shared_ptr<transports::exchange>& through) {
  bus::transport_setup setup;
  setup.link_depth = 64;
  return std::make_unique<party>(transports::inproc(through), setup);
}

// Runs `claim` in a forked child; true if it said so and nothing worse happened. Nothing of Catch
// runs there.
template <class Claim>
bool child_says(Claim claim) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(claim() ? 0 : 1);
  int status = 0;
  return child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

}  // namespace

TEST_CASE("the very memory that was written is read, and nothing is ever copied", "[inproc]") {
  world<inproc_case> stage;
  party& sender = stage.add();
  party& receiver = stage.add();
  bus::outbox& way = stage.link(sender, receiver);
  const auto mine = sender.make_many(1, 10, 1 << 20);
  send_all(stage.all(), way, std::vector<bus::sample>(mine));
  REQUIRE(stage.pump_until([&] { return receiver.heard.accepted == 10; }));
  for (std::size_t i = 0; i < 10; ++i) {
    REQUIRE(&receiver.heard.samples[i].memory() == &mine[i].memory());
  }
  REQUIRE(way.figures().copied == 0);
}

TEST_CASE("a forwarded payload stays where it is under its new frame", "[inproc]") {
  world<inproc_case> stage;
  party& origin = stage.add();
  party& between = stage.add();
  party& target = stage.add();
  bus::outbox& in = stage.link(origin, between);
  bus::outbox& out = stage.link(between, target);
  const bus::sample mine = origin.make(1, 100);
  send_all(stage.all(), in, {mine});
  REQUIRE(stage.pump_until([&] { return between.heard.accepted == 1; }));
  send_all(stage.all(), out, std::vector<bus::sample>(between.heard.samples));
  REQUIRE(stage.pump_until([&] { return target.heard.accepted == 1; }));
  REQUIRE(target.heard.samples.front().payload().data() == mine.payload().data());
  REQUIRE(mine.head().node == origin.id.value);
  forget(between);
  REQUIRE_FALSE(mine.unique());
  forget(target);
  REQUIRE(mine.unique());
}

TEST_CASE("a node can be linked with itself", "[inproc]") {
  world<inproc_case> stage;
  party& one = stage.add({.link_depth = 64});
  bus::outbox& way = stage.link(one, one);
  for (std::uint64_t sequence = 1; sequence <= 500; sequence += 5) {
    send_all(stage.all(), way, one.make_many(sequence, 5, 30));
  }
  REQUIRE(stage.pump_until([&] { return one.heard.accepted == 500; }));
  REQUIRE(one.heard.in_order());
  one.ways.clear();
  REQUIRE(stage.pump_until([&] { return one.heard.departures.size() == 1; }));
}

TEST_CASE("the nodes of two exchanges refuse each other", "[inproc]") {
  const auto here = party_of(transports::make_exchange());
  const auto there = party_of(transports::make_exchange());
  REQUIRE(here->carrier->connect(there->id, there->where()).error() == bus::errc::unsupported);
  REQUIRE(here->carrier->connect(here->id, there->where()).error() == bus::errc::unsupported);
}

TEST_CASE("errors say what is wrong with an address", "[inproc]") {
  const auto through = transports::make_exchange();
  const auto one = party_of(through);
  auto other = party_of(through);
  const std::string where = other->where();
  const auto error = [&](const std::string& address) {
    return one->carrier->connect(other->id, address).error();
  };
  REQUIRE(error("shm:" + bus::to_hex(other->id.value)) == bus::errc::unsupported);
  REQUIRE(error("inproc:") == bus::errc::bad_address);
  REQUIRE(error(where + "0") == bus::errc::bad_address);
  REQUIRE(error("inproc:0000000000000000" + where.substr(where.find('/'))) ==
          bus::errc::bad_address);
  REQUIRE(error(one->where()) == bus::errc::bad_address);
  const bus::node_id id = other->id;
  other.reset();
  REQUIRE(one->carrier->connect(id, where).error() == bus::errc::not_found);
}

TEST_CASE("a node enters an exchange once, and again after it left", "[inproc]") {
  const auto maker = transports::inproc(transports::make_exchange());
  auto doorbell = bus::bell::make();
  REQUIRE(doorbell);
  bus::transport_setup setup;
  setup.id = bus::node_id::random();
  setup.doorbell = doorbell->get();
  {
    auto first = maker.make(setup);
    REQUIRE(first);
    REQUIRE(maker.make(setup).error() == bus::errc::exists);
    // The one that failed took nobody's place.
    REQUIRE((*first)->connect(setup.id, (*first)->where()));
  }
  REQUIRE(maker.make(setup));
  setup.link_depth = 100;
  REQUIRE_FALSE(maker.make(setup));
}

TEST_CASE("who had no memory to lend does not sleep past what comes home", "[inproc]") {
  auto doorbell = bus::bell::make();
  REQUIRE(doorbell);
  bus::transport_setup setup;
  setup.id = bus::node_id::random();
  setup.doorbell = doorbell->get();
  setup.memory_bytes_max = 4096;
  const auto made = transports::inproc(transports::make_exchange()).make(setup);
  REQUIRE(made);
  bus::transport& own = **made;
  const auto until = [] { return bus::deadline::after(std::chrono::seconds(20)); };
  {
    auto all = own.lend(4096);
    REQUIRE(all);
    REQUIRE(own.lend(1).error() == bus::errc::no_memory);
    (*doorbell)->arm_semaphore();
    REQUIRE(own.arrivals().arm());
    const std::jthread holder([let_go = std::move(*all)] {});
    REQUIRE((*doorbell)->wait(until()));
    own.arrivals().disarm();
  }
  // It came home before the sleep: there is none, but once.
  {
    const auto all = own.lend(4096);
    REQUIRE(all);
    REQUIRE(own.lend(1).error() == bus::errc::no_memory);
  }
  REQUIRE_FALSE(own.arrivals().arm());
  REQUIRE(own.arrivals().arm());
  own.arrivals().disarm();
}

TEST_CASE("a forked child does not take itself for its parent", "[inproc]") {
  const auto through = transports::make_exchange();
  auto one = party_of(through);
  auto other = party_of(through);
  bus::outbox& way = one->connect(other->id, other->where());
  send_all({one.get()}, way, one->make_many(1, 3, 10));
  const std::string parent_address = other->where();
  const std::vector<bus::sample> batch = one->make_many(4, 1, 10);
  REQUIRE(child_says([&] {
    // What was inherited reaches nobody and hears nobody.
    if (way.state() != link_state::gone || !way.reason() || way.send(batch)) return false;
    if (!other->where().empty() || other->inbox().poll(10, other->heard) != 0) return false;
    if (one->carrier->connect(other->id, parent_address)) return false;
    // A new node of the child has an address of its own, refuses the parent's, and works.
    const auto mine = party_of(through);
    const auto friendly = party_of(through);
    if (mine->carrier->connect(other->id, parent_address).error() != bus::errc::unsupported) {
      return false;
    }
    bus::outbox& within = mine->connect(friendly->id, friendly->where());
    send_all({mine.get()}, within, mine->make_many(1, 2, 10));
    if (!contract::pump_until({friendly.get()}, [&] { return friendly->heard.accepted == 2; })) {
      return false;
    }
    one.reset();
    other.reset();
    return true;
  }));
  // The parent never noticed.
  send_all({one.get()}, way, std::vector<bus::sample>(batch));
  REQUIRE(contract::pump_until({other.get()}, [&] { return other->heard.accepted == 4; }));
  REQUIRE(other->heard.in_order());
}

TEST_CASE("a child forked while another thread held every lock works and can end", "[inproc]") {
  const auto through = transports::make_exchange();
  std::atomic<bool> over{false};
  std::atomic<std::uint64_t> turns{0};
  std::thread busy([&] {
    // In and out of the hall, ringing and being rung, so that a fork falls into all of it.
    const auto to = party_of(through);
    while (!over) {
      const auto from = party_of(through);
      bus::outbox& way = from->connect(to->id, to->where());
      static_cast<void>(to->arm());
      send_all({from.get()}, way, from->make_many(1, 1, 10));
      to->disarm();
      to->step();
      forget(*to);
      to->heard.departures.clear();
      ++turns;
    }
  });
  bool all_well = true;
  for (std::uint64_t i = 0; i < 50 && all_well; ++i) {
    const std::uint64_t before = turns;
    all_well = child_says([&] {
      ::alarm(20);  // a deadlock becomes a death, and that a failure
      const auto one = party_of(through);
      const auto other = party_of(through);
      bus::outbox& way = one->connect(other->id, other->where());
      send_all({one.get()}, way, one->make_many(1, 1, 10));
      return contract::pump_until({other.get()}, [&] { return other->heard.accepted == 1; });
    });
    while (turns == before) std::this_thread::yield();
  }
  over = true;
  busy.join();
  REQUIRE(all_well);
}

TEST_CASE("nodes may end at any moment while others send to them", "[inproc][threads]") {
  const auto through = transports::make_exchange();
  const std::uint64_t lives = contract::times(2000);
  std::mutex guard;
  std::pair<bus::node_id, std::string> known;  // guarded by guard
  std::atomic<bool> over{false};
  std::atomic<std::uint64_t> damaged{0};
  const auto short_lived = [&] {
    for (std::uint64_t life = 0; life < lives; ++life) {
      const auto self = party_of(through);
      self->heard.keep = life % 2 == 0;
      {
        const std::lock_guard lock(guard);
        known = {self->id, self->where()};
      }
      // Heard one, or slept until one came; then it dies in the middle of what follows.
      contract::must(contract::pump_until({self.get()}, [&] { return self->heard.accepted > 0; }),
                     "nobody spoke");
      damaged += self->heard.unproved;
    }
    over = true;
  };
  const auto long_lived = [&] {
    const auto self = party_of(through);
    std::vector<bus::sample> sent;
    while (!over) {
      bus::node_id id;
      std::string where;
      {
        const std::lock_guard lock(guard);
        std::tie(id, where) = known;
      }
      auto way = self->carrier->connect(id, where);
      if (!way) {
        std::this_thread::yield();
        continue;
      }
      for (std::uint64_t sequence = 1; (*way)->state() != link_state::gone && !over; ++sequence) {
        const auto one = self->make(sequence, 200);
        sent.assign(1, one);
        static_cast<void>((*way)->send(sent));
        static_cast<void>((*way)->arm());
      }
      if ((*way)->state() == link_state::gone) {
        contract::must((*way)->unsettled() == 0, "something was kept for the dead");
      }
    }
    sent.clear();
  };
  contract::together({short_lived, long_lived});
  REQUIRE(damaged == 0);
}
