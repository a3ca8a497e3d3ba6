// A publisher that left while its subscriber was behind could not say goodbye, and took its books
// with it: what the subscriber had not been given was never counted, and its account of the
// publisher never ended. (Found by `bus chaos --seed 5`.)
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <chrono>
#include <csignal>
#include <string>

#include <sys/wait.h>

#include <catch2/catch.hpp>

namespace {

bus::node_options options(const std::string& directory, const std::string& name) {
  return {.name = name, .transports = {transports::shm()}, .directory = directory};
}

using namespace std::chrono_literals;

constexpr std::uint64_t published = 3000;

}  // namespace

TEST_CASE("what a publisher had published when it left is counted by those who were behind") {
  // The node goes on for a while without the publisher, or ends with it.
  for (const bool node_goes_on : {true, false}) {
    const tests::scratch_directory scratch;
    fault::child behind([&](fault::channel& parent) {
      bus::node node(options(scratch.path(), "behind"));
      auto heard = node.subscribe<crew::numbered>("left", {.when_full = bus::drop::newest});
      crew::must(heard.wait_matched(1, crew::patience), "nobody speaks");
      parent.say(1);
      std::uint64_t last = 0;
      crew::must(crew::eventually(
                     [&] {
                       while (const auto message = heard.take(0s))
                         last = crew::check(**message, 1, last);
                       node.run_for(5ms);
                       return heard.matched() == 0 && heard.accounts().expected >= published;
                     },
                     20s),
                 "not all is accounted for: " + std::to_string(heard.accounts().expected));
      crew::say(parent, heard.accounts());
    });
    {
      bus::node node(options(scratch.path(), "leaver"));
      auto source = node.advertise<crew::numbered>("left");
      REQUIRE(source.wait_matched(1, crew::patience));
      REQUIRE(behind.pipe().hear(crew::patience) == 1);
      ::kill(behind.id(), SIGSTOP);
      for (std::uint64_t i = 1; i <= published; ++i) {
        static_cast<void>(source.publish(crew::make(i, 1)));
      }
      if (node_goes_on) {
        { const auto ended = std::move(source); }
        node.run_for(50ms);
      }
    }
    ::kill(behind.id(), SIGCONT);
    const bus::accounts books = crew::hear_accounts(behind.pipe());
    CHECK(books.balanced());
    CHECK(books.expected == published);
    CHECK(books.lost_in_all() > 0);
    CHECK(behind.wait() == 0);
  }
}
