// Peers that lie: in the handshake, in the lane, about themselves. Each is cut off or refused, with
// a name for it, and nobody else notices.
#include "tests/fault/processes.hpp"
#include "tests/fault/shm_liar.hpp"

#include <random>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace {

using namespace std::chrono_literals;
using namespace transports::shared;
using contract::must;
using contract::party;
using contract::pump_until;
using fault::channel;
using fault::child;
using fault::counted;
using fault::got;
using fault::liar;
using fault::open_descriptors;
using fault::refusal;

using world = fault::shm_world;

// Runs `attack` on a fresh link; true if it was cut for it after `expected` good messages.
bool is_cut(const std::function<void(const liar&)>& attack, std::uint64_t expected = 0) {
  world stage;
  party& victim = stage.add();
  party& honest = stage.add();
  bus::outbox& way = stage.link(honest, victim);
  liar enemy(stage.scratch());
  enemy.seal_all();
  const note welcome = enemy.meet(victim, enemy.hello());
  must(welcome.head.kind == static_cast<std::uint16_t>(note_kind::welcome), "not welcome");
  attack(enemy);
  must(victim.doorbell != nullptr, "no bell");
  must(pump_until({&victim}, [&] { return !victim.heard.departures.empty(); }, {.look_every = 5ms}),
       "not cut");
  const bool is_right =
      victim.heard.departures.size() == 1 && victim.heard.departures[0].peer == enemy.id &&
      victim.heard.departures[0].reason == bus::errc::corrupt && victim.heard.accepted == expected;
  contract::send_all(stage.all(), way, honest.make_many(1, 10, 100));
  return is_right && stage.pump_until([&] { return victim.heard.accepted == expected + 10; }) &&
         refusal(enemy.answer(victim)) == bus::errc::corrupt &&
         counted(victim, bus::refusal::broken) == 1;
}

}  // namespace

TEST_CASE(
    "statement 10: an entry that points outside, askew, or names a held credit cuts its sender") {
  const auto good = [](const liar& by, std::uint64_t offset) {
    by.frame_at(offset) = bus::frame{};
  };
  REQUIRE(is_cut([&](const liar& by) { by.write(0, 8, 0); }));
  REQUIRE(is_cut([&](const liar& by) { by.write(0, UINT64_MAX - 63, 0); }));
  REQUIRE(is_cut([&](const liar& by) { by.write(0, liar::arena_bytes, 0); }));
  REQUIRE(is_cut([&](const liar& by) { by.write(0, liar::arena_bytes / 2, 0); }));
  REQUIRE(is_cut([&](const liar& by) { by.write(0, 0, liar::depth); }));
  REQUIRE(is_cut([&](const liar& by) { by.write(0, 0, UINT32_MAX); }));
  REQUIRE(is_cut(
      [&](const liar& by) {
        good(by, 0);
        by.write(0, 0, 3);
        by.write(1, 0, 3);
      },
      1));
}

TEST_CASE(
    "statement 10: a cell that claims more than it holds, or unknown flags, cuts its sender "
    "alone") {
  REQUIRE(is_cut([](const liar& by) {
    by.cell(0).bytes = cell_layout::payload_bytes_max + 1;
    by.cell(0).mark.store(join(1, 0));
  }));
  REQUIRE(is_cut([](const liar& by) {
    by.cell(0).bytes = cell_layout::by_reference - 1;
    by.cell(0).mark.store(join(1, 0));
  }));
  REQUIRE(is_cut([](const liar& by) {
    by.cell(0).flags = 0x8000;
    by.cell(0).mark.store(join(1, 0));
  }));
}

TEST_CASE(
    "statement 10: a cell that refers to what is not there, or to a held credit, cuts its sender "
    "alone") {
  const auto refer = [](const liar& by, std::uint64_t number, const reference_layout& to) {
    by.cell(number).bytes = cell_layout::by_reference;
    std::memcpy(by.cell(number).payload, &to, sizeof to);
    by.cell(number).mark.store(join(number + 1, 0));
  };
  const auto cut_for = [&](const reference_layout& to) {
    return is_cut([&](const liar& by) { refer(by, 0, to); });
  };
  const auto at = [](std::uint64_t offset, std::uint64_t bytes, std::uint32_t credit) {
    return reference_layout{.offset = offset, .bytes = bytes, .credit = credit, .reserved = 0};
  };
  REQUIRE(cut_for(at(8, 100, 0)));
  REQUIRE(cut_for(at(UINT64_MAX - 63, 100, 0)));
  REQUIRE(cut_for(at(liar::arena_bytes / 2, 100, 0)));
  REQUIRE(cut_for(at(0, liar::arena_bytes, 0)));
  REQUIRE(cut_for(at(0, liar::arena_bytes / 2 - 63, 0)));
  REQUIRE(cut_for(at(0, UINT64_MAX, 0)));
  REQUIRE(cut_for(at(0, 100, liar::depth)));
  REQUIRE(is_cut(
      [&](const liar& by) {
        refer(by, 0, at(0, 100, 3));
        refer(by, 1, at(4096, 100, 3));
      },
      1));
}

TEST_CASE(
    "statement 10: an entry that comes after cells which are not there cuts its sender alone") {
  REQUIRE(is_cut([](const liar& by) {
    by.frame_at(0) = bus::frame{};
    by.write(0, join(0, 1), 0);
  }));
  REQUIRE(is_cut([](const liar& by) {
    by.frame_at(0) = bus::frame{};
    by.write(0, join(0, UINT64_MAX), 0);
  }));
}

TEST_CASE(
    "statement 10: a cell that waits for an entry which never comes is silence, and holds up "
    "nobody") {
  world stage;
  party& victim = stage.add();
  party& honest = stage.add();
  bus::outbox& way = stage.link(honest, victim);
  liar enemy(stage.scratch());
  enemy.seal_all();
  static_cast<void>(enemy.meet(victim, enemy.hello()));
  enemy.cell(0).mark.store(join(1, 7));
  enemy.cell(1).mark.store(join(2, 0));
  victim.doorbell->arm_descriptors();
  REQUIRE(victim.inbox().arm());
  victim.inbox().disarm();
  victim.doorbell->disarm();
  contract::send_all(stage.all(), way, honest.make_many(1, 10, 100));
  REQUIRE(stage.pump_until([&] { return victim.heard.accepted == 10; }));
  REQUIRE(victim.heard.departures.empty());
}

TEST_CASE("statement 10: a frame that claims more than is there cuts its sender alone") {
  const auto with = [](const std::function<void(bus::frame&)>& change) {
    return is_cut([&](const liar& by) {
      const std::uint64_t last = liar::arena_bytes / 2 - 128;
      by.frame_at(last) = bus::frame{};
      change(by.frame_at(last));
      by.write(0, last, 0);
    });
  };
  REQUIRE(with([](bus::frame& head) { head.bytes = 65; }));
  REQUIRE(with([](bus::frame& head) { head.bytes = UINT64_MAX; }));
  REQUIRE(with([](bus::frame& head) { head.bytes = UINT64_MAX - 63; }));
  REQUIRE(with([](bus::frame& head) { head.version = 2; }));
  REQUIRE(with([](bus::frame& head) { head.flags = 0x8000; }));
}

TEST_CASE("statement 10: a sender that has hung up and goes on writing is cut") {
  world stage;
  party& victim = stage.add();
  victim.heard.keep = false;
  liar enemy(stage.scratch());
  enemy.seal_all();
  static_cast<void>(enemy.meet(victim, enemy.hello()));
  enemy.frame_at(0) = bus::frame{};
  enemy.socket.reset();
  std::uint64_t written = 0;
  for (; victim.heard.departures.empty() && written < 1'000'000;) {
    // Always ahead of the reader, who gives each credit back at once.
    for (; written < victim.heard.accepted + 8; ++written) {
      enemy.write(written, 0, static_cast<std::uint32_t>(written % liar::depth));
    }
    static_cast<void>(victim.step(1));
  }
  REQUIRE(victim.heard.departures.size() == 1);
  REQUIRE(victim.heard.departures[0].reason == bus::errc::corrupt);
}

TEST_CASE("a lane of random bytes crashes nobody") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 100; ++round) {
    world stage;
    party& victim = stage.add();
    liar enemy(stage.scratch());
    enemy.seal_all();
    static_cast<void>(enemy.meet(victim, enemy.hello()));
    auto* words =
        reinterpret_cast<std::atomic<std::uint64_t>*>(enemy.lane.at() + lane_layout::entries_at);
    for (int step = 0; step < 50; ++step) {
      for (std::uint32_t i = 0; i < liar::depth; ++i) {
        const std::uint64_t wild = random();
        enemy.cell(i).bytes = static_cast<std::uint16_t>(wild % 100);
        enemy.cell(i).flags = static_cast<std::uint16_t>(wild % 16 == 0 ? wild : 0);
        enemy.cell(i).mark.store(wild % 8 == 0 ? wild : join(i + 1, wild % 3));
      }
      for (std::uint32_t i = 0; i < 2 * liar::depth; ++i) {
        // Sometimes nearly right: small credits, right laps, aligned offsets.
        const std::uint64_t wild = random();
        const std::uint64_t tame =
            i % 2 == 0 ? wild % 1024 * 64 : make_mark(1 + wild % 2, wild % 64);
        words[i].store(random() % 8 == 0 ? wild : tame);
      }
      enemy.frame_at(random() % 1000 * 64).bytes = random() >> random() % 64;
      static_cast<void>(victim.step());
      if (step % 3 == 0) victim.heard.samples.clear();
    }
    REQUIRE(victim.heard.departures.size() <= 1);
  }
}

TEST_CASE("case 23: a hello of another version is refused as that, and so is a listener's") {
  world stage;
  party& victim = stage.add();
  liar enemy(stage.scratch());
  enemy.seal_all();
  note old = enemy.hello();
  ++old.head.layout;
  REQUIRE(refusal(enemy.meet(victim, old)) == bus::errc::incompatible);
  old = enemy.hello();
  ++old.head.protocol;
  REQUIRE(refusal(enemy.meet(victim, old)) == bus::errc::incompatible);
  REQUIRE(counted(victim, bus::refusal::incompatible) == 2);

  // The other way round: we connect to one that does not understand us.
  const auto id = bus::node_id::random();
  const bus::fd listener = got(enemy.entrance.listen(id));
  bus::outbox& way = victim.connect(id, "shm:" + bus::to_hex(id.value));
  const bus::fd accepted(::accept(listener.get(), nullptr, nullptr));
  note other = make_note(note_kind::farewell, id);
  other.head.layout = 77;
  other.head.code = static_cast<std::uint32_t>(bus::errc::incompatible);
  REQUIRE(send_note(accepted, other));
  REQUIRE(stage.pump_until([&] { return way.state() == bus::link_state::gone; }));
  REQUIRE(way.reason() == bus::errc::incompatible);
}

TEST_CASE("a hello that hands over the wrong things is refused and leaves no descriptor behind") {
  world stage;
  party& victim = stage.add();
  liar enemy(stage.scratch());
  static_cast<void>(victim.step());
  const std::size_t before = open_descriptors();
  const auto require_refused = [&](note first) {
    const std::uint64_t refused_before = counted(victim, bus::refusal::malformed);
    const auto why = refusal(enemy.meet(victim, first));
    enemy.socket.reset();
    REQUIRE(why == bus::errc::corrupt);
    REQUIRE(counted(victim, bus::refusal::malformed) == refused_before + 1);
  };
  // Nothing is sealed yet.
  require_refused(enemy.hello());
  got(liar::seal_one(enemy.arena_file, true));
  require_refused(enemy.hello());
  got(liar::seal_one(enemy.lane_file, false));
  {
    note swapped = enemy.hello();
    std::swap(swapped.descriptors[0], swapped.descriptors[1]);
    require_refused(std::move(swapped));
  }
  for (const std::uint32_t depth : {0U, 3U, 128U, 1U << 31}) {
    note wrong = enemy.hello();
    wrong.head.depth = depth;
    require_refused(std::move(wrong));
  }
  for (const std::uint64_t bytes : {0UL, 1UL, UINT64_MAX, 1UL << 41}) {
    note wrong = enemy.hello();
    wrong.head.arena_bytes = bytes;
    require_refused(std::move(wrong));
  }
  for (std::size_t keep = 0; keep < 3; ++keep) {
    note few = enemy.hello();
    few.count = keep;
    require_refused(std::move(few));
  }
  {
    note sparse = enemy.hello();
    bus::fd hollow(::memfd_create("hollow", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    REQUIRE(::ftruncate(hollow.get(), 1 << 20) == 0);
    got(liar::seal_one(hollow, true));
    sparse.descriptors[0] = std::move(hollow);
    require_refused(std::move(sparse));
  }
  {
    note pipe = enemy.hello();
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    pipe.descriptors[0].reset(ends[0]);
    pipe.descriptors[1].reset(ends[1]);
    require_refused(std::move(pipe));
  }
  REQUIRE(open_descriptors() == before);
  // And the same sender, honest for once, is welcome.
  REQUIRE(enemy.meet(victim, enemy.hello()).head.kind ==
          static_cast<std::uint16_t>(note_kind::welcome));
}

TEST_CASE("a node id that has a way in already is refused to another process, and counted") {
  world stage;
  party& victim = stage.add();
  const auto id = bus::node_id::random();
  child first([&](channel& parent) {
    liar enemy(stage.scratch());
    enemy.seal_all();
    enemy.id = id;
    must(enemy.meet(victim.id, enemy.hello()).head.kind ==
             static_cast<std::uint16_t>(note_kind::welcome),
         "not welcome");
    parent.say(1);
    static_cast<void>(parent.hear());
  });
  REQUIRE(stage.pump_until([&] { return first.pipe().has_news(); }, {.look_every = 5ms}));
  liar second(stage.scratch());
  second.seal_all();
  second.id = id;
  REQUIRE(refusal(second.meet(victim, second.hello())) == bus::errc::exists);
  REQUIRE(counted(victim, bus::refusal::taken) == 1);
  first.pipe().say(1);
  REQUIRE(first.pipe().hear() == 1);
  REQUIRE(first.wait() == 0);
}

TEST_CASE("hundreds of silent connections keep nobody out") {
  world stage;
  party& victim = stage.add();
  party& honest = stage.add();
  const auto entrance = got(doorway::open(stage.scratch()));
  std::vector<bus::fd> silent;
  while (silent.size() < 400) {
    silent.push_back(got(entrance.connect(victim.id)));
    static_cast<void>(victim.step());
  }
  bus::outbox& way = stage.link(honest, victim);
  contract::send_all(stage.all(), way, honest.make_many(1, 1, 100));
  REQUIRE(stage.pump_until([&] { return victim.heard.accepted == 1; }));
  // 128 may wait; each of the others was told, and counted.
  REQUIRE(counted(victim, bus::refusal::connections) >= 400 - 128);
}

TEST_CASE(
    "who connects and says nothing is told its time is up; who never answers us is given up") {
  world stage;
  party& victim = stage.add();
  static_cast<void>(victim.step());
  const auto entrance = got(doorway::open(stage.scratch()));
  const auto deaf = bus::node_id::random();
  const bus::fd listener = got(entrance.listen(deaf));
  const std::size_t before = open_descriptors();
  {
    const std::int64_t begun_ns = bus::steady_ns();
    const bus::fd silent = got(entrance.connect(victim.id));
    bus::outbox& way = victim.connect(deaf, "shm:" + bus::to_hex(deaf.value));
    const bus::fd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    // The deadlines of transports/shm/hub.cpp: 5 s to say hello, 10 s to say welcome.
    note last;
    REQUIRE(stage.pump_until(
        [&] {
          auto heard = receive_note(silent);
          if (heard) last = std::move(*heard);
          return heard.has_value();
        },
        {.look_every = 20ms}));
    REQUIRE(refusal(last) == bus::errc::timed_out);
    REQUIRE(counted(victim, bus::refusal::silent) == 1);
    REQUIRE(receive_note(silent).error() == bus::errc::gone);
    REQUIRE(bus::steady_ns() - begun_ns > 4'900'000'000);
    REQUIRE(way.state() == bus::link_state::opening);
    REQUIRE(stage.pump_until([&] { return way.state() == bus::link_state::gone; }));
    REQUIRE(way.reason() == bus::errc::timed_out);
    REQUIRE(bus::steady_ns() - begun_ns > 9'900'000'000);
    victim.ways.clear();
  }
  // The memory for payloads and its way to readers stay with the victim, once it has them.
  REQUIRE(open_descriptors() == before + 1);
}

TEST_CASE(
    "case 38: without descriptors newcomers wait or are refused, none leaks, and later all is "
    "well") {
  world stage;
  party& victim = stage.add();
  static_cast<void>(victim.step());
  // Says how each attempt ended: 1 open, 2 gone. The last one is to open.
  child sender([&](channel& parent) {
    for (int attempt = 0; attempt < 3; ++attempt) {
      const std::uint64_t go = parent.hear();
      const auto self = stage.make();
      bus::outbox& way = self->connect(victim.id, victim.where());
      parent.say(go);
      must(pump_until({self.get()}, [&] { return way.state() != bus::link_state::opening; }), "?");
      parent.say(way.state() == bus::link_state::open ? 1 : 2);
    }
  });
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const std::size_t open_before = open_descriptors();
  const auto attempt = [&](rlim_t spare, bool lift) {
    const bus::fd lowest(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    rlimit tight = before;
    tight.rlim_cur = static_cast<rlim_t>(lowest.get()) + 1 + spare;
    sender.pipe().say(1);
    static_cast<void>(sender.pipe().hear());
    must(::setrlimit(RLIMIT_NOFILE, &tight) == 0, "setrlimit");
    for (int i = 0; i < 3; ++i) static_cast<void>(victim.step());
    if (lift) must(::setrlimit(RLIMIT_NOFILE, &before) == 0, "setrlimit");
    const bool answered =
        stage.pump_until([&] { return sender.pipe().has_news(); }, {.look_every = 5ms});
    must(::setrlimit(RLIMIT_NOFILE, &before) == 0, "setrlimit");
    must(answered, "no answer");
    return sender.pipe().hear();
  };
  // One to accept with, too few for what the hello brings.
  REQUIRE(attempt(2, false) == 2);
  REQUIRE(counted(victim, bus::refusal::no_room) == 1);
  REQUIRE(stage.pump_until([&] { return open_descriptors() == open_before; }, {.look_every = 5ms}));
  // Not even one: it waits, and is let in when there are some again.
  REQUIRE(attempt(0, true) == 1);
  REQUIRE(attempt(100, true) == 1);
  REQUIRE(sender.wait() == 0);
}

TEST_CASE("a stranger is denied, although the directory was opened by hand") {
  if (::geteuid() != 0) {
    WARN("only root can become a stranger: not tested");
    return;
  }
  world stage;
  party& victim = stage.add();
  REQUIRE(::chmod(stage.scratch().c_str(), 0777) == 0);
  const std::string path = stage.scratch() + "/" + bus::to_hex(victim.id.value) + ".sock";
  REQUIRE(::chmod(path.c_str(), 0777) == 0);
  child stranger([&](channel& parent) {
    must(::setgid(65534) == 0 && ::setuid(65534) == 0, "setuid");
    const auto self = stage.make();
    bus::outbox& way = self->connect(victim.id, victim.where());
    must(pump_until({self.get()}, [&] { return way.state() == bus::link_state::gone; }), "let in");
    must(way.reason() == bus::errc::stranger, "not denied but: " + way.reason().message());
    parent.say(1);
  });
  REQUIRE(stage.pump_until([&] { return stranger.pipe().has_news(); }, {.look_every = 5ms}));
  REQUIRE(stranger.wait() == 0);
  REQUIRE(victim.heard.departures.empty());
}
