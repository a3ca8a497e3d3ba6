// Peers that flip bytes, hand over rubbish, or leave their number to somebody else.
#include "tests/fault/shm_liar.hpp"
#include "tests/security/users.hpp"

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <thread>

#include <fcntl.h>
#include <linux/sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

using namespace std::chrono_literals;
using namespace transports::shared;
using contract::must;
using contract::party;
using contract::pump_until;
using fault::channel;
using fault::child;
using fault::got;
using fault::liar;
using fault::refusal;
using world = fault::shm_world;

namespace {

// How long the peers flip bytes: a minute is the promise, CI has less time.
std::chrono::seconds flip_time() {
  const char* const wanted = std::getenv("OMNIBUS_FLIP_SECONDS");
  return std::chrono::seconds(wanted ? std::strtol(wanted, nullptr, 10) : 2);
}

// A generator of small state, for a thread that does nothing else.
struct dice {
  std::uint64_t state;
  std::uint64_t operator()() {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
  }
};

// Changes a word of `memory` now and then: a bit, a byte, all of it, or a number that is nearly
// right.
void flip(std::span<std::byte> memory, dice& random) {
  auto* const words = reinterpret_cast<std::atomic<std::uint64_t>*>(memory.data());
  std::atomic<std::uint64_t>& word = words[random() % (memory.size() / 8)];
  const std::uint64_t wild = random();
  switch (wild % 6) {
    case 0:
      return word.store(random(), std::memory_order_relaxed);
    case 1:
      return word.store(0, std::memory_order_relaxed);
    case 2:
      return word.store(wild % 1024 * 64, std::memory_order_relaxed);
    case 3:
      return word.store(make_mark(static_cast<std::uint32_t>(1 + wild % 3),
                                  static_cast<std::uint32_t>(wild % 64)),
                        std::memory_order_relaxed);
    case 4:  // a cell that may be next, or a place behind cells
      return word.store(join(wild % 512 < 256 ? wild % 4 : wild % 1024 * 64, wild % 3),
                        std::memory_order_relaxed);
    default:
      word.fetch_xor(1ULL << wild % 64, std::memory_order_relaxed);
  }
}

std::span<std::byte> all_of(const mapping& one) { return {one.at(), one.bytes()}; }

std::span<std::byte> page_of(const bus::bell& bell, mapping& keeper) {
  keeper = got(mapping::writable(got(bell.keys()).page.get(), page_bytes));
  return all_of(keeper);
}

// One visit to `whom` as a sender: says hello, perhaps a spoilt one, and flips whatever it shares.
void visit(const std::string& directory, bus::node_id whom, dice& random, std::uint64_t steps) {
  liar enemy(directory);
  enemy.seal_all();
  mapping bell;
  const auto page = page_of(*enemy.doorbell, bell);
  note hello = enemy.hello();
  if (random() % 4 == 0) {
    auto head = std::as_writable_bytes(std::span(&hello.head, 1));
    head[random() % head.size()] ^= static_cast<std::byte>(1 + random() % 255);
  }
  static_cast<void>(enemy.meet(whom, hello));
  // The first pages of the arena hold the frames that tame entries point at.
  const auto frames = all_of(enemy.arena).first(64 << 10);
  for (std::uint64_t i = 0; i < steps; ++i) {
    flip(all_of(enemy.lane), random);
    flip(frames, random);
    if (i % 16 == 0) flip(page, random);
    if (i % 64 == 0) ::sched_yield();
  }
  // And rubbish on the socket, or a knock, or nothing.
  const std::uint64_t word = random();
  const auto bytes = std::as_bytes(std::span(&word, 1));
  static_cast<void>(::send(enemy.socket.get(), bytes.data(), random() % bytes.size(),
                           MSG_NOSIGNAL | MSG_DONTWAIT));
}

// Waits to be called by `whom`, once, as a receiver that flips its answers and its bell.
void receive(const bus::fd& listener, bus::node_id self, dice& random, std::uint64_t steps) {
  const bus::fd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket) return;
  auto hello = receive_note(socket);
  if (!hello || hello->head.kind != static_cast<std::uint16_t>(note_kind::hello)) return;
  const std::uint32_t depth = hello->head.depth;
  const bus::fd file = got(make_memory("liar-answers", answers_bytes(depth)));
  const mapping answers = got(mapping::writable(file.get(), answers_bytes(depth)));
  new (answers.at()) answers_layout{answers_layout::magic_value, layout_version, depth, 0, 0};
  must(seal(file.get(), false).has_value(), "seal");
  const auto doorbell = got(bus::bell::make());
  mapping bell;
  const auto page = page_of(*doorbell, bell);
  note welcome = make_note(note_kind::welcome, self);
  welcome.add(got(hand_out(file.get())));
  welcome.add(got(doorbell->keys()));
  static_cast<void>(send_note(socket, welcome));
  for (std::uint64_t i = 0; i < steps; ++i) {
    flip(all_of(answers), random);
    flip(page, random);
    if (i % 64 == 0) ::sched_yield();
  }
  const char byte = 0;
  static_cast<void>(::send(socket.get(), &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT));
}

void receive_for_ever(const std::string& directory, channel& parent, std::uint64_t seed) {
  dice random{seed};
  const auto self = bus::node_id::random();
  const auto entrance = got(doorway::open(directory));
  const bus::fd listener = got(entrance.listen(self));
  parent.say(self.value);
  for (;;) {
    pollfd one{listener.get(), POLLIN, 0};
    if (::poll(&one, 1, -1) == 1) receive(listener, self, random, 3'000);
  }
}

// An honest pair beside the victim of the flips: nothing of theirs may be lost, torn or foreign.
struct honest_pair {
  party& sender;
  party& receiver;
  bus::outbox& way;
  std::uint64_t sent = 0;
  std::uint64_t heard = 0;
  bool is_right = true;

  honest_pair(world& stage, party& to)
      : sender(stage.add()), receiver(to), way(stage.link(sender, to)) {
    receiver.heard.keep = false;
    receiver.heard.on_sample = [this](const bus::sample& arrived) {
      if (arrived.head().node != sender.id.value) return;
      is_right = is_right && contract::proves(arrived) && arrived.head().sequence == ++heard;
    };
  }
  ~honest_pair() { receiver.heard.on_sample = nullptr; }
  void exchange(const contract::parties& all) {
    contract::send_all(all, way, sender.make_many(sent + 1, 32, 256));
    sent += 32;
    must(pump_until(all, [&] { return heard == sent; }), "a message was lost");
  }
};

std::uint64_t times_refused(party& by) {
  std::uint64_t sum = 0;
  for (const auto& tally : by.inbox().refused()) {
    for (const std::uint64_t count : tally.counts) sum += count;
  }
  return sum;
}

void require_flips_harmless(const std::function<void()>& turns_into) {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  world stage;
  if (::geteuid() == 0) security::give_to_group(stage.scratch());
  party& victim = stage.add();
  honest_pair honest(stage, victim);
  child visitor([&](channel&) {
    turns_into();
    for (dice random{seed | 1U};;) {
      try {
        visit(stage.scratch(), victim.id, random, 3'000);
      } catch (const std::runtime_error&) {
        ::sched_yield();  // it did not let us in; the next one may have more luck
      }
    }
  });
  child receiver([&](channel& parent) {
    turns_into();
    receive_for_ever(stage.scratch(), parent, seed | 2U);
  });
  const bus::node_id hostile{receiver.pipe().hear()};
  bus::outbox* out = nullptr;
  std::uint64_t calls = 0;
  std::uint64_t given = 0;
  const auto until = bus::deadline::after(flip_time());
  while (!until.passed()) {
    honest.exchange({&victim, &honest.sender});
    victim.heard.departures.clear();
    if (!out || out->state() == bus::link_state::gone) {
      victim.ways.clear();
      out = &victim.connect(hostile, "shm:" + bus::to_hex(hostile.value));
      ++calls;
    } else if (out->state() == bus::link_state::open) {
      const auto batch = victim.make_many(1, 8, 128);
      given += out->send(batch).value_or(std::size_t{0});
    }
  }
  REQUIRE(honest.is_right);
  REQUIRE(honest.sent > 0);
  REQUIRE(times_refused(victim) > 0);
  REQUIRE(calls > 1);
  WARN("seed " << seed << ": " << honest.sent << " messages of the honest, "
               << times_refused(victim) << " refusals and cuts, " << calls
               << " calls to the receiver, " << given << " given");
}

// A message on a socket with `count` copies of a descriptor, however many that is.
void send_raw(const bus::fd& socket, const note_layout& head, std::size_t count, int descriptor) {
  std::vector<std::byte> control(CMSG_SPACE(count * sizeof(int)));
  iovec part{const_cast<note_layout*>(&head), sizeof head};
  msghdr envelope{};
  envelope.msg_iov = &part;
  envelope.msg_iovlen = 1;
  envelope.msg_control = control.data();
  envelope.msg_controllen = control.size();
  cmsghdr* const rights = CMSG_FIRSTHDR(&envelope);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(count * sizeof(int));
  for (std::size_t i = 0; i < count; ++i) {
    std::memcpy(CMSG_DATA(rights) + i * sizeof(int), &descriptor, sizeof descriptor);
  }
  must(::sendmsg(socket.get(), &envelope, MSG_NOSIGNAL) == sizeof head, "sendmsg");
}

}  // namespace

TEST_CASE("statement 9: a peer that flips bytes at random costs nobody a message") {
  SECTION("of the same user") {
    require_flips_harmless([] {});
  }
  SECTION("another member of the group") {
    if (!security::is_root()) return;
    require_flips_harmless([] { security::become(security::mallory); });
  }
}

TEST_CASE("statement 9: a bell page of rubbish kills neither who rings nor who sleeps") {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    const auto bell = got(bus::bell::make());
    auto ringer = got(bus::ringer::open(got(bell->keys())));
    const auto page = got(mapping::writable(got(bell->keys()).page.get(), page_bytes));
    for (std::size_t at = 64; at < 256; at += 8) {
      const std::uint64_t word = random();
      std::memcpy(page.at() + at, &word, sizeof word);
    }
    static_cast<void>(ringer.ring());
    bell->arm_semaphore();
    const std::uint64_t word = random();
    std::memcpy(page.at() + 128, &word, sizeof word);
    static_cast<void>(ringer.ring());
    static_cast<void>(bell->wait(bus::deadline::after(1ms)));
  }
}

TEST_CASE("statement 9: a stranger's full eventfd makes nobody wait") {
  if (!security::is_root()) return;
  world stage;
  security::give_to_group(stage.scratch());
  party& victim = stage.add();
  // Receives as somebody else, is always asleep, and its eventfd would block for ever.
  child hostile([&](channel& parent) {
    security::become(security::mallory);
    const auto self = bus::node_id::random();
    const auto entrance = got(doorway::open(stage.scratch()));
    const bus::fd listener = got(entrance.listen(self));
    parent.say(self.value);
    pollfd one{listener.get(), POLLIN, 0};
    must(::poll(&one, 1, contract::timeout_ms(bus::deadline::after(contract::patience))) == 1, "?");
    const bus::fd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const note hello = got(receive_note(socket));
    const std::uint32_t depth = hello.head.depth;
    const bus::fd file = got(make_memory("answers", answers_bytes(depth)));
    const mapping answers = got(mapping::writable(file.get(), answers_bytes(depth)));
    new (answers.at()) answers_layout{answers_layout::magic_value, layout_version, depth, 0, 0};
    must(seal(file.get(), false).has_value(), "seal");
    const auto doorbell = got(bus::bell::make());
    doorbell->arm_descriptors();
    auto keys = got(doorbell->keys());
    keys.thread.reset();
    keys.event.reset(::eventfd(0, EFD_CLOEXEC));
    const std::uint64_t full = UINT64_MAX - 1;
    must(::write(keys.event.get(), &full, sizeof full) == sizeof full, "fill");
    note welcome = make_note(note_kind::welcome, self);
    welcome.add(got(hand_out(file.get())));
    welcome.add(std::move(keys));
    must(send_note(socket, welcome).has_value(), "welcome");
    static_cast<void>(parent.hear());
  });
  const bus::node_id id{hostile.pipe().hear()};
  bus::outbox& way = victim.connect(id, "shm:" + bus::to_hex(id.value));
  REQUIRE(stage.pump_until([&] { return way.state() == bus::link_state::open; }));
  // A write to that eventfd would never return: then the test is over by its time limit.
  const auto batch = victim.make_many(1, 4, 64);
  REQUIRE(way.send(batch).value_or(std::size_t{0}) == 4);
  REQUIRE(way.describe().find("woken by socket") != std::string::npos);
  hostile.pipe().say(1);
  REQUIRE(hostile.wait() == 0);
}

TEST_CASE(
    "statement 11: what is shared holds no pointer of ours, and no lock is on the robust list") {
  world stage;
  party& sender = stage.add();
  party& receiver = stage.add();
  bus::outbox& way = stage.link(sender, receiver);
  // A payload of zeroes, so that every word that looks like an address is ours.
  for (std::uint64_t i = 1; i <= 100; ++i) {
    auto lent = sender.carrier->lend(4096);
    REQUIRE(lent);
    std::memset(lent->bytes().data(), 0, lent->bytes().size());
    const bus::sample one =
        std::move(*lent).commit(contract::frame_for(sender.id.value, 0, i, 4096));
    REQUIRE(stage.pump_until([&] { return way.send({&one, 1}).value_or(std::size_t{0}) == 1; }));
  }
  REQUIRE(stage.pump_until([&] { return receiver.heard.accepted == 100; }));

  struct range {
    std::uint64_t first;
    std::uint64_t end;
  };
  std::vector<range> mapped;
  std::vector<range> shared;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    range one{};
    char dash = 0;
    std::istringstream(line) >> std::hex >> one.first >> dash >> one.end;
    // Programs, heaps, libraries and stacks are high; the shadows of sanitizers are all over.
    if (one.first >= 1ULL << 44) mapped.push_back(one);
    if (line.find("omnibus-") != line.npos) shared.push_back(one);
  }
  REQUIRE(shared.size() >= 5);  // two bells, arena and lane on both sides, answers on both sides
  for (const range& one : shared) {
    const auto limit = std::min(one.end, one.first + (1 << 20));  // of the arena, what is there
    for (std::uint64_t at = one.first; at < limit; at += 8) {
      const std::uint64_t word = *reinterpret_cast<const std::uint64_t*>(at);
      const bool is_pointer = std::any_of(mapped.begin(), mapped.end(), [&](const range& each) {
        return word >= each.first && word < each.end;
      });
      if (is_pointer) FAIL("a pointer at " << std::hex << at << ": " << word);
    }
  }
  struct list_head {
    list_head* next;
  };
  list_head* robust = nullptr;
  std::size_t bytes = 0;
  REQUIRE(::syscall(SYS_get_robust_list, 0, &robust, &bytes) == 0);
  REQUIRE((robust == nullptr || robust->next == robust));
  // Whatever is declared in shared memory can be copied as bytes, so it has no lock and no owner.
  static_assert(std::is_standard_layout_v<bus::bell_layout>);
  static_assert(std::is_trivially_copyable_v<note_layout>);
  static_assert(std::is_trivially_copyable_v<answers_layout>);
  static_assert(std::is_trivially_copyable_v<bus::frame>);
  static_assert(std::is_standard_layout_v<entry_layout> && std::is_standard_layout_v<lane_layout>);
}

TEST_CASE("statement 12: ten thousand who get the number of a dead peer get no signal") {
  if (!security::is_root()) return;
  // A sanitizer's shadow makes a fork a hundred times as long.
  const int reuses = contract::sanitized ? 100 : 10'000;
  // In a pid namespace of its own, so that numbers can be chosen without harm to others.
  child outer([&](channel&) {
    must(::unshare(CLONE_NEWPID) == 0, "unshare");
    child inner([&](channel&) {
      // A node's thread that sleeps in an event loop, and dies there.
      child sleeper([&](channel& parent) {
        const auto bell = got(bus::bell::make());
        bell->arm_descriptors();
        auto own = got(bell->keys());
        must(static_cast<bool>(own.thread), "no signals on this kernel");
        note message = make_note(note_kind::welcome, {1});
        message.add(std::move(own));
        must(send_note(parent.socket(), message).has_value(), "send");
        static_cast<void>(parent.hear());
      });
      note heard = got(receive_note(sleeper.pipe().socket()));
      const bus::bell_keys keys = heard.keys(0);
      const pid_t number = sleeper.id();
      const auto page = got(mapping::writable(keys.page.get(), page_bytes));
      auto& word = reinterpret_cast<bus::bell_layout*>(page.at())->word;
      const std::uint32_t asleep = word.load();
      must(bus::mode_of(asleep) == bus::bell_mode::on_signal, "not asleep on a signal");
      sleeper.kill();
      must(sleeper.wait() == -SIGKILL, "not dead");
      for (int i = 0; i < reuses; ++i) {
        int ends[2];
        must(::pipe2(ends, O_CLOEXEC) == 0, "pipe");
        bus::fd reading(ends[0]);
        bus::fd writing(ends[1]);
        clone_args how{};
        how.exit_signal = SIGCHLD;
        how.set_tid = reinterpret_cast<std::uint64_t>(&number);
        how.set_tid_size = 1;
        const auto innocent = static_cast<pid_t>(::syscall(SYS_clone3, &how, sizeof how));
        if (innocent == 0) {
          // Any signal of ours would end it before this byte comes.
          char byte = 0;
          ::_exit(::read(reading.get(), &byte, 1) == 1 ? 0 : 1);
        }
        must(innocent == number, "not the same number");
        word.store(asleep);
        bus::bell_keys copies;
        copies.page = got(keys.page.duplicate());
        copies.thread = got(keys.thread.duplicate());
        copies.event = got(keys.event.duplicate());
        auto ringer = got(bus::ringer::open(std::move(copies)));
        must(ringer.ring() == bus::rung::event, "signalled somebody");
        must(::write(writing.get(), "x", 1) == 1, "write");
        int status = -1;
        must(::waitpid(innocent, &status, 0) == innocent && WIFEXITED(status) &&
                 WEXITSTATUS(status) == 0,
             "an innocent died, status " + std::to_string(status));
      }
    });
    must(inner.wait() == 0, "inside");
  });
  REQUIRE(outer.wait() == 0);
}

TEST_CASE("statement 13: whatever descriptors a note brings, none of them stays") {
  world stage;
  party& victim = stage.add();
  liar enemy(stage.scratch());
  enemy.seal_all();
  static_cast<void>(victim.step());
  const bus::fd rubbish(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const std::size_t before = fault::open_descriptors();
  for (const std::size_t count :
       {1UL, 2UL, 3UL, 4UL, 5UL, 6UL, 15UL, 16UL, 17UL, 64UL, 252UL, 253UL}) {
    for (const std::uint16_t claimed : {std::uint16_t{0}, std::uint16_t{4},
                                        static_cast<std::uint16_t>(count), std::uint16_t{65535}}) {
      INFO(count << " descriptors, " << claimed << " claimed");
      enemy.socket = got(enemy.entrance.connect(victim.id));
      note hello = enemy.hello();
      hello.head.descriptors = claimed;
      send_raw(enemy.socket, hello.head, count, rubbish.get());
      const auto why = refusal(enemy.answer(victim));
      REQUIRE((why == bus::errc::corrupt || why == bus::errc::refused));
      enemy.socket.reset();
    }
  }
  REQUIRE(
      stage.pump_until([&] { return fault::open_descriptors() == before; }, {.look_every = 5ms}));
  // The other way round: a listener's welcome.
  const auto self = bus::node_id::random();
  const bus::fd listener = got(enemy.entrance.listen(self));
  for (const std::size_t count : {1UL, 3UL, 4UL, 5UL, 17UL, 253UL}) {
    INFO(count << " descriptors in a welcome");
    bus::outbox& way = victim.connect(self, "shm:" + bus::to_hex(self.value));
    const bus::fd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    note welcome = make_note(note_kind::welcome, self);
    welcome.head.descriptors = static_cast<std::uint16_t>(count);
    send_raw(socket, welcome.head, count, rubbish.get());
    REQUIRE(stage.pump_until([&] { return way.state() == bus::link_state::gone; }));
    REQUIRE(way.reason() == bus::errc::corrupt);
    victim.ways.clear();
  }
  // The arena, and its read-only side, stay with the victim.
  REQUIRE(stage.pump_until([&] { return fault::open_descriptors() <= before + 3; },
                           {.look_every = 5ms}));
}

TEST_CASE("statement 13: an open link takes no descriptors, and ends for it") {
  world stage;
  party& victim = stage.add();
  liar enemy(stage.scratch());
  enemy.seal_all();
  REQUIRE(enemy.meet(victim, enemy.hello()).head.kind ==
          static_cast<std::uint16_t>(note_kind::welcome));
  const std::size_t before = fault::open_descriptors();
  send_raw(enemy.socket, enemy.hello().head, 100, 0);
  REQUIRE(
      stage.pump_until([&] { return victim.heard.departures.size() == 1; }, {.look_every = 5ms}));
  REQUIRE(fault::open_descriptors() <= before);
}
