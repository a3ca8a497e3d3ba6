// Where payloads are copied, and where not: one figure of the ledger, which this test holds against
// what docs/design/0006 promises. It fails when a copy comes to a path that had none.
#include "bus/bus.hpp"
#include "bus/node/ledger_file.hpp"
#include "schemas/demo/quake.pb.h"
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"
#include "transports/zmq/zmq.hpp"

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>

#include <catch2/catch.hpp>

namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t messages = 200;
constexpr std::uint64_t large = 8192;  // above what zmq packs, and so copies
struct payload {
  std::uint64_t number;
  std::array<std::byte, large - 8> filling;
};

bus::node_options options(const tests::scratch_directory& scratch, const std::string& name,
                          bus::bill_of_transports transports) {
  bus::node_options made{
      .name = name, .transports = std::move(transports), .directory = scratch.path()};
  made.listen = {"tcp://127.0.0.1:*"};
  made.waiting = bus::wait_policy::sleep;
  return made;
}

// Copies on all links of a node, as its ledger and `bus info` tell.
std::uint64_t copies_of(bus::node& node) {
  node.run_for(1ms);
  const bus::fd opened(::open(node.directory().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto books = bus::read_ledger(opened.get(), node.id());
  crew::must(books.has_value(), "a ledger cannot be read");
  std::uint64_t sum = 0;
  for (const bus::ledger_entry& row : books->entries) {
    if (row.kind == bus::row_kind::link) sum += row.counts[bus::column::link_copied];
  }
  return sum;
}

// A node on a thread of its own that takes raw messages until told to stop, and counts them.
class ear {
 public:
  ear(bus::node_options wanted, const std::string& pattern)
      : thread_([this, wanted = std::move(wanted), pattern]() mutable {
          bus::node node(std::move(wanted));
          auto heard = node.subscribe<bus::raw>(pattern, {.when_full = bus::drop::newest});
          while (!stop_.load()) {
            if (heard.take(2ms)) ++count_;
          }
        }) {}
  ~ear() { stop_.store(true); }
  ear(const ear&) = delete;
  ear& operator=(const ear&) = delete;
  [[nodiscard]] std::uint64_t count() const noexcept { return count_.load(); }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> count_{0};
  std::jthread thread_;
};
using ears = std::vector<std::unique_ptr<ear>>;

// Turns the node until every ear has heard so many.
void await(bus::node& node, const ears& all, std::uint64_t count) {
  const auto until = bus::deadline::after(crew::patience);
  for (const auto& one : all) {
    while (one->count() < count) {
      crew::must(!until.passed(), "a message did not come");
      node.run_for(1ms);
    }
  }
}

template <class Publisher>
void wait_room(Publisher& to) {
  crew::must(to.has_room() || to.wait_room(crew::patience), "no room came");
}

// What `between` takes of origin/data it publishes on as relayed/data, to all ears. Returns how
// often either of them copied a message.
struct copies {
  std::uint64_t origin;
  std::uint64_t between;
};
copies relay(bus::node& origin, bus::node& between, const ears& all) {
  auto source = origin.advertise<payload>("origin/data");
  auto in = between.subscribe<bus::raw>("origin/data", {.when_full = bus::drop::newest});
  auto out = between.advertise<bus::raw>("relayed/data");
  const auto until = bus::deadline::after(crew::patience);
  while (source.matched() == 0 || out.matched() < all.size()) {
    crew::must(!until.passed(), "the relay was not matched");
    origin.run_for(1ms);
    between.run_for(1ms);
  }
  // Announcements are small, and packed by zmq.
  const copies before{copies_of(origin), copies_of(between)};
  for (std::uint64_t i = 1; i <= messages; ++i) {
    auto lent = source.loan();
    lent->number = i;
    crew::must(source.publish(std::move(lent)).taken == 1, "the relay took nothing");
    const auto message = in.take(crew::patience);
    crew::must(message && message->bytes().size() == sizeof(payload), "nothing to relay");
    wait_room(out);
    const auto sent = out.forward(*message);
    crew::must(sent && sent.links == all.size(), "not forwarded to all");
  }
  await(between, all, messages);
  return {copies_of(origin) - before.origin, copies_of(between) - before.between};
}

}  // namespace

TEST_CASE("loans and protobuf over shared memory are not copied, for 1, 2 and 5 subscribers") {
  for (const std::size_t count : {1U, 2U, 5U}) {
    INFO(count << " subscribers");
    const tests::scratch_directory scratch;
    ears all;
    for (std::size_t i = 0; i < count; ++i) {
      all.push_back(std::make_unique<ear>(options(scratch, "ear", {transports::shm()}), "data/**"));
    }
    bus::node node(options(scratch, "talker", {transports::shm()}));
    auto structs = node.advertise<payload>("data/structs");
    auto quakes = node.advertise<demo::Quake>("data/quakes");
    REQUIRE(structs.wait_matched(count, crew::patience));
    REQUIRE(quakes.wait_matched(count, crew::patience));
    demo::Quake quake;
    quake.set_id("a name that is long enough not to be small");
    for (std::uint64_t i = 1; i <= messages; ++i) {
      wait_room(structs);
      auto lent = structs.loan();
      lent->number = i;
      const auto sent = structs.publish(std::move(lent));
      CHECK(sent.taken == count);
      CHECK(quakes.publish(quake).taken == count);
    }
    await(node, all, 2 * messages);
    CHECK(copies_of(node) == 0);
  }
}

TEST_CASE("over shared memory and zmq at once, nothing is copied") {
  const tests::scratch_directory scratch;
  ears all;
  all.push_back(std::make_unique<ear>(options(scratch, "near", {transports::shm()}), "data"));
  all.push_back(std::make_unique<ear>(options(scratch, "far", {transports::zmq()}), "data"));
  bus::node node(options(scratch, "talker", {transports::shm(), transports::zmq()}));
  auto structs = node.advertise<payload>("data");
  REQUIRE(structs.wait_matched(2, crew::patience));
  const std::uint64_t before = copies_of(node);  // announcements are small, and packed by zmq
  for (std::uint64_t i = 1; i <= messages; ++i) {
    wait_room(structs);
    auto lent = structs.loan();
    lent->number = i;
    const auto sent = structs.publish(std::move(lent));
    CHECK(sent.taken == 2);
  }
  await(node, all, messages);
  CHECK(copies_of(node) == before);
}

TEST_CASE("what came by shared memory is forwarded over zmq without a copy") {
  const tests::scratch_directory scratch;
  ears all;
  all.push_back(
      std::make_unique<ear>(options(scratch, "far", {transports::zmq()}), "relayed/data"));
  bus::node origin(options(scratch, "origin", {transports::shm()}));
  bus::node between(options(scratch, "between", {transports::shm(), transports::zmq()}));
  const copies made = relay(origin, between, all);
  CHECK(made.origin == 0);
  CHECK(made.between == 0);
}

TEST_CASE("what is forwarded over shared memory is copied once for all subscribers of the host") {
  for (const std::size_t count : {1U, 5U}) {
    INFO(count << " subscribers");
    const tests::scratch_directory scratch;
    ears all;
    for (std::size_t i = 0; i < count; ++i) {
      all.push_back(
          std::make_unique<ear>(options(scratch, "ear", {transports::shm()}), "relayed/data"));
    }
    bus::node origin(options(scratch, "origin", {transports::shm()}));
    bus::node between(options(scratch, "between", {transports::shm()}));
    const copies made = relay(origin, between, all);
    CHECK(made.origin == 0);
    CHECK(made.between == messages);
  }
}
