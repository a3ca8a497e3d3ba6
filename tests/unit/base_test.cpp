// The vocabulary: results, ids, descriptors, deadlines.
#include "bus/base/clock.hpp"
#include "bus/base/fd.hpp"
#include "bus/base/ids.hpp"
#include "bus/base/result.hpp"

#include <cerrno>
#include <memory>

#include <fcntl.h>

#include <catch2/catch.hpp>

TEST_CASE("a failed result has its reason and no value") {
  const bus::result<int> failed = bus::unexpected(bus::errc::gone);
  REQUIRE_FALSE(failed);
  REQUIRE(failed.error() == bus::errc::gone);
  REQUIRE(failed.value_or(7) == 7);
  const bus::result<void> nothing = bus::unexpected(bus::errc::denied);
  REQUIRE_FALSE(nothing);
}

TEST_CASE("a result carries what can only be moved") {
  bus::result<std::unique_ptr<int>> made = std::make_unique<int>(3);
  REQUIRE(made);
  const std::unique_ptr<int> taken = std::move(*made);
  REQUIRE(*taken == 3);
}

TEST_CASE("errno keeps its meaning, and the common ones get one name each") {
  REQUIRE(bus::system_error_of(ENOSPC) == bus::errc::no_space);
  REQUIRE(bus::system_error_of(EDQUOT) == bus::errc::no_space);
  REQUIRE(bus::system_error_of(EPERM) == bus::errc::denied);
  REQUIRE(bus::system_error_of(ECONNREFUSED) == std::errc::connection_refused);
}

TEST_CASE("hexadecimal ids come back, and nothing else is an id") {
  const auto id = bus::node_id::random();
  REQUIRE(id.value != 0);
  REQUIRE(bus::from_hex(bus::to_hex(id.value)) == id.value);
  REQUIRE(bus::to_hex(0x1f) == "000000000000001f");
  REQUIRE_FALSE(bus::from_hex("1f"));
  REQUIRE_FALSE(bus::from_hex("000000000000001F"));
  REQUIRE_FALSE(bus::from_hex("000000000000001g"));
}

TEST_CASE("hash64 is FNV-1a") {
  REQUIRE(bus::hash64("") == 0xcbf29ce484222325ULL);
  REQUIRE(bus::hash64("a") == 0xaf63dc4c8601ec8cULL);
  REQUIRE(bus::hash64("foobar") == 0x85944171f73967e8ULL);
}

TEST_CASE("an fd closes once, and its copies are close-on-exec") {
  bus::fd opened(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  REQUIRE(opened);
  const int number = opened.get();
  auto copy = opened.duplicate();
  REQUIRE(copy);
  REQUIRE((::fcntl(copy->get(), F_GETFD) & FD_CLOEXEC) != 0);
  opened.reset();
  REQUIRE(::fcntl(number, F_GETFD) == -1);
  REQUIRE(::fcntl(copy->get(), F_GETFD) != -1);
}

TEST_CASE("the stamp clock is the wall clock, within what a reading takes") {
  bus::stamp_clock stamps;
  const auto until = bus::deadline::after(std::chrono::milliseconds(50));
  std::size_t straight = 0;
  std::size_t strayed = 0;
  while (!until.passed()) {
    const std::int64_t before = bus::wall_ns();
    const std::int64_t now = stamps.now_ns();
    const std::int64_t after = bus::wall_ns();
    // A microsecond for ticks against a clock that is being slewed.
    (now >= before - 1000 && now <= after + 1000 ? straight : strayed) += 1;
  }
  REQUIRE(straight > 0);
  REQUIRE(strayed == 0);
}

TEST_CASE("a deadline far away is never, and one in the past has passed") {
  REQUIRE(bus::deadline::after(std::chrono::nanoseconds::max()).is_never());
  REQUIRE_FALSE(bus::deadline::never().passed());
  REQUIRE(bus::deadline::after(std::chrono::seconds(-1)).passed());
}
