// The seam's own parts: frames, loans and samples, the pool, the bell.
#include "bus/base/ids.hpp"
#include "bus/link/bell.hpp"
#include "bus/link/frame.hpp"
#include "bus/link/loan.hpp"
#include "bus/link/pool.hpp"
#include "bus/link/sample.hpp"

#include <array>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include <poll.h>
#include <sys/mman.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

bus::sample committed(bus::pool& from, std::uint64_t sequence, std::uint64_t bytes = 8) {
  auto lent = from.lend(bytes);
  REQUIRE(lent);
  bus::frame head;
  head.sequence = sequence;
  head.bytes = bytes;
  return std::move(*lent).commit(head);
}

bool readable(int descriptor, int timeout_ms) {
  pollfd one{descriptor, POLLIN, 0};
  return ::poll(&one, 1, timeout_ms) == 1;
}

}  // namespace

TEST_CASE("the frame's bytes are those of LAYOUT.md's example") {
  bus::frame head;
  head.publisher = 2;
  head.node = 0x1122334455667788;
  head.topic_hash = bus::hash64("a");
  head.sequence = 7;
  head.bytes = 3;
  constexpr std::array<unsigned char, 64> expected = {
      0x01, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x88, 0x77, 0x66, 0x55, 0x44,
      0x33, 0x22, 0x11, 0x8c, 0xec, 0x01, 0x86, 0x4c, 0xdc, 0x63, 0xaf, 0x00, 0x00,
      0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
      0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
      0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};
  REQUIRE(std::memcmp(&head, expected.data(), expected.size()) == 0);
}

TEST_CASE("a frame of another version, with unknown flags or too many bytes is refused") {
  bus::frame head;
  head.bytes = 100;
  REQUIRE(bus::check(head, 100));
  REQUIRE(bus::check(head, 99).error() == bus::errc::too_big);
  head.flags = 0x8000;
  REQUIRE(bus::check(head, 100).error() == bus::errc::bad_message);
  head.version = 2;
  REQUIRE(bus::check(head, 100).error() == bus::errc::incompatible);
}

TEST_CASE("an abandoned loan goes home and is lent again") {
  auto pool = bus::pool::make(1 << 20);
  const std::byte* first = nullptr;
  {
    auto lent = pool->lend(100);
    REQUIRE(lent);
    first = lent->bytes().data();
    REQUIRE(lent->bytes().size() >= 100);
    REQUIRE(reinterpret_cast<std::uintptr_t>(first) % bus::payload_align == 0);
  }
  auto again = pool->lend(100);
  REQUIRE(again);
  REQUIRE(again->bytes().data() == first);
}

TEST_CASE("a pool lends nothing beyond its cap, and lends again when blocks come home") {
  auto pool = bus::pool::make(4096);
  REQUIRE(pool->lend(4097).error() == bus::errc::too_big);
  auto all = pool->lend(4096);
  REQUIRE(all);
  REQUIRE(pool->lend(1).error() == bus::errc::no_memory);
  { bus::loan dropped = std::move(*all); }
  // Another size: the cached block must make room.
  auto small = pool->lend(1);
  REQUIRE(small);
  REQUIRE(pool->bytes() <= 4096);
}

TEST_CASE("who had no memory is called by the first block that comes home, and told once") {
  int calls = 0;
  auto pool = bus::pool::make(4096, bus::pool::start::line, [&] { ++calls; });
  auto one = pool->lend(2048);
  auto two = pool->lend(2048);
  REQUIRE((one && two));
  CHECK_FALSE(pool->came_home());
  REQUIRE(pool->lend(1).error() == bus::errc::no_memory);
  CHECK_FALSE(pool->came_home());
  { bus::loan dropped = std::move(*one); }
  CHECK(calls == 1);
  { bus::loan dropped = std::move(*two); }
  CHECK(calls == 1);
  CHECK(pool->came_home());
  CHECK_FALSE(pool->came_home());
  // What is lent again is not waited for.
  { const auto again = pool->lend(4096); }
  CHECK(calls == 1);
}

TEST_CASE("payloads of a page and more begin in a page where that was asked for") {
  auto pool = bus::pool::make(1 << 20, bus::pool::start::page);
  const auto place = [&](std::uint64_t bytes) {
    const auto lent = pool->lend(bytes);
    REQUIRE(lent);
    std::memset(lent->bytes().data() - sizeof(bus::frame), 1, sizeof(bus::frame) + bytes);
    return reinterpret_cast<std::uintptr_t>(lent->bytes().data());
  };
  for (const std::uint64_t bytes : {3000, 4096, 5000, 100'000}) CHECK(place(bytes) % 4096 == 0);
  CHECK(place(2000) % bus::payload_align == 0);
}

TEST_CASE("a sample keeps its bytes until the last copy is gone, also beyond its pool") {
  auto pool = bus::pool::make(1 << 20);
  bus::sample kept = committed(*pool, 3);
  bus::sample copy = kept;
  REQUIRE_FALSE(kept.unique());
  copy = bus::sample();
  REQUIRE(kept.unique());
  pool.reset();
  REQUIRE(kept.head().sequence == 3);
  REQUIRE(kept.payload().size() == 8);
}

TEST_CASE("samples dropped on other threads all come home") {
  auto pool = bus::pool::make(1 << 20);
  constexpr std::size_t threads = 4;
  for (int round = 0; round < 200; ++round) {
    bus::sample shared = committed(*pool, 1, 1000);
    std::vector<std::jthread> droppers;
    for (std::size_t i = 0; i < threads; ++i) droppers.emplace_back([copy = shared] {});
  }
  // Had one been lost, the pool would have had to allocate another.
  REQUIRE(pool->bytes() <= 2048);
}

TEST_CASE("ringing an awake bell wakes nothing and costs no token") {
  auto bell = bus::bell::make();
  REQUIRE(bell);
  REQUIRE((*bell)->ring() == bus::rung::none);
  (*bell)->arm_semaphore();
  REQUIRE_FALSE((*bell)->wait(bus::deadline::after(1ms)));
}

TEST_CASE("a bell rung between arming and sleeping does not sleep") {
  auto bell = bus::bell::make();
  REQUIRE(bell);
  (*bell)->arm_semaphore();
  REQUIRE((*bell)->ring() == bus::rung::semaphore);
  REQUIRE((*bell)->wait(bus::deadline::after(10s)));
}

TEST_CASE("a wakeup that came before disarming leaves no token behind") {
  auto bell = bus::bell::make();
  REQUIRE(bell);
  for (int i = 0; i < 100; ++i) {
    (*bell)->arm_semaphore();
    static_cast<void>((*bell)->ring());
    (*bell)->disarm();
  }
  (*bell)->arm_semaphore();
  REQUIRE_FALSE((*bell)->wait(bus::deadline::after(1ms)));
}

TEST_CASE(
    "a peer's ring reaches an event loop by signal, and by event from another thread's loop") {
  auto bell = bus::bell::make();
  REQUIRE(bell);
  auto keys = (*bell)->keys();
  REQUIRE(keys);
  const bool has_signal = static_cast<bool>(keys->thread);
  auto ringer = bus::ringer::open(std::move(*keys));
  REQUIRE(ringer);
  const auto [signals, event] = (*bell)->descriptors();

  (*bell)->arm_descriptors();
  REQUIRE(ringer->ring() == (has_signal ? bus::rung::signal : bus::rung::event));
  const int rang = has_signal ? signals : event;
  REQUIRE(readable(rang, 1000));
  REQUIRE(ringer->ring() == bus::rung::none);
  (*bell)->drain(rang);
  REQUIRE_FALSE(readable(rang, 0));

  std::jthread([&] { (*bell)->arm_descriptors(); }).join();
  REQUIRE(ringer->ring() == bus::rung::event);
  REQUIRE(readable(event, 1000));
}

TEST_CASE("superfluous posts do not accumulate: the next sleep sleeps") {
  auto made = bus::bell::make();
  REQUIRE(made);
  bus::bell& doorbell = **made;
  const auto keys = doorbell.keys();
  REQUIRE(keys);
  void* const mapped =
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, keys->page.get(), 0);
  REQUIRE(mapped != MAP_FAILED);
  auto& page = *static_cast<bus::bell_layout*>(mapped);
  // Senders that were killed between their post and their mark, in one sleep and in many; and a
  // hostile one, who posts as often as it can.
  for (const int posts : {1, 3, 1000, 100'000}) {
    doorbell.arm_semaphore();
    for (int i = 0; i < posts; ++i) page.permit.store(1);
    CHECK(doorbell.wait(bus::deadline::after(1s)));
    doorbell.arm_semaphore();
    CHECK(page.permit.load() == 0);
    CHECK_FALSE(doorbell.wait(bus::deadline::after(5ms)));
  }
  // And who rings as it should is heard, as ever.
  doorbell.arm_semaphore();
  CHECK(doorbell.ring() == bus::rung::semaphore);
  CHECK(doorbell.wait(bus::deadline::after(1s)));
  ::munmap(mapped, 4096);
}

TEST_CASE("no wakeup is lost between a thread that sleeps and one that rings, fenced or not") {
  // Messages before each sleep: few, so that the sender fences; many, so that the sleeper does it
  // for both; and now this, now that.
  constexpr std::size_t many = bus::bell::burst;
  const auto [odd, even] = GENERATE_COPY(std::pair{std::size_t{1}, std::size_t{1}},
                                         std::pair{many, many}, std::pair{std::size_t{1}, many});
  auto bell = bus::bell::make();
  REQUIRE(bell);
  auto keys = (*bell)->keys();
  REQUIRE(keys);
  auto ringer = bus::ringer::open(std::move(*keys));
  REQUIRE(ringer);
  constexpr int rounds = 20000;
  std::atomic<int> sent{0};
  std::atomic<int> seen{0};
  std::jthread sender([&] {
    for (int i = 1; i <= rounds; ++i) {
      sent.store(i, std::memory_order_release);
      static_cast<void>(ringer->ring());
      while (seen.load(std::memory_order_acquire) != i) std::this_thread::yield();
    }
  });
  for (int i = 1; i <= rounds; ++i) {
    while (sent.load(std::memory_order_acquire) < i) {
      (*bell)->came(i % 2 == 0 ? even : odd);
      (*bell)->arm_semaphore();
      if (sent.load(std::memory_order_acquire) >= i) {
        (*bell)->disarm();
        break;
      }
      REQUIRE((*bell)->wait(bus::deadline::after(30s)));
    }
    seen.store(i, std::memory_order_release);
  }
}
