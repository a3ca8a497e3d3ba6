// pipe behind the contract: what is written is copied, and pages are lent.
#include "tests/contract/pipe_switchboard.hpp"
#include "tests/contract/world.hpp"
#include "transports/pipe/wire.hpp"

template <bool lends_pages>
struct pipe_case {
  static bus::transport_maker maker() {
    static const auto board = std::make_shared<contract::switchboard>();
    return contract::switched_pipes(board, lends_pages);
  }
  static void prepare(bus::transport_setup&, const std::string&) {}
};
using contract_cases = std::tuple<pipe_case<false>, pipe_case<true>>;
#include "tests/contract/suite.inc"

#include <sys/ioctl.h>
#include <sys/wait.h>

namespace {

using contract::loose_ends;
using contract::make_pair_of_pipes;
using contract::plug;

std::unique_ptr<party> lone_party() {
  return std::make_unique<party>(transports::pipe(), bus::transport_setup{});
}

bool is_open(const bus::fd& one) { return ::fcntl(one.get(), F_GETFD) >= 0; }

std::string numbers(const loose_ends& ends) {
  return "pipe:" + std::to_string(ends.in.get()) + "," + std::to_string(ends.out.get());
}

// Two parties over one pair, both open.
struct couple {
  explicit couple(bool lends_pages = false) {
    auto [here, there] = make_pair_of_pipes();
    add(*one, std::move(here), lends_pages);
    add(*other, std::move(there), lends_pages);
    contract::must(contract::pump_until(both(),
                                        [&] {
                                          return one->ways[0]->state() == link_state::open &&
                                                 other->ways[0]->state() == link_state::open;
                                        }),
                   "never opened");
  }
  static void add(party& to, loose_ends ends, bool lends_pages) {
    auto way = plug(*to.carrier, std::move(ends), {}, lends_pages);
    contract::must(way.has_value(), "plug");
    to.ways.push_back(std::move(*way));
  }
  [[nodiscard]] contract::parties both() const { return {one.get(), other.get()}; }

  std::unique_ptr<party> one = lone_party();
  std::unique_ptr<party> other = lone_party();
};

}  // namespace

TEST_CASE("errors say what is wrong with a pair, and leave it to the caller", "[pipe]") {
  const auto one = lone_party();
  auto [here, there] = make_pair_of_pipes();
  const auto error = [&](const std::string& address) {
    return one->carrier->connect({}, address).error();
  };
  const std::string in = std::to_string(here.in.get());
  const std::string out = std::to_string(here.out.get());
  for (const std::string& bad :
       {std::string("pipe:x"), "pipe:" + in, "pipe:" + in + ",", "pipe:," + out,
        "pipe:" + in + "," + out + ",", "pipe:" + in + "," + out + ",page",
        "pipe:" + in + "@," + out, "pipe:" + in + "@0," + out, "pipe:-1," + out,
        "pipe:99999999999999999999," + out,
        // No descriptor; the wrong ends; two ends of one pipe; no pipe.
        "pipe:" + in + ",9999", "pipe:" + out + "," + in,
        "pipe:" + in + "," + std::to_string(there.out.get()),
        "pipe:" + in + "," + std::to_string(one->doorbell->descriptors()[1])}) {
    CAPTURE(bad);
    CHECK(error(bad) == bus::errc::bad_address);
  }
  CHECK(error("pipe:" + in + "@1," + out) == bus::errc::gone);
  CHECK(error("pipe:") == bus::errc::not_found);
  CHECK(one->carrier->connect(bus::node_id::random(), "pipe:").error() == bus::errc::not_found);
  CHECK(is_open(here.in));
  CHECK(is_open(here.out));
  CHECK((::fcntl(here.out.get(), F_GETFL) & O_NONBLOCK) == 0);
}

TEST_CASE("numbers of descriptors name a pair once, and with its pipes' numbers for good",
          "[pipe]") {
  const auto one = lone_party();
  auto [here, there] = make_pair_of_pipes();
  const int in = here.in.get();
  const int out = here.out.get();
  const std::string by_numbers = numbers(here);
  const std::string by_pipes = *transports::pipe_address({.in = in, .out = out});
  auto way = one->carrier->connect({}, by_numbers);
  REQUIRE(way);
  static_cast<void>(here.in.release());
  static_cast<void>(here.out.release());
  there = {};
  REQUIRE(contract::pump_until({one.get()}, [&] { return (*way)->state() == link_state::gone; }));
  // Somebody else's pipes get the same numbers, and a node calls again where it has called before.
  auto [foreign, rest] = make_pair_of_pipes();
  REQUIRE(::dup2(foreign.in.get(), in) == in);
  REQUIRE(::dup2(foreign.out.get(), out) == out);
  const bus::fd copy_in(in);
  const bus::fd copy_out(out);
  CHECK(one->carrier->connect({}, by_numbers).error() == bus::errc::gone);
  CHECK(one->carrier->connect({}, by_pipes).error() == bus::errc::gone);
  CHECK(is_open(copy_in));
}

TEST_CASE("a second pair to the same peer is refused, and the first one goes on", "[pipe]") {
  couple two;
  auto [here, there] = make_pair_of_pipes();
  couple::add(*two.one, std::move(here), false);
  couple::add(*two.other, std::move(there), false);
  REQUIRE(contract::pump_until(two.both(), [&] {
    return two.one->ways[1]->state() == link_state::gone &&
           two.other->ways[1]->state() == link_state::gone;
  }));
  send_all(two.both(), *two.one->ways[0], two.one->make_many(1, 5, 100));
  REQUIRE(contract::pump_until(two.both(), [&] { return two.other->heard.accepted == 5; }));
  CHECK(two.other->heard.departures.empty());
}

TEST_CASE("a pair that is plugged in already is refused, and still the caller's", "[pipe]") {
  auto [here, there] = make_pair_of_pipes();
  const loose_ends copy{bus::fd(::fcntl(here.in.get(), F_DUPFD_CLOEXEC, 0)),
                        bus::fd(::fcntl(here.out.get(), F_DUPFD_CLOEXEC, 0))};
  const auto one = lone_party();
  couple::add(*one, std::move(here), false);
  CHECK(one->carrier->connect({}, numbers(copy)).error() == bus::errc::exists);
  CHECK(is_open(copy.in));
  CHECK(is_open(copy.out));
  CHECK(one->ways[0]->state() == link_state::opening);
}

TEST_CASE("a way ends when the last outbox of a pair lets go, and may begin again", "[pipe]") {
  couple two;
  bus::outbox& second = two.one->connect(two.other->id, "pipe:");
  REQUIRE(second.state() == link_state::open);
  send_all(two.both(), *two.one->ways[0], two.one->make_many(1, 1, 100));
  send_all(two.both(), second, two.one->make_many(2, 2, 100));
  REQUIRE(contract::pump_until(two.both(), [&] { return two.other->heard.accepted == 3; }));
  forget(*two.other);
  REQUIRE(contract::pump_until(
      two.both(), [&] { return two.one->ways[0]->unsettled() + second.unsettled() == 0; }));
  two.one->ways.erase(two.one->ways.begin());
  send_all(two.both(), second, two.one->make_many(4, 1, 100));
  REQUIRE(contract::pump_until(two.both(), [&] { return two.other->heard.accepted == 4; }));
  CHECK(two.other->heard.departures.empty());
  two.one->ways.clear();
  REQUIRE(contract::pump_until(two.both(), [&] { return !two.other->heard.departures.empty(); }));
  CHECK(two.other->heard.departures[0].reason == bus::errc::closed);
  send_all(two.both(), two.one->connect(two.other->id, "pipe:"), two.one->make_many(5, 1, 100));
  REQUIRE(contract::pump_until(two.both(), [&] { return two.other->heard.accepted == 5; }));
  CHECK(two.other->heard.departures.size() == 1);
}

TEST_CASE("what is lent together goes as LAYOUT.md says: heads first, then payloads", "[pipe]") {
  using namespace transports::pipes;
  constexpr std::size_t count = 3;
  auto [here, there] = make_pair_of_pipes();
  const auto one = lone_party();
  couple::add(*one, std::move(here), true);
  hello_layout hello;
  hello.node = 5;
  hello.bytes_max = hello.link_bytes_max = 1 << 20;
  hello.depth = 8;
  REQUIRE(::write(there.out.get(), &hello, sizeof hello) == sizeof hello);
  REQUIRE(
      contract::pump_until({one.get()}, [&] { return one->ways[0]->state() == link_state::open; }));
  REQUIRE(*one->ways[0]->send(one->make_many(1, count, 5000)) == count);
  std::vector<std::byte> said(sizeof hello + count * (sizeof(message_layout) + 5000));
  REQUIRE(::read(there.in.get(), said.data(), said.size()) == static_cast<ssize_t>(said.size()));
  auto rest = std::span<const std::byte>(said).subspan(sizeof hello);
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto head = read<message_layout>(rest);
    CHECK(head.head.kind == (i + 1 < count ? 4 : 1));
    CHECK(head.head.value == i);
    CHECK(head.frame.sequence == i + 1);
    CHECK(head.frame.bytes == 5000);
    rest = rest.subspan(sizeof head);
  }
  for (std::uint64_t sequence = 1; sequence <= count; ++sequence) {
    std::vector<std::byte> payload(5000);
    contract::fill(payload, one->id.value, sequence);
    CHECK(std::equal(payload.begin(), payload.end(), rest.begin()));
    rest = rest.subspan(payload.size());
  }
}

TEST_CASE("a stream that nobody follows up arrives, though its node does not turn", "[pipe]") {
  const bool lends_pages = GENERATE(false, true);
  const std::size_t bytes = GENERATE(64, 5000);
  // At once; and so that the courier comes while the stream goes on.
  const std::int64_t apart_ns = GENERATE(0, 2'000);
  // Not a whole number of writes; and the pipe has room, so that nothing but time is waited for.
  const std::size_t count = bytes == 64 ? 137 : 37;
  couple two(lends_pages);
  bus::outbox& way = *two.one->ways[0];
  std::uint64_t sent = 0;
  for (int round = 0; round < 20; ++round) {
    std::size_t taken = 0;
    for (const bus::sample& one : two.one->make_many(sent + 1, count, bytes)) {
      for (const auto from = bus::steady_ns(); bus::steady_ns() - from < apart_ns;) continue;
      taken += way.send({&one, 1}).value_or(0);
    }
    REQUIRE(taken == count);
    sent += count;
    REQUIRE(
        contract::pump_until({two.other.get()}, [&] { return two.other->heard.accepted == sent; }));
    forget(*two.other);
    static_cast<void>(two.other->step());
    REQUIRE(contract::pump_until(two.both(), [&] { return way.unsettled() == 0; }));
  }
  CHECK(two.other->heard.unproved == 0);
}

TEST_CASE("a forked child that lets go of its copies harms nobody", "[pipe]") {
  couple two(true);
  const pid_t child = ::fork();
  if (child == 0) {
    const bool refused =
        two.one->carrier->connect(two.other->id, "pipe:").error() == bus::errc::closed;
    two.one.reset();
    two.other.reset();
    ::_exit(refused ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  send_all(two.both(), *two.one->ways[0], two.one->make_many(1, 10, 50'000));
  REQUIRE(contract::pump_until(two.both(), [&] { return two.other->heard.accepted == 10; }));
  CHECK(two.other->heard.unproved == 0);
  CHECK(two.other->heard.departures.empty());
}

TEST_CASE("pages that nobody has read when the transport ends are taken back", "[pipe]") {
  // A copy of the reading end shows what is left in the pipe.
  auto [here, there] = make_pair_of_pipes();
  const bus::fd late(::fcntl(there.in.get(), F_DUPFD_CLOEXEC, 0));
  const auto lender = lone_party();
  const auto stopped = lone_party();
  couple::add(*lender, std::move(here), true);
  couple::add(*stopped, std::move(there), true);
  REQUIRE(contract::pump_until({lender.get(), stopped.get()}, [&] {
    return lender->ways[0]->state() == link_state::open &&
           stopped->ways[0]->state() == link_state::open;
  }));
  const auto large = lender->make_many(1, 2, 200'000);
  REQUIRE(*lender->ways[0]->send(large) == 2);
  const std::int64_t begun_ns = bus::steady_ns();
  lender->die();
  CHECK(bus::steady_ns() - begun_ns < 5'000'000'000);
  CHECK(all_unique(large));
  int unread = -1;
  REQUIRE(::ioctl(late.get(), FIONREAD, &unread) == 0);
  CHECK(unread == 0);
}
