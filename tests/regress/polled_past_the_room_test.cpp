// Whatever its subscriptions had room for, a node took up to 256 messages at once from a network: a
// short queue that drops the newest lost what could have waited where its sender sees it.
#include "tests/regress/far_apart.hpp"

#include <catch2/catch.hpp>

using namespace far_apart;

TEST_CASE("a short queue that drops the newest loses nothing of what a network brings") {
  const tests::scratch_directory scratch;
  const auto reader = make_node({.machine = scratch.path() + "/here", .listen = anywhere});
  const auto writer =
      make_node({.machine = scratch.path() + "/there",
                 .listen = anywhere,
                 .peers = {address_of(scratch.path() + "/here", reader->inside().id())}});
  auto numbers = writer->advertise<crew::numbered>("numbers");
  auto heard =
      reader->subscribe<crew::numbered>("numbers", {.depth = 4, .when_full = bus::drop::newest});
  REQUIRE(turn({reader.get(), writer.get()}, [&] { return numbers.matched() == 1; }));
  constexpr std::uint64_t many = 2000;
  std::uint64_t sent = 0;
  std::uint64_t got = 0;
  REQUIRE(crew::eventually(
      [&] {
        while (sent < many && numbers.has_room()) {
          if (numbers.publish(crew::make(sent + 1, 1)).taken == 1) ++sent;
        }
        writer->run_for(0ms);
        // Nothing else turns the reader, so nothing else has asked for more.
        for (int i = 0; i < 16; ++i) {
          if (const auto one = heard.take(100us)) got = crew::check(**one, 1, got);
        }
        return sent == many && got == many;
      },
      60s));
  REQUIRE(heard.accounts().delivered == many);
  REQUIRE(heard.accounts().balanced());
}
