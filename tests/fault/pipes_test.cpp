// Links over pipes whose ends die, fill, leak or shrink: cases 46 to 51 of failures, as far as they
// are the transport's. What a parent does with its child's status, and what ends with a thread, is
// for whoever starts children.
#include "tests/contract/pipe_switchboard.hpp"
#include "tests/fault/processes.hpp"
#include "tests/fault/refusals.hpp"
#include "transports/pipe/wire.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace {

using namespace std::chrono_literals;

using contract::loose_ends;
using contract::must;
using contract::party;
using contract::plug;
using contract::pump_until;
using contract::send_all;
using fault::channel;
using fault::child;

struct link_options {
  bool lends_pages = false;
  std::uint32_t depth = 256;
};

bus::transport_setup setup_of(link_options with) {
  bus::transport_setup setup;
  setup.link_depth = with.depth;
  return setup;
}

// A node that has nothing but one end of a pair of pipes.
struct speaker {
  explicit speaker(loose_ends ends, link_options with = {})
      : self(transports::pipe(), setup_of(with)) {
    auto plugged = plug(*self.carrier, std::move(ends), {}, with.lends_pages);
    must(plugged.has_value(), "plug: " + plugged.error().message());
    self.ways.push_back(std::move(*plugged));
  }
  [[nodiscard]] bus::outbox& way() { return *self.ways.front(); }
  void open() {
    must(pump_until({&self}, [&] { return way().state() != bus::link_state::opening; }), "opening");
    must(way().state() == bus::link_state::open, "gone: " + way().reason().message());
  }
  // Lives on until it is killed.
  void stay() {
    static_cast<void>(pump_until({&self}, [] { return false; }, {.timeout = 60s}));
  }
  [[nodiscard]] bool hears_the_end() {
    return pump_until({&self}, [&] { return way().state() == bus::link_state::gone; });
  }

  party self;
};

// The ends of a pair before the processes that get them are forked; each forgets the other's.
struct fresh_pair {
  fresh_pair() { std::tie(here, there) = contract::make_pair_of_pipes(); }
  [[nodiscard]] loose_ends take_here() {
    there = {};
    return std::move(here);
  }
  [[nodiscard]] loose_ends take_there() {
    here = {};
    return std::move(there);
  }
  loose_ends here;
  loose_ends there;
};

// An id that nobody has here: who has it has all pipe pages of a user to himself.
void become_somebody() {
  constexpr uid_t somebody = 61'951;
  must(::setgroups(0, nullptr) == 0 && ::setresgid(somebody, somebody, somebody) == 0 &&
           ::setresuid(somebody, somebody, somebody) == 0,
       "setresuid");
  // Forgotten with the old id.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
}

constexpr std::uint64_t usual_pipe_bytes = 64 << 10;

std::uint64_t bytes_of_pipe(int one) {
  return static_cast<std::uint64_t>(::fcntl(one, F_GETPIPE_SZ));
}

// Pipes as large as may be, until a new one is smaller than usual. Without a limit, too many.
std::vector<bus::fd> use_up_pipe_pages() {
  std::vector<bus::fd> all;
  for (int i = 0; i < 200; ++i) {
    std::array<int, 2> ends{};
    must(::pipe2(ends.data(), O_CLOEXEC) == 0, "pipe2");
    for (const int one : ends) all.emplace_back(one);
    if (bytes_of_pipe(ends[0]) < usual_pipe_bytes) break;
    // Not the last ones, for which the rest is too little.
    static_cast<void>(::fcntl(ends[0], F_SETPIPE_SZ, 1 << 20));
  }
  return all;
}

// Sends messages small and large, and hears as many of the other side, which does the same.
void exchange_all(loose_ends ends, bool lends_pages) {
  const std::vector<std::uint64_t> sizes = {0, 1, 100, 4024, 4096, 5000, 70'000, 1 << 20, 64};
  constexpr std::uint64_t burst = 100;  // and these, all at once
  speaker one(std::move(ends), {.lends_pages = lends_pages});
  one.open();
  for (std::uint64_t i = 0; i < sizes.size(); ++i) {
    send_all({&one.self}, one.way(), one.self.make_many(i + 1, 1, sizes[i]));
  }
  send_all({&one.self}, one.way(), one.self.make_many(sizes.size() + 1, burst, 5000));
  const std::uint64_t count = sizes.size() + burst;
  must(pump_until({&one.self}, [&] { return one.self.heard.accepted == count; }), "not all came");
  must(one.self.heard.in_order(), "out of order");
  must(one.self.heard.unproved == 0, "not what was sent");
}

std::vector<std::byte> recorded(std::span<const std::byte> payload, std::uint64_t node) {
  using namespace transports::pipes;
  std::vector<std::byte> bytes;
  const auto append = [&](std::span<const std::byte> more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
  };
  hello_layout hello;
  hello.node = node;
  hello.bytes_max = hello.link_bytes_max = 1 << 20;
  hello.depth = 4;
  append(bytes_of(hello));
  append(bytes_of(message_layout{head_of(word::message, 3),
                                 contract::frame_for(node, node, 1, payload.size())}));
  append(payload);
  return bytes;
}

}  // namespace

TEST_CASE("case 46: a process killed in the middle of a frame has sent no partial message") {
  const bool lends_pages = GENERATE(false, true);
  fresh_pair pair;
  child victim([&](channel& parent) {
    speaker one(pair.take_there(), {.lends_pages = lends_pages});
    one.open();
    send_all({&one.self}, one.way(), one.self.make_many(1, 10, 5000));
    // More than any pipe holds, and nobody reads.
    const bus::sample large = one.self.make(11, 8 << 20);
    must(*one.way().send({&large, 1}) == 1, "send");
    parent.say(1);
    static_cast<void>(parent.hear(60s));
  });
  speaker one(pair.take_here());
  one.open();
  REQUIRE(victim.pipe().hear() == 1);
  victim.kill();
  REQUIRE(one.hears_the_end());
  REQUIRE(victim.wait() == -SIGKILL);
  REQUIRE(pump_until({&one.self}, [&] { return !one.self.heard.departures.empty(); }));
  CHECK(one.way().reason() == bus::errc::gone);
  CHECK(one.self.heard.departures.size() == 1);
  CHECK(one.self.heard.accepted == 10);
  CHECK(one.self.heard.in_order());
  CHECK(one.self.heard.unproved == 0);
}

TEST_CASE("case 46: wherever a pipe ends, whole messages arrive and nothing else") {
  std::vector<std::byte> payload(150);
  contract::fill(payload, 77, 1);
  const auto all = recorded(payload, 77);
  bool whole = false;
  bool torn = false;
  for (std::size_t cut = 0; cut <= all.size(); ++cut) {
    auto [here, there] = contract::make_pair_of_pipes();
    speaker one(std::move(here));
    must(::write(there.out.get(), all.data(), cut) == static_cast<ssize_t>(cut), "write");
    there = {};
    REQUIRE(one.hears_the_end());
    static_cast<void>(
        pump_until({&one.self}, [&] { return one.self.heard.accepted == 1; }, {.timeout = 0ns}));
    torn = torn || one.self.heard.unproved > 0 ||
           (one.self.heard.accepted == 1) != (cut == all.size()) ||
           one.self.heard.departures.size() != one.self.heard.accepted;
    whole = one.self.heard.accepted == 1;
  }
  CHECK_FALSE(torn);
  CHECK(whole);
}

TEST_CASE("case 46: wherever a pipe ends in a series, the messages that are whole arrive") {
  using namespace transports::pipes;
  constexpr std::uint64_t node = 77;
  constexpr std::uint64_t count = 3;
  std::vector<std::byte> all = recorded({}, node);
  all.resize(sizeof(hello_layout));
  std::vector<std::byte> payloads;
  std::vector<std::size_t> ends;
  for (std::uint64_t i = 1; i <= count; ++i) {
    std::vector<std::byte> payload(20 * i);
    contract::fill(payload, node, i);
    const message_layout head{
        head_of(i == count ? word::message : word::more, static_cast<std::uint32_t>(i)),
        contract::frame_for(node, node, i, payload.size())};
    all.insert(all.end(), bytes_of(head).begin(), bytes_of(head).end());
    payloads.insert(payloads.end(), payload.begin(), payload.end());
    ends.push_back(payloads.size());
  }
  const std::size_t begin = all.size();
  all.insert(all.end(), payloads.begin(), payloads.end());
  bool torn = false;
  for (std::size_t cut = sizeof(hello_layout); cut <= all.size(); ++cut) {
    auto [here, there] = contract::make_pair_of_pipes();
    speaker one(std::move(here));
    must(::write(there.out.get(), all.data(), cut) == static_cast<ssize_t>(cut), "write");
    there = {};
    REQUIRE(one.hears_the_end());
    const auto whole = static_cast<std::uint64_t>(std::count_if(
        ends.begin(), ends.end(), [&](std::size_t end) { return begin + end <= cut; }));
    static_cast<void>(
        pump_until({&one.self}, [&] { return one.self.heard.accepted > whole; }, {.timeout = 0ns}));
    torn = torn || one.self.heard.unproved > 0 || one.self.heard.accepted != whole ||
           !one.self.heard.in_order();
  }
  CHECK_FALSE(torn);
}

TEST_CASE("case 47: a child whose parent is killed sees the end, after all that was sent") {
  fresh_pair pair;
  fresh_pair report;
  child parent([&](channel& test) {
    // The grandchild shall outlive the parent, so it is no fault::child.
    if (::fork() == 0) {
      const loose_ends answer = report.take_there();
      speaker one(pair.take_there());
      std::uint64_t said = 0;
      try {
        one.open();
        if (one.hears_the_end()) said = 1000 + one.self.heard.accepted;
      } catch (const std::exception& failure) {
        std::fprintf(stderr, "grandchild: %s\n", failure.what());
      }
      static_cast<void>(!::write(answer.out.get(), &said, sizeof said));
      ::_exit(0);
    }
    report.there = {};
    speaker one(pair.take_here());
    one.open();
    send_all({&one.self}, one.way(), one.self.make_many(1, 20, 3000));
    test.say(1);
    one.stay();
  });
  pair = {};
  const loose_ends answer = report.take_here();
  REQUIRE(parent.pipe().hear() == 1);
  parent.kill();
  pollfd told{answer.in.get(), POLLIN, 0};
  REQUIRE(::poll(&told, 1, 20'000) == 1);
  std::uint64_t said = 0;
  REQUIRE(::read(answer.in.get(), &said, sizeof said) == sizeof said);
  CHECK(said == 1020);
}

TEST_CASE("case 48: both pipes full stop nobody, and all arrives when both read again") {
  const bool lends_pages = GENERATE(false, true);
  constexpr std::uint64_t count = 60;
  const auto speak = [&](loose_ends ends, channel* parent) {
    speaker one(std::move(ends), {.lends_pages = lends_pages});
    one.open();
    // Neither reads while it sends: ten times what the pipes hold, each way.
    const auto batch = one.self.make_many(1, count, 100'000);
    const std::int64_t begun_ns = bus::steady_ns();
    must(*one.way().send(batch) == count, "not taken");
    must(bus::steady_ns() - begun_ns < 5'000'000'000, "send has waited");
    if (parent) {
      parent->say(1);
      must(parent->hear() == 1, "no go");
    }
    must(pump_until({&one.self}, [&] { return one.self.heard.accepted == count; }), "stuck");
    must(one.self.heard.in_order() && one.self.heard.unproved == 0, "damaged");
    one.self.heard.samples.clear();
    must(pump_until({&one.self}, [&] { return one.way().unsettled() == 0; }), "never settled");
  };
  fresh_pair pair;
  child left([&](channel& parent) { speak(pair.take_there(), &parent); });
  child right([&](channel& parent) { speak(pair.take_here(), &parent); });
  pair.here = {};
  pair.there = {};
  // Both are full now.
  REQUIRE(left.pipe().hear() == 1);
  REQUIRE(right.pipe().hear() == 1);
  left.pipe().say(1);
  right.pipe().say(1);
  CHECK(left.wait() == 0);
  CHECK(right.wait() == 0);
}

TEST_CASE("case 48: a peer that does not read fills the link, and the caller's deadline passes") {
  auto [here, there] = contract::make_pair_of_pipes();
  speaker silent(std::move(there), {.depth = 64});
  speaker one(std::move(here), {.depth = 64});
  REQUIRE(pump_until({&one.self, &silent.self}, [&] {
    return one.way().state() == bus::link_state::open &&
           silent.way().state() == bus::link_state::open;
  }));
  const auto batch = one.self.make_many(1, 65, 100'000);
  REQUIRE(*one.way().send(batch) == 64);
  const std::int64_t begun_ns = bus::steady_ns();
  REQUIRE_FALSE(pump_until({&one.self},
                           [&] {
                             return *one.way().send({&batch.back(), 1}) == 1;
                           },
                           {.timeout = 100ms}));
  CHECK(bus::steady_ns() - begun_ns < 5'000'000'000);
  // An open way all the same: it goes on when the peer does.
  REQUIRE(pump_until({&silent.self}, [&] { return silent.self.heard.accepted > 0; }));
  silent.self.heard.samples.clear();
  CHECK(pump_until({&one.self, &silent.self}, [&] {
    silent.self.heard.samples.clear();
    return *one.way().send({&batch.back(), 1}) == 1;
  }));
}

TEST_CASE("case 48: nobody is killed by SIGPIPE, and what was pending before stays pending") {
  const bool lends_pages = GENERATE(false, true);
  const bool can_be_told = GENERATE(true, false);
  child writer([&](channel&) {
    ::signal(SIGPIPE, SIG_DFL);
    // As before Linux 6.18.
    if (!can_be_told) fault::refuse({SYS_pwritev2}, EOPNOTSUPP);
    const auto pending = [] {
      sigset_t set;
      ::sigpending(&set);
      return ::sigismember(&set, SIGPIPE) == 1;
    };
    const auto write_to_nobody = [&] {
      auto [here, there] = contract::make_pair_of_pipes();
      speaker other(std::move(there), {.lends_pages = lends_pages});
      speaker one(std::move(here), {.lends_pages = lends_pages});
      must(pump_until({&one.self, &other.self},
                      [&] { return one.way().state() == bus::link_state::open; }),
           "opening");
      other.self.die();
      // Not told yet, so it writes.
      const auto batch = one.self.make_many(1, 3, 100'000);
      static_cast<void>(one.way().send(batch));
      must(one.way().state() == bus::link_state::gone, "it was not noticed");
    };
    write_to_nobody();
    must(!pending(), "a signal was left behind");
    sigset_t before;
    ::pthread_sigmask(SIG_BLOCK, nullptr, &before);
    must(::sigismember(&before, SIGPIPE) == 0, "the mask has changed");
    sigset_t only;
    ::sigemptyset(&only);
    ::sigaddset(&only, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &only, nullptr);
    ::raise(SIGPIPE);
    write_to_nobody();
    must(pending(), "somebody else's signal was taken");
  });
  CHECK(writer.wait() == 0);
}

TEST_CASE("case 49: a write end leaked into a sibling hides no death") {
  const bool has_descriptors_of_processes = GENERATE(true, false);
  const bool lends_pages = GENERATE(false, true);
  fresh_pair pair;
  child witness([&](channel& test) {
    if (!has_descriptors_of_processes) fault::refuse({SYS_pidfd_open}, EPERM);
    speaker one(pair.take_here(), {.lends_pages = lends_pages});
    one.open();
    must(pump_until({&one.self}, [&] { return one.self.heard.accepted == 5; }), "too few");
    test.say(1);
    must(one.hears_the_end(), "the end was hidden");
    must(pump_until({&one.self}, [&] { return one.self.heard.departures.size() == 1; }), "no left");
    must(one.self.heard.accepted == 6, "not all that was sent");
    must(one.way().reason() == bus::errc::gone, "another reason");
  });
  child peer([&](channel& test) {
    speaker one(pair.take_there(), {.lends_pages = lends_pages});
    one.open();
    send_all({&one.self}, one.way(), one.self.make_many(1, 5, 1000));
    must(test.hear() == 1, "no go");
    send_all({&one.self}, one.way(), one.self.make_many(6, 1, 1000));
    test.say(2);
    static_cast<void>(test.hear(60s));
  });
  // Has all four ends, and never looks at them.
  child sibling([&](channel& test) { static_cast<void>(test.hear(60s)); });
  pair.here = {};
  pair.there = {};
  REQUIRE(witness.pipe().hear() == 1);
  peer.pipe().say(1);
  REQUIRE(peer.pipe().hear() == 2);
  peer.kill();
  CHECK(witness.wait() == 0);
  CHECK(peer.wait() == -SIGKILL);
}

TEST_CASE("case 50: a pipe has one writer, and a second process is told so") {
  fresh_pair pair;
  child first([&](channel& test) {
    speaker one(pair.take_there());
    test.say(1);
    one.stay();
  });
  REQUIRE(first.pipe().hear() == 1);
  child second([&](channel&) {
    party self(transports::pipe(), setup_of({}));
    const auto refused = plug(*self.carrier, pair.take_there());
    must(refused.error() == bus::errc::exists, "a second writer: " + refused.error().message());
  });
  CHECK(second.wait() == 0);
  // Its place is free when it is dead.
  first.kill();
  CHECK(first.wait() == -SIGKILL);
  child third([&](channel&) { speaker one(pair.take_there()); });
  CHECK(third.wait() == 0);
}

TEST_CASE("case 50: frames above PIPE_BUF of two outboxes are whole, since one writer has both") {
  fresh_pair pair;
  constexpr std::uint64_t each = 100;
  child sender([&](channel& receiver) {
    speaker one(pair.take_there());
    one.open();
    const bus::node_id peer{std::stoull(
        one.way().describe().substr(one.way().describe().find("node ") + 5, 16), nullptr, 16)};
    bus::outbox& first = one.way();
    bus::outbox& second = one.self.connect(peer, "pipe:");
    for (std::uint64_t i = 0; i < each; ++i) {
      send_all({&one.self}, first, one.self.make_many(2 * i + 1, 1, 20'001));
      send_all({&one.self}, second, one.self.make_many(2 * i + 2, 1, 9'999));
    }
    must(pump_until({&one.self}, [&] { return first.unsettled() + second.unsettled() == 0; }),
         "never settled");
    receiver.say(1);
  });
  speaker one(pair.take_here());
  one.self.heard.keep = false;
  std::uint64_t next = 1;
  bool in_order = true;
  one.self.heard.on_sample = [&](const bus::sample& heard) {
    in_order = in_order && heard.head().sequence == next++;
  };
  REQUIRE(pump_until({&one.self}, [&] { return sender.pipe().has_news(); }, {.look_every = 5ms}));
  CHECK(one.self.heard.accepted == 2 * each);
  CHECK(in_order);
  CHECK(one.self.heard.unproved == 0);
  CHECK(sender.wait() == 0);
}

TEST_CASE(
    "case 51: a user who has no pipe pages left gets small pipes, and all arrives over them") {
  if (::geteuid() != 0) {
    WARN("not shown: it takes root to become somebody else");
    return;
  }
  const bool lends_pages = GENERATE(false, true);
  child user([&](channel& test) {
    become_somebody();
    const auto hoard = use_up_pipe_pages();
    fresh_pair pair;
    const int out = ::fcntl(pair.here.out.get(), F_DUPFD_CLOEXEC, 0);
    test.say(bytes_of_pipe(out));
    const pid_t other = ::fork();
    if (other == 0) {
      const auto tell = [&](channel&) { exchange_all(pair.take_there(), lends_pages); };
      ::close(out);
      ::_exit(child::run(tell, channel(bus::fd())));
    }
    ::close(out);
    exchange_all(pair.take_here(), lends_pages);
    int status = 0;
    must(::waitpid(other, &status, 0) == other && status == 0, "the child has not heard all");
    test.say(bytes_of_pipe(hoard.back().get()));
  });
  const std::uint64_t given = user.pipe().hear();
  if (given == usual_pipe_bytes) {
    WARN("not shown: there is no limit to a user's pipe pages here");
    return;
  }
  // One page each, or two since Linux 5.14.
  CHECK(given <= 2 * 4096);
  CHECK(user.pipe().hear() == given);
  CHECK(user.wait() == 0);
}

TEST_CASE("case 51: over pipes of one page all arrives, and the pipes stay so") {
  const bool lends_pages = GENERATE(false, true);
  auto [here, there] = contract::make_pair_of_pipes();
  const bus::fd out(::fcntl(there.out.get(), F_DUPFD_CLOEXEC, 0));
  for (const int one : {here.out.get(), there.out.get()}) {
    REQUIRE(::fcntl(one, F_SETPIPE_SZ, 4096) == 4096);
  }
  speaker one(std::move(here), {.lends_pages = lends_pages});
  speaker other(std::move(there), {.lends_pages = lends_pages});
  const contract::parties both = {&one.self, &other.self};
  REQUIRE(pump_until(both, [&] {
    return one.way().state() == bus::link_state::open &&
           other.way().state() == bus::link_state::open;
  }));
  const std::vector<std::uint64_t> sizes = {0, 1, 100, 4024, 4096, 5000, 70'000, 1 << 20};
  for (std::uint64_t i = 0; i < sizes.size(); ++i) {
    send_all(both, one.way(), one.self.make_many(i + 1, 1, sizes[i]));
    send_all(both, other.way(), other.self.make_many(i + 1, 1, sizes[i]));
  }
  REQUIRE(pump_until(both, [&] {
    return one.self.heard.accepted == sizes.size() && other.self.heard.accepted == sizes.size();
  }));
  CHECK(one.self.heard.in_order());
  CHECK(other.self.heard.in_order());
  CHECK(one.self.heard.unproved + other.self.heard.unproved == 0);
  CHECK(::fcntl(out.get(), F_GETPIPE_SZ) == 4096);
}
