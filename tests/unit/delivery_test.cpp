// Backpressure as its users see it (docs/delivery.md): a subscription that blocks loses nothing to
// a publisher that waits, costs nobody else a message, and is not waited for longer than it asked.
// One thread turns all nodes, so that what stands still does so because the test says so.
#include "bus/bus.hpp"
#include "tests/scratch.hpp"
#include "transports/inproc/inproc.hpp"
#include "transports/shm/shm.hpp"
#include "transports/zmq/zmq.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

struct reading {
  std::uint64_t number;
};

constexpr auto patience = 30s;
// Longer than any test: whoever is waited for so long is waited for.
constexpr std::chrono::nanoseconds for_ever = 1h;

// Nodes of one bus directory, over one transport alone.
class bench {
 public:
  explicit bench(const std::string& scheme) : scheme_(scheme) {}

  bus::node make(const std::string& name, asio::io_context* context = nullptr) const {
    return make(bus::node_options{.name = name, .transports = {}, .context = context});
  }
  bus::node make(bus::node_options options) const {
    options.directory = scratch_.path();
    if (scheme_ == "inproc") options.transports = {transports::inproc()};
    if (scheme_ == "shm") options.transports = {transports::shm()};
    if (scheme_ == "zmq") {
      options.transports = {transports::zmq()};
      options.listen = {"tcp://127.0.0.1:*"};
    }
    return bus::node(std::move(options));
  }
  [[nodiscard]] const std::string& directory() const { return scratch_.path(); }

 private:
  tests::scratch_directory scratch_;
  std::string scheme_;
};

std::string any_scheme() { return GENERATE(std::string("inproc"), "shm", "zmq"); }

template <class Done>
bool turn(std::initializer_list<bus::node*> all, Done&& done) {
  const auto until = bus::deadline::after(patience);
  while (!done()) {
    if (until.passed()) return false;
    for (bus::node* one : all) one->run_for(100us);
  }
  return true;
}

// The publisher's books about a subscription that blocks: the only one, or the sum of all.
bus::ledger_entry gate_of(const bench& world, bus::node_id publisher) {
  const bus::fd opened(::open(world.directory().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto books = bus::read_ledger(opened.get(), publisher);
  REQUIRE(books);
  for (const bus::ledger_entry& row : books->entries) {
    if (row.kind == bus::row_kind::gate) return row;
  }
  FAIL("no row for a gate");
  return {};
}

// The next `count` numbers, or those that came in time. Turns the subscriber's node.
std::vector<std::uint64_t> collect(bus::subscriber<reading>& from, std::uint64_t count) {
  std::vector<std::uint64_t> numbers;
  const auto until = bus::deadline::after(patience);
  while (numbers.size() < count && !until.passed()) {
    if (const auto one = from.take(1ms)) numbers.push_back((*one)->number);
  }
  return numbers;
}

// Those that are here.
std::vector<std::uint64_t> drain(bus::subscriber<reading>& from) {
  return collect(from, from.accounts().queued);
}

std::vector<std::uint64_t> from_to(std::uint64_t first, std::uint64_t last) {
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t i = first; i <= last; ++i) numbers.push_back(i);
  return numbers;
}

constexpr bus::subscription_options blocking(std::uint32_t depth,
                                             std::chrono::nanoseconds block_for = for_ever) {
  return {.depth = depth, .when_full = bus::drop::none, .block_for = block_for};
}

// Whether the kernel has this thread of ours asleep.
bool sleeps(pid_t thread) {
  std::ifstream words("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string line;
  std::getline(words, line);
  const auto name_ends = line.rfind(") ");
  return name_ends != std::string::npos && line[name_ends + 2] == 'S';
}

// Publishes 1, 2, 3 ... until a subscription has no place; returns how many it had places for.
std::uint64_t fill(bus::publisher<reading>& numbers) {
  std::uint64_t sent = 0;
  while (numbers.has_room()) {
    REQUIRE(numbers.publish({++sent}));
    REQUIRE(sent < 10'000);
  }
  return sent;
}

}  // namespace

TEST_CASE("a slow subscription that blocks loses nothing to a publisher that waits") {
  const bench world(any_scheme());
  constexpr std::uint64_t count = 3000;
  constexpr std::uint32_t depth = 16;
  bus::accounts books;
  std::uint64_t most = 0;
  std::uint64_t taken = 0;
  std::jthread reader([&] {
    bus::node node = world.make("reader");
    auto heard = node.subscribe<reading>("numbers", blocking(depth));
    while (taken < count) {
      const auto one = heard.take(patience);
      if (!one || (*one)->number != ++taken) break;
      most = std::max(most, heard.accounts().queued);
      if (taken % 100 == 0) std::this_thread::sleep_for(1ms);  // it is slow; nothing waits for this
    }
    books = heard.accounts();
  });
  bus::node node = world.make("writer");
  auto numbers = node.advertise<reading>("numbers");
  REQUIRE(numbers.wait_matched(1, patience));
  for (std::uint64_t i = 1; i <= count; ++i) {
    const auto outcome = numbers.publish_wait({i}, patience);
    REQUIRE(outcome);
    REQUIRE(outcome.taken == 1);
  }
  const auto row = gate_of(world, node.id());
  reader.join();
  CHECK(taken == count);
  CHECK(books.expected == count);
  CHECK(books.delivered == count);
  CHECK(books.lost_in_all() == 0);
  CHECK(most < depth);
  CHECK(row.counts[bus::column::gate_waits] > 0);
  CHECK(row.counts[bus::column::gate_waited_ns] > 0);
  CHECK(row.counts[bus::column::gate_since_ns] == 0);
  CHECK(row.counts[bus::column::gate_missed] == 0);
}

TEST_CASE("publish_wait waits for memory that subscribers hold") {
  const bench world(GENERATE(std::string("inproc"), "shm"));
  constexpr std::uint64_t memory = 8 << 20;
  const std::vector<std::byte> large(memory / 4);
  bus::node reader = world.make("reader");
  bus::node_options about{.name = "writer", .transports = {}};
  about.memory_bytes_max = memory;
  bus::node writer = world.make(std::move(about));
  auto heard = reader.subscribe<bus::raw>("images");
  auto images = writer.advertise<bus::raw>("images");
  REQUIRE(turn({&reader, &writer}, [&] { return images.matched() == 1; }));
  std::vector<bus::received<bus::raw>> kept;
  for (bool all = false; !all;) {
    const auto outcome = images.publish_wait(large, 0ns);
    all = outcome.error == bus::errc::no_memory;
    REQUIRE((all || outcome.taken == 1));
    REQUIRE(kept.size() < 8);
    if (all) continue;
    auto one = heard.take(patience);
    REQUIRE(one);
    kept.push_back(std::move(*one));
  }
  REQUIRE(kept.size() >= 2);
  const std::uint64_t sent = images.sequence();
  REQUIRE(sent == kept.size());
  CHECK(images.publish_wait(large, 10ms).error == bus::errc::no_memory);
  CHECK(images.sequence() == sent);

  const auto publisher = static_cast<pid_t>(::syscall(SYS_gettid));
  std::atomic<bool> is_late = false;
  std::jthread holder([&] {
    const auto until = bus::deadline::after(patience);
    while (!sleeps(publisher) && !until.passed()) std::this_thread::yield();
    is_late = until.passed();
    kept.pop_back();
  });
  CHECK(images.publish_wait(large, for_ever).taken == 1);
  CHECK_FALSE(is_late);
  CHECK(images.sequence() == sent + 1);
}

TEST_CASE("publish_wait waits until a network link has room for so many bytes") {
  const bench world("zmq");
  // Three of these are more than may be on the way (transport_setup::link_bytes_max).
  const std::vector<std::byte> large(90 << 20);
  constexpr std::uint64_t count = 5;
  bus::accounts books;
  std::jthread reader([&] {
    bus::node node = world.make("reader");
    auto heard = node.subscribe<bus::raw>("images", blocking(8));
    for (std::uint64_t i = 0; i < count; ++i) {
      if (!heard.take(patience)) break;
    }
    books = heard.accounts();
  });
  bus::node node = world.make("writer");
  auto images = node.advertise<bus::raw>("images");
  REQUIRE(images.wait_matched(1, patience));
  for (std::uint64_t i = 1; i <= count; ++i) {
    const auto outcome = images.publish_wait(large, patience);
    REQUIRE(outcome);
    REQUIRE(outcome.taken == 1);
  }
  while (images.backlog() > 0) node.run_for(1ms);
  reader.join();
  CHECK(books.delivered == count);
  CHECK(books.lost_in_all() == 0);
}

TEST_CASE("a coroutine waits for room, and nothing is lost") {
  const bench world(any_scheme());
  constexpr std::uint64_t count = 1000;
  asio::io_context loop(1);
  bus::node reader = world.make("reader", &loop);
  bus::node writer = world.make("writer", &loop);
  auto heard = reader.subscribe<reading>("numbers", blocking(8));
  auto numbers = writer.advertise<reading>("numbers");
  std::uint64_t taken = 0;
  const auto publish = [&]() -> asio::awaitable<void> {
    asio::steady_timer timer(loop);
    while (numbers.matched() == 0) {
      timer.expires_after(1ms);
      co_await timer.async_wait(asio::use_awaitable);
    }
    for (std::uint64_t i = 1; i <= count; ++i) {
      if (!co_await numbers.room() || !numbers.publish({i})) std::abort();
    }
  };
  const auto follow = [&]() -> asio::awaitable<void> {
    while (taken < count) {
      const auto one = co_await heard.next();
      if (one->number != ++taken) std::abort();
    }
    loop.stop();
  };
  asio::co_spawn(loop, publish(), asio::detached);
  asio::co_spawn(loop, follow(), asio::detached);
  loop.run_for(patience);
  CHECK(taken == count);
  CHECK(heard.accounts().lost_in_all() == 0);
  CHECK(gate_of(world, writer.id()).counts[bus::column::gate_waits] > 0);
}

TEST_CASE("publish waits for nobody: it says who had no place, and all others get everything") {
  const bench world(any_scheme());
  bus::node stuck = world.make("stuck");
  bus::node free = world.make("free");
  bus::node writer = world.make("writer");
  constexpr std::uint32_t depth = 8;
  constexpr std::uint64_t count = 500;
  auto blocked = stuck.subscribe<reading>("numbers", blocking(depth));
  auto heard = free.subscribe<reading>("numbers", {.depth = 2 * count});
  auto numbers = writer.advertise<reading>("numbers");
  REQUIRE(turn({&stuck, &free, &writer}, [&] { return numbers.matched() == 2; }));
  std::uint64_t missed = 0;
  for (std::uint64_t i = 1; i <= count; ++i) {
    const auto outcome = numbers.publish({i});
    REQUIRE_FALSE(outcome.error);
    missed += outcome.blocked;
    REQUIRE((outcome.blocked == 0 || outcome.by == stuck.id()));
    REQUIRE(outcome.taken == 2 - outcome.blocked);
    REQUIRE(static_cast<bool>(outcome) == (outcome.blocked == 0));
    // The one that is free has it before the next one is published.
    REQUIRE(
        turn({&free}, [&] { return heard.accounts().delivered + heard.accounts().queued == i; }));
  }
  CHECK(missed == count - depth / 2);  // of its places, half are kept for other publishers
  CHECK(collect(heard, count) == from_to(1, count));
  CHECK(heard.accounts().balanced());
  CHECK(gate_of(world, writer.id()).counts[bus::column::gate_missed] == missed);

  // It goes on: what it missed is charged, and what comes now arrives.
  CHECK(collect(blocked, depth / 2) == from_to(1, depth / 2));
  REQUIRE(turn({&stuck, &writer}, [&] { return blocked.accounts().expected == count; }));
  const auto books = blocked.accounts();
  CHECK(books.balanced());
  CHECK(books.lost_by(bus::loss::queue_full) == missed);
  CHECK(books.lost_in_all() == missed);
  REQUIRE(numbers.has_room());
  REQUIRE(numbers.publish({count + 1}));
  CHECK(collect(blocked, 1) == from_to(count + 1, count + 1));
}

TEST_CASE("publish_wait that timed out has done nothing, so that it can be tried again") {
  const bench world(any_scheme());
  bus::node first = world.make("first");
  bus::node second = world.make("second");
  bus::node third = world.make("third");
  bus::node writer = world.make("writer");
  auto roomy = first.subscribe<reading>("numbers", blocking(64));
  auto narrow = second.subscribe<reading>("numbers", blocking(4));
  auto free = third.subscribe<reading>("numbers");
  auto numbers = writer.advertise<reading>("numbers");
  REQUIRE(turn({&first, &second, &third, &writer}, [&] { return numbers.matched() == 3; }));
  const std::uint64_t sent = fill(numbers);
  for (int i = 0; i < 3; ++i) {
    const auto outcome = numbers.publish_wait({sent + 1}, i * 1ms);
    REQUIRE(outcome.error == bus::errc::timed_out);
    REQUIRE(outcome.blocked == 1);
    REQUIRE(outcome.by == second.id());
    REQUIRE(outcome.taken == 0);
    REQUIRE(numbers.sequence() == sent);
  }
  CHECK(collect(narrow, sent) == from_to(1, sent));
  REQUIRE(turn({&second, &writer}, [&] { return numbers.has_room(); }));
  REQUIRE(numbers.publish_wait({sent + 1}, 0ns).taken == 3);
  CHECK(collect(roomy, sent + 1) == from_to(1, sent + 1));
  CHECK(collect(narrow, 1) == from_to(sent + 1, sent + 1));
  CHECK(collect(free, sent + 1) == from_to(1, sent + 1));
  for (bus::subscriber<reading>* one : {&roomy, &narrow, &free}) {
    CHECK(one->accounts().expected == sent + 1);
    CHECK(one->accounts().lost_in_all() == 0);
  }
}

TEST_CASE("who stands still is waited for once, as long as it asked, and what it misses expired") {
  const bench world(any_scheme());
  bus::node stuck = world.make("stuck");
  bus::node writer = world.make("writer");
  constexpr auto block_for = 50ms;
  auto blocked = stuck.subscribe<reading>("numbers", blocking(8, block_for));
  auto numbers = writer.advertise<reading>("numbers");
  REQUIRE(turn({&stuck, &writer}, [&] { return numbers.matched() == 1; }));
  const std::int64_t begun_ns = bus::steady_ns();
  const std::uint64_t sent = fill(numbers);
  const auto outcome = numbers.publish_wait({sent + 1}, patience);
  CHECK_FALSE(outcome.error);
  CHECK(outcome.blocked == 1);
  CHECK(outcome.taken == 0);
  CHECK(bus::steady_ns() - begun_ns >= std::chrono::nanoseconds(block_for).count());
  constexpr std::uint64_t more = 100;
  for (std::uint64_t i = 2; i <= more; ++i) {
    REQUIRE(numbers.has_room());
    REQUIRE(numbers.publish_wait({sent + i}, patience).blocked == 1);
  }
  const auto row = gate_of(world, writer.id());
  CHECK(row.counts[bus::column::gate_waits] == 1);
  CHECK(row.counts[bus::column::gate_lapsed] == 1);
  CHECK(row.counts[bus::column::gate_expired] == more);
  CHECK(row.counts[bus::column::gate_missed] == more);

  CHECK(collect(blocked, sent) == from_to(1, sent));
  REQUIRE(turn({&stuck, &writer}, [&] { return blocked.accounts().expected == sent + more; }));
  CHECK(blocked.accounts().lost_by(bus::loss::expired) == more);
  CHECK(blocked.accounts().lost_in_all() == more);
  CHECK(blocked.accounts().balanced());
  // It is waited for again.
  const std::uint64_t again = fill(numbers);
  CHECK(again > 0);
  CHECK(numbers.publish_wait({0}, 0ns).error == bus::errc::timed_out);
  CHECK(gate_of(world, writer.id()).counts[bus::column::gate_waits] == 2);
  REQUIRE(turn({&stuck, &writer}, [&] { return blocked.accounts().queued == again; }));
  CHECK(blocked.accounts().lost_in_all() == more);
}

TEST_CASE("a wait that begins with publish_wait ends with the subscription's deadline") {
  const bench world(any_scheme());
  bus::node stuck = world.make("stuck");
  bus::node writer = world.make("writer");
  auto blocked = stuck.subscribe<reading>("numbers", blocking(2, 10ms));
  auto numbers = writer.advertise<reading>("numbers");
  REQUIRE(turn({&stuck, &writer}, [&] { return numbers.matched() == 1; }));
  REQUIRE(numbers.publish({1}));
  // It sleeps meanwhile, and nobody would wake it.
  REQUIRE(numbers.publish_wait({2}, for_ever).blocked == 1);
  REQUIRE(numbers.wait_room(for_ever));
}

TEST_CASE("a full subscription that blocks delays no other of its node, on its topic or another") {
  const bench world(any_scheme());
  bus::node reader = world.make("reader");
  bus::node writer = world.make("writer");
  constexpr std::uint64_t count = 900;
  auto blocked = reader.subscribe<reading>("numbers", blocking(4));
  auto same = reader.subscribe<reading>("numbers", {.depth = 2 * count});
  auto other = reader.subscribe<reading>("letters", {.depth = 2 * count});
  auto numbers = writer.advertise<reading>("numbers");
  auto letters = writer.advertise<reading>("letters");
  REQUIRE(
      turn({&reader, &writer}, [&] { return numbers.matched() == 1 && letters.matched() == 1; }));
  for (std::uint64_t i = 1; i <= count; ++i) {
    REQUIRE(numbers.publish({i}).taken == 1);
    REQUIRE(letters.publish_wait({i}, 0ns));
    REQUIRE(letters.has_room());
    // Nobody takes from the one that blocks.
    if (i % 100 != 0) continue;
    REQUIRE(turn({&reader, &writer}, [&] { return other.accounts().queued == i; }));
    REQUIRE(same.accounts().queued == i);
  }
  CHECK_FALSE(numbers.has_room());
  CHECK(collect(same, count) == from_to(1, count));
  CHECK(collect(other, count) == from_to(1, count));
  CHECK(blocked.accounts().queued <= 4);
  CHECK(blocked.accounts().balanced());
  const auto got = drain(blocked);
  CHECK(got == from_to(1, got.size()));
  CHECK(blocked.accounts().lost_by(bus::loss::queue_full) == count - got.size());
}

TEST_CASE("a link that other topics have filled is waited for once, too") {
  const bench world(any_scheme());
  bus::node stuck = world.make("stuck");
  bus::node writer = world.make("writer");
  auto blocked = stuck.subscribe<reading>("numbers", blocking(8, 20ms));
  auto other = stuck.subscribe<reading>("letters", {.depth = 4096});
  auto numbers = writer.advertise<reading>("numbers");
  auto letters = writer.advertise<reading>("letters");
  REQUIRE(
      turn({&stuck, &writer}, [&] { return numbers.matched() == 1 && letters.matched() == 1; }));
  std::uint64_t sent = 0;
  while (letters.publish({sent + 1}).taken == 1) {
    REQUIRE(++sent < 10'000);
  }
  constexpr std::uint64_t count = 50;
  for (std::uint64_t i = 1; i <= count; ++i) {
    REQUIRE(numbers.publish_wait({i}, patience).blocked == 1);
  }
  CHECK(gate_of(world, writer.id()).counts[bus::column::gate_waits] == 1);
  CHECK(gate_of(world, writer.id()).counts[bus::column::gate_missed] == count);
  REQUIRE(turn({&stuck, &writer}, [&] {
    return blocked.accounts().expected == count && other.accounts().expected == sent + 1;
  }));
  CHECK(blocked.accounts().lost_in_all() == count);
  CHECK(other.accounts().queued == sent);
  CHECK(other.accounts().lost_in_all() == 1);
  REQUIRE(turn({&stuck, &writer}, [&] { return numbers.has_room(); }));
  REQUIRE(numbers.publish_wait({count + 1}, 0ns));
  CHECK(collect(blocked, 1) == from_to(count + 1, count + 1));
}

TEST_CASE("a subscription that ends lets go of the publisher that waits for it") {
  const bench world(any_scheme());
  asio::io_context loop(1);
  bus::node reader = world.make("reader", &loop);
  bus::node writer = world.make("writer", &loop);
  std::optional<bus::subscriber<reading>> blocked(
      reader.subscribe<reading>("numbers", blocking(4)));
  auto numbers = writer.advertise<reading>("numbers");
  std::optional<bool> came;
  const auto publish = [&]() -> asio::awaitable<void> {
    asio::steady_timer timer(loop);
    while (numbers.matched() == 0) {
      timer.expires_after(1ms);
      co_await timer.async_wait(asio::use_awaitable);
    }
    static_cast<void>(fill(numbers));
    asio::post(loop, [&] { blocked.reset(); });
    came = co_await numbers.room();
    loop.stop();
  };
  asio::co_spawn(loop, publish(), asio::detached);
  loop.run_for(patience);
  REQUIRE(came);
  CHECK(*came);
}

TEST_CASE("a publisher that ends while somebody waits for its room says so") {
  const bench world(any_scheme());
  asio::io_context loop(1);
  bus::node reader = world.make("reader", &loop);
  bus::node writer = world.make("writer", &loop);
  auto blocked = reader.subscribe<reading>("numbers", blocking(4));
  auto numbers = std::make_unique<bus::publisher<reading>>(writer.advertise<reading>("numbers"));
  std::vector<bool> came;
  const auto wait = [&]() -> asio::awaitable<void> {
    came.push_back(co_await numbers->room());
    if (came.size() == 3) loop.stop();
  };
  const auto publish = [&]() -> asio::awaitable<void> {
    asio::steady_timer timer(loop);
    while (numbers->matched() == 0) {
      timer.expires_after(1ms);
      co_await timer.async_wait(asio::use_awaitable);
    }
    // Places may come one after the other.
    for (std::uint64_t sent = fill(*numbers); sent < 4; sent += fill(*numbers)) {
      timer.expires_after(1ms);
      co_await timer.async_wait(asio::use_awaitable);
    }
    for (int i = 0; i < 3; ++i) asio::co_spawn(loop, wait(), asio::detached);
    asio::post(loop, [&] { numbers.reset(); });
  };
  asio::co_spawn(loop, publish(), asio::detached);
  loop.run_for(patience);
  CHECK(came == std::vector<bool>{false, false, false});
}

TEST_CASE("a publisher that a callback ends while it waits has published nothing") {
  const bench world("shm");
  bus::node reader = world.make("reader");
  bus::node writer = world.make("writer");
  auto blocked = reader.subscribe<reading>("numbers", blocking(4));
  auto numbers = std::make_unique<bus::publisher<reading>>(writer.advertise<reading>("numbers"));
  auto orders = reader.advertise<reading>("orders");
  const auto obeying =
      writer.subscribe<reading>("orders", [&](const bus::received<reading>&) { numbers.reset(); });
  REQUIRE(
      turn({&reader, &writer}, [&] { return numbers->matched() == 1 && orders.matched() == 1; }));
  const std::uint64_t sent = fill(*numbers);
  REQUIRE(orders.publish({1}));
  CHECK(numbers->publish_wait({sent + 1}, patience).error == bus::errc::closed);
  CHECK(numbers == nullptr);
  REQUIRE(turn({&reader, &writer}, [&] { return blocked.matched() == 0; }));
  CHECK(collect(blocked, sent) == from_to(1, sent));
  CHECK(blocked.accounts().balanced());
}

TEST_CASE("of several publishers of a node, only the one that is blocked waits") {
  const bench world(any_scheme());
  bus::node reader = world.make("reader");
  bus::node writer = world.make("writer");
  auto blocked = reader.subscribe<reading>("numbers/a", blocking(4));
  auto open = reader.subscribe<reading>("numbers/b", blocking(4));
  auto a = writer.advertise<reading>("numbers/a");
  auto b = writer.advertise<reading>("numbers/b");
  REQUIRE(turn({&reader, &writer}, [&] { return a.matched() == 1 && b.matched() == 1; }));
  REQUIRE(turn({&reader, &writer}, [&] {
    static_cast<void>(fill(a));
    return blocked.accounts().queued == 4;
  }));
  for (std::uint64_t i = 1; i <= 200; ++i) {
    REQUIRE(a.publish_wait({0}, 0ns).error == bus::errc::timed_out);
    REQUIRE(turn({&reader, &writer}, [&] { return b.has_room(); }));
    REQUIRE(b.publish_wait({i}, 0ns));
    REQUIRE(collect(open, 1) == from_to(i, i));
  }
  CHECK(open.accounts().lost_in_all() == 0);
}

TEST_CASE("a subscription that comes late blocks from its first message on") {
  const bench world(any_scheme());
  bus::node early = world.make("early");
  bus::node late = world.make("late");
  bus::node writer = world.make("writer");
  auto free = early.subscribe<reading>("numbers");
  auto numbers = writer.advertise<reading>("numbers");
  REQUIRE(turn({&early, &writer}, [&] { return numbers.matched() == 1; }));
  for (std::uint64_t i = 1; i <= 10; ++i) REQUIRE(numbers.publish({i}));
  REQUIRE(turn({&early}, [&] { return free.accounts().queued == 10; }));
  // One where nobody was, and one beside another.
  auto apart = late.subscribe<reading>("**", blocking(8));
  auto beside = early.subscribe<reading>("*", blocking(8));
  REQUIRE(turn({&early, &late, &writer}, [&] {
    return apart.matched() == 1 && beside.matched() == 1 && numbers.matched() == 2;
  }));
  const std::uint64_t first = numbers.sequence() + 1;
  std::uint64_t last = first;
  std::vector<std::uint64_t> to_apart;
  std::vector<std::uint64_t> to_beside;
  const auto take_all = [&] {
    for (const auto one : drain(apart)) to_apart.push_back(one);
    for (const auto one : drain(beside)) to_beside.push_back(one);
  };
  for (; last < first + 100; ++last) {
    const bool came = turn({&early, &late, &writer}, [&] {
      if (numbers.publish_wait({last}, 0ns)) return true;
      take_all();
      return false;
    });
    REQUIRE(came);
  }
  REQUIRE(turn({&early, &late, &writer}, [&] {
    take_all();
    return to_apart.size() == 100 && to_beside.size() == 100;
  }));
  CHECK(to_apart == from_to(first, last - 1));
  CHECK(to_beside == from_to(first, last - 1));
  CHECK(apart.accounts().lost_in_all() == 0);
  CHECK(beside.accounts().lost_in_all() == 0);
}

TEST_CASE("several publishers share the places of one subscription, and none is starved") {
  const bench world(any_scheme());
  constexpr std::size_t publishers = 12;
  constexpr std::uint64_t count = 60;
  constexpr std::uint32_t depth = 4;
  bus::node reader = world.make("reader");
  bus::node writer = world.make("writer");
  auto blocked = reader.subscribe<reading>("numbers/*", blocking(depth));
  std::vector<bus::publisher<reading>> all;
  for (std::size_t i = 0; i < publishers; ++i) {
    all.push_back(writer.advertise<reading>("numbers/" + std::to_string(i)));
  }
  // The first one never publishes, and keeps what it is granted.
  std::vector<std::uint64_t> next(publishers, 1);
  next[0] = count + 1;
  std::vector<std::uint64_t> last(publishers, 0);
  std::uint64_t taken = 0;
  REQUIRE(turn({&reader, &writer}, [&] {
    return std::all_of(all.begin(), all.end(), [](auto& one) { return one.matched() == 1; });
  }));
  REQUIRE(turn({&reader, &writer}, [&] {
    for (std::size_t i = 0; i < publishers; ++i) {
      if (next[i] <= count && all[i].publish_wait({i * 1000 + next[i]}, 0ns)) ++next[i];
    }
    REQUIRE(blocked.accounts().queued <= depth + publishers);
    if (const auto one = blocked.try_take()) {
      ++taken;
      const std::uint64_t number = (*one)->number;
      REQUIRE(++last[number / 1000] == number % 1000);
    }
    return taken == (publishers - 1) * count;
  }));
  CHECK(blocked.accounts().lost_in_all() == 0);
  CHECK(blocked.accounts().balanced());
}

TEST_CASE("callbacks block, too: what they are not ready for waits at the publisher") {
  const bench world(any_scheme());
  constexpr std::uint64_t count = 500;
  bus::node reader = world.make("reader");
  bus::node writer = world.make("writer");
  std::uint64_t last = 0;
  const auto heard = reader.subscribe<reading>(
      "numbers", [&](const bus::received<reading>& one) { REQUIRE(one->number == ++last); },
      blocking(4));
  auto numbers = writer.advertise<reading>("numbers");
  REQUIRE(turn({&reader, &writer}, [&] { return numbers.matched() == 1; }));
  std::uint64_t next = 1;
  REQUIRE(turn({&reader, &writer}, [&] {
    while (next <= count && numbers.publish_wait({next}, 0ns)) {
      // Never more on the way than was promised.
      REQUIRE(next - last <= 4);
      ++next;
    }
    return last == count;
  }));
  CHECK(heard.accounts().lost_in_all() == 0);
}

TEST_CASE("a publisher outlives its subscribers that block, and begins anew with each") {
  const bench world("shm");
  bus::node writer = world.make("writer");
  auto numbers = writer.advertise<reading>("numbers");
  for (int life = 0; life < 3; ++life) {
    bus::node reader = world.make("reader");
    auto blocked = reader.subscribe<reading>("numbers", blocking(8));
    REQUIRE(turn({&reader, &writer}, [&] { return numbers.matched() == 1; }));
    std::uint64_t sent = 0;
    while (numbers.has_room()) REQUIRE(numbers.publish({++sent}));
    CHECK(sent == 4);
    CHECK(collect(blocked, sent) == from_to(1, sent));
    CHECK(blocked.accounts().lost_in_all() == 0);
    static_cast<void>(fill(numbers));
    CHECK_FALSE(numbers.has_room());
    {
      const bus::node ended = std::move(reader);
      const auto too = std::move(blocked);
    }
    REQUIRE(turn({&writer}, [&] { return numbers.matched() == 0; }));
    CHECK(numbers.has_room());
  }
}
