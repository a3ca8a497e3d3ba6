// Peers that lie: in the handshake, in the lane, about themselves. Each is cut off or refused, with
// a name for it, and nobody else notices.
#include "tests/fault/processes.hpp"
#include "tests/fault/shm_stage.hpp"
#include "transports/shm/handshake.hpp"
#include "transports/shm/lane_in.hpp"

#include <fstream>
#include <random>
#include <sstream>

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
using fault::got;
using fault::open_descriptors;

using world = fault::shm_world;

// A sender that writes its lane and arena with its own hands.
struct liar {
  static constexpr std::uint32_t depth = 64;
  static constexpr std::uint64_t arena_bytes = 1 << 20;  // declared; half of it is there

  explicit liar(const std::string& directory) : entrance(got(doorway::open(directory))) {
    arena_file = got(make_memory("liar-arena", arena_bytes / 2));
    arena = got(mapping::writable(arena_file.get(), arena_bytes));
    lane_file = got(make_memory("liar-lane", lane_bytes(depth)));
    lane = got(mapping::writable(lane_file.get(), lane_bytes(depth)));
    auto* head = reinterpret_cast<lane_layout*>(lane.at());
    head->magic = lane_layout::magic_value;
    head->version = layout_version;
    head->depth = depth;
    head->entry_bytes = sizeof(entry_layout);
    doorbell = got(bus::bell::make());
  }
  void seal_all() const {
    got(seal_one(arena_file, true));
    got(seal_one(lane_file, false));
  }
  static bus::result<bool> seal_one(const bus::fd& file, bool grows) {
    if (auto sealed = seal(file.get(), grows); !sealed) return bus::unexpected(sealed.error());
    return true;
  }
  [[nodiscard]] note hello() const {
    note made = make_note(note_kind::hello, id);
    made.head.arena_bytes = arena_bytes;
    made.head.depth = depth;
    made.add(got(hand_out(arena_file.get())));
    made.add(got(hand_out(lane_file.get())));
    made.add(got(doorbell->keys()));
    return made;
  }
  // Says hello to `to` and returns its answer.
  note meet(party& to, const note& first) {
    socket = got(entrance.connect(to.id));
    must(send_note(socket, first).has_value(), "hello");
    return answer(to);
  }
  note answer(party& to) const {
    note heard;
    must(pump_until({&to},
                    [&] {
                      auto came = receive_note(socket);
                      if (came) heard = std::move(*came);
                      return came || came.error() != bus::errc::timed_out;
                    },
                    {.look_every = 5ms}),
         "no answer");
    return heard;
  }
  void write(std::uint64_t number, std::uint64_t offset, std::uint32_t credit) const {
    auto* entries = reinterpret_cast<entry_layout*>(lane.at() + lane_layout::entries_at);
    entry_layout& place = entries[number % depth];
    place.offset.store(offset);
    place.mark.store(make_mark(static_cast<std::uint32_t>(number / depth + 1), credit));
  }
  bus::frame& frame_at(std::uint64_t offset) const {
    return *reinterpret_cast<bus::frame*>(arena.at() + offset);
  }

  bus::node_id id = bus::node_id::random();
  doorway entrance;
  bus::fd arena_file;
  bus::fd lane_file;
  mapping arena;
  mapping lane;
  std::unique_ptr<bus::bell> doorbell;
  bus::fd socket;
};

bus::errc refusal(const note& answer) {
  must(answer.head.kind == static_cast<std::uint16_t>(note_kind::farewell), "not refused");
  return static_cast<bus::errc>(answer.head.code);
}

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
         refusal(enemy.answer(victim)) == bus::errc::corrupt;
}

}  // namespace

TEST_CASE("an entry that points outside, askew, or names a held credit cuts its sender alone") {
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

TEST_CASE("a frame that claims more than is there, or another version, cuts its sender alone") {
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
    const auto why = refusal(enemy.meet(victim, first));
    enemy.socket.reset();
    REQUIRE(why == bus::errc::corrupt);
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
  for (std::size_t keep = 0; keep < 4; ++keep) {
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
  REQUIRE(stage.pump_until([&] { return open_descriptors() == open_before; }, {.look_every = 5ms}));
  // Not even one: it waits, and is let in when there are some again.
  REQUIRE(attempt(0, true) == 1);
  REQUIRE(attempt(100, true) == 1);
  REQUIRE(sender.wait() == 0);
}

TEST_CASE("a subscriber can change no payload, whatever it tries") {
  world stage;
  party& publisher = stage.add();
  child subscriber([&](channel& parent) {
    const auto self = stage.make();
    parent.say(self->id.value);
    must(pump_until({self.get()}, [&] { return self->heard.samples.size() == 1; }), "nothing came");
    int seen = 0;
    for (int number = 0; number < 256; ++number) {
      std::array<char, 256> target{};
      if (::readlink(path_of(number).c_str(), target.data(), target.size() - 1) < 0) continue;
      if (std::string_view(target.data()).find("omnibus-arena") == std::string_view::npos) continue;
      ++seen;
      const bus::fd again(::open(path_of(number).c_str(), O_RDWR | O_CLOEXEC));
      for (const int one : {number, again.get()}) {
        if (one < 0) continue;
        constexpr int both = PROT_READ | PROT_WRITE;
        must(::mmap(nullptr, 4096, both, MAP_SHARED, one, 0) == MAP_FAILED, "mapped for writing");
        must(::pwrite(one, "x", 1, 0) < 0, "written");
        must(::fallocate(one, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0, "punched");
        must(::ftruncate(one, 0) < 0, "truncated");
      }
    }
    must(seen > 0, "no descriptor of the arena was found");
    // And the mappings that are there cannot be made writable.
    std::ifstream maps("/proc/self/maps");
    int mapped = 0;
    for (std::string line; std::getline(maps, line);) {
      const bool is_theirs = line.find("omnibus-arena") != std::string::npos ||
                             line.find("omnibus-lane") != std::string::npos;
      if (!is_theirs) continue;
      std::uint64_t first = 0;
      std::istringstream(line) >> std::hex >> first;
      ++mapped;
      must(::mprotect(reinterpret_cast<void*>(first), 4096, PROT_READ | PROT_WRITE) != 0,
           "made writable: " + line);
    }
    must(mapped >= 2, "no mappings were found");
    must(self->heard.unproved == 0 && contract::proves(self->heard.samples[0]), "changed");
    parent.say(1);
  });
  const std::uint64_t id = subscriber.pipe().hear();
  bus::outbox& way = publisher.connect({id}, "shm:" + bus::to_hex(id));
  const auto kept = publisher.make(1, 4096);
  contract::send_all(stage.all(), way, {kept});
  REQUIRE(subscriber.pipe().hear() == 1);
  REQUIRE(subscriber.wait() == 0);
  REQUIRE(contract::proves(kept));
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
    must(way.reason() == bus::errc::denied, "not denied but: " + way.reason().message());
    parent.say(1);
  });
  REQUIRE(stage.pump_until([&] { return stranger.pipe().has_news(); }, {.look_every = 5ms}));
  REQUIRE(stranger.wait() == 0);
  REQUIRE(victim.heard.departures.empty());
}
