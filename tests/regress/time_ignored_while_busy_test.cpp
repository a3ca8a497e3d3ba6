// The clock was looked at only when nothing came: as long as messages for anybody kept coming,
// run_for() did not come back, and neither did take() for a message that did not come. (Found by
// `bus chaos --seed 3474499613` under ThreadSanitizer, where publishers are faster than callbacks.)
#include "bus/bus.hpp"
#include "tests/scratch.hpp"
#include "transports/inproc/inproc.hpp"

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

struct word {
  std::uint64_t number;
};

}  // namespace

TEST_CASE("a flood keeps nobody longer than it said") {
  const tests::scratch_directory scratch;
  bus::node node(
      {.name = "busy", .transports = {transports::inproc()}, .directory = scratch.path()});
  auto words = node.advertise<word>("words");
  auto quiet = node.subscribe<word>("quiet");
  // Each message brings the next, for two seconds.
  const auto end = bus::deadline::after(2s);
  std::uint64_t heard = 0;
  const auto listener = node.subscribe<word>("words", [&](const bus::received<word>& one) {
    ++heard;
    if (!end.passed()) words.publish({one->number + 1});
  });
  REQUIRE(words.wait_matched(1, 20s));
  words.publish({1});
  const bool takes = GENERATE(false, true);
  INFO((takes ? "take" : "run_for"));
  if (takes) {
    CHECK_FALSE(quiet.take(20ms));
  } else {
    node.run_for(20ms);
  }
  CHECK_FALSE(end.passed());
  CHECK(heard > 100);
}
