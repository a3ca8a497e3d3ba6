// The arena alone: what fits, what does not, and that no mix of sizes can wear it out.
#include "transports/shm/arena.hpp"

#include <random>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

using transports::shared::arena;

namespace {

bus::result<bus::loan> lend(arena& from, std::uint64_t bytes) {
  const unsigned size_class = arena::class_for(bytes);
  if (bus::block* const home = from.reuse(size_class)) return bus::loan(*home);
  auto fresh = from.carve(size_class);
  if (!fresh) return bus::unexpected(fresh.error());
  return bus::loan(**fresh);
}

arena::owner make(std::uint64_t bytes_max) {
  auto made = arena::make(bytes_max);
  REQUIRE(made);
  return std::move(*made);
}

bus::sample commit(bus::result<bus::loan>& lent) {
  bus::frame head;
  head.bytes = 1;
  return std::move(*lent).commit(head);
}

}  // namespace

TEST_CASE("a slot holds what was asked for, aligned, and wastes no more than its class allows") {
  const auto memory = make(1ULL << 30);
  for (std::uint64_t bytes = 0; bytes < (100 << 20); bytes = bytes * 9 / 8 + 1) {
    auto lent = lend(*memory, bytes);
    REQUIRE(lent);
    const std::uint64_t room = lent->bytes().size();
    REQUIRE(room >= bytes);
    REQUIRE(reinterpret_cast<std::uintptr_t>(lent->bytes().data()) % bus::payload_align == 0);
    // Half steps below 8 KiB, whole chunks up to 256 KiB, an eighth above.
    const std::uint64_t slot = bytes + 64;
    const std::uint64_t waste_max = slot <= 8192 ? slot / 2 + 64 : (16 << 10) + slot / 8;
    REQUIRE(room - bytes <= waste_max);
  }
}

TEST_CASE("nothing is lent beyond the cap, and all of it in one piece within") {
  const auto memory = make(1 << 20);
  auto all = lend(*memory, memory->payload_bytes_max());
  REQUIRE(all);
  REQUIRE(memory->bytes() == memory->bytes_max());
  REQUIRE(lend(*memory, 1).error() == bus::errc::no_memory);
}

TEST_CASE("memory that was full of small slots can be lent in one piece, and the reverse") {
  const auto memory = make(4 << 20);
  for (int round = 0; round < 3; ++round) {
    std::vector<bus::loan> small;
    for (auto one = lend(*memory, 64); one; one = lend(*memory, 64)) {
      small.push_back(std::move(*one));
    }
    REQUIRE(small.size() == (4 << 20) / 128);
    small.clear();
    REQUIRE(lend(*memory, memory->payload_bytes_max()));
  }
}

TEST_CASE("slots never overlap, whatever is lent and dropped in whatever order") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto memory = make(8 << 20);
  struct held_loan {
    bus::loan memory;
    std::byte mark;
  };
  std::vector<held_loan> held;
  const auto check = [](const held_loan& one) {
    const auto bytes = one.memory.bytes();
    return bytes.front() == one.mark && bytes[bytes.size() / 2] == one.mark &&
           bytes.back() == one.mark;
  };
  std::uint64_t refused = 0;
  for (int step = 0; step < 100'000; ++step) {
    if (held.empty() || random() % 3 != 0) {
      auto lent = lend(*memory, random() >> (40 + random() % 24));
      if (lent) {
        const auto mark = static_cast<std::byte>(step);
        const auto bytes = lent->bytes();
        bytes.front() = bytes[bytes.size() / 2] = bytes.back() = mark;
        held.push_back({std::move(*lent), mark});
        continue;
      }
      ++refused;
    }
    if (held.empty()) continue;
    const std::size_t which = random() % held.size();
    std::swap(held[which], held.back());
    REQUIRE(check(held.back()));
    held.pop_back();
  }
  REQUIRE(refused > 0);  // the cap was reached on the way
  held.clear();
  REQUIRE(lend(*memory, memory->payload_bytes_max()));
}

TEST_CASE("samples dropped by other threads come home, also after the arena was closed") {
  auto memory = make(1 << 20);
  for (int round = 0; round < 200; ++round) {
    auto lent = lend(*memory, 1000);
    REQUIRE(lent);
    const bus::sample shared = commit(lent);
    std::vector<std::jthread> droppers;
    droppers.reserve(4);
    for (int i = 0; i < 4; ++i) droppers.emplace_back([copy = shared] {});
  }
  REQUIRE(memory->bytes() == 1 << 20);
  auto last = lend(*memory, 1000);
  bus::sample outlives = commit(last);
  auto another = lend(*memory, 1000);
  std::jthread elsewhere([copy = commit(another)] {});
  memory.reset();
  REQUIRE(outlives.payload().size() == 1);
}
