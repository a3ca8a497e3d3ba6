// Both ends of a lane in one process: what is sent, what is seen, and when its place comes home.
#include "bus/link/bell.hpp"
#include "transports/shm/arena.hpp"
#include "transports/shm/lane_in.hpp"
#include "transports/shm/lane_out.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

using transports::shared::arena;
using transports::shared::lane_in;
using transports::shared::lane_out;

namespace {

template <class T>
T got(bus::result<T> made) {
  REQUIRE(made);
  return std::move(*made);
}

// Lets go of each message at once, and keeps what it said.
class ear final : public bus::sink {
 public:
  void accept(bus::sample&& arrived) noexcept override {
    std::uint64_t word = 0;
    std::memcpy(&word, arrived.payload().data(), sizeof word);
    words.push_back(word);
    arrived = bus::sample();
    if (on_word) on_word();
  }
  void left(bus::node_id, std::error_code) noexcept override {}

  std::vector<std::uint64_t> words;
  std::function<void()> on_word;
};

struct lane {
  explicit lane(std::uint32_t depth) : out(got(lane_out::make(depth))) {
    in = got(lane_in::make({.sender = {7},
                            .depth = depth,
                            .arena_bytes = slots->bytes_max(),
                            .arena = got(slots->hand_out()),
                            .lane = got(out.hand_out()),
                            .bell = got(bell->keys())}));
    REQUIRE(out.open(got(in->hand_out())));
  }

  void write(std::uint64_t word) { std::memcpy(out.claim(), &word, sizeof word); }
  void send(std::uint64_t word) {
    write(word);
    out.push_claimed({.sequence = ++sequence, .bytes = sizeof word});
  }
  // By an entry, which needs a slot.
  void send_in_slot(std::uint64_t word) {
    const unsigned size_class = arena::class_for(sizeof word);
    bus::block* const home = slots->reuse(size_class);
    bus::loan lent(home ? *home : *got(slots->carve(size_class)));
    std::memcpy(lent.bytes().data(), &word, sizeof word);
    bus::sample one = std::move(lent).commit({.sequence = ++sequence, .bytes = sizeof word});
    const std::uint64_t offset = slots->offset_of(one.memory());
    out.push(std::move(one), {}, offset);
  }
  std::size_t poll() { return in->poll(64, heard); }
  std::size_t in_flight() {
    static_cast<void>(out.scan());
    return out.in_flight();
  }

  std::unique_ptr<bus::bell> bell = got(bus::bell::make());
  arena::owner slots = got(arena::make(1 << 20));
  lane_out out;
  lane_in::owner in;
  ear heard;
  std::uint64_t sequence = 0;
};

}  // namespace

TEST_CASE("what was claimed is sent by its commit, in its order, and not before") {
  lane one(128);
  one.write(1);
  CHECK(one.poll() == 0);
  one.send(2);  // in the same place
  one.write(3);
  one.send_in_slot(4);
  one.send(5);
  while (one.poll() > 0) {
  }
  CHECK(one.heard.words == std::vector<std::uint64_t>{2, 4, 5});
}

TEST_CASE("the place of a question comes home with the look after it, and a short lane's at once") {
  lane one(128);
  REQUIRE(one.poll() == 0);
  one.send(1);
  REQUIRE(one.poll() == 1);
  CHECK(one.in_flight() == 1);
  SECTION("by a poll") { REQUIRE(one.poll() == 0); }
  SECTION("when the node is about to sleep") { one.in->report(); }
  CHECK(one.in_flight() == 0);

  lane narrow(64);
  REQUIRE(narrow.poll() == 0);
  narrow.send(1);
  REQUIRE(narrow.poll() == 1);
  CHECK(narrow.in_flight() == 0);
}

TEST_CASE("a stream that begins in a dialogue ends it, and nothing is left behind") {
  lane one(128);
  REQUIRE(one.poll() == 0);
  for (std::uint64_t word = 1; word <= 5; ++word) one.send(word);
  one.send_in_slot(6);
  std::size_t polls = 0;
  for (; one.heard.words.size() < 6 && polls < 6; ++polls) REQUIRE(one.poll() > 0);
  CHECK(polls < 4);
  CHECK(one.heard.words == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6});
  // Half of a dialogue again, and then two questions at once.
  REQUIRE(one.poll() == 0);
  one.send(7);
  REQUIRE(one.poll() == 1);
  REQUIRE(one.poll() == 0);
  one.send(8);
  one.send(9);
  CHECK(one.poll() == 1);
  CHECK(one.poll() == 1);
  CHECK(one.in_flight() == 0);
}

TEST_CASE("who reads much gives places back before it has read all of it") {
  lane one(128);
  std::size_t least = 128;
  one.heard.on_word = [&] { least = std::min(least, one.in_flight()); };
  while (one.out.has_cell()) one.send(one.sequence);
  REQUIRE(one.in->poll(128, one.heard) == 128);
  CHECK(least <= 64);
  CHECK(one.in_flight() == 0);
}
