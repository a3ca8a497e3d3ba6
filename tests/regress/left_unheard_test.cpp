// Who left over a network took its word for it that all was heard once it was sent: what a peer
// that stood still for a second had not read by then was lost, and the books went with the
// publisher. (Found by `bus chaos --transport zmq --seed 2364116871`.)
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/zmq/zmq.hpp"

#include <csignal>
#include <string>

#include <catch2/catch.hpp>

namespace {

using namespace std::chrono_literals;

bus::node_options options(const std::string& directory, const std::string& name) {
  return {.name = name,
          .transports = {transports::zmq()},
          .directory = directory,
          .listen = {"tcp://127.0.0.1:*"}};
}

}  // namespace

TEST_CASE("what was sent over a network by a publisher that left is delivered or counted") {
  // The node goes on for a while without the publisher, or ends with it.
  const bool node_goes_on = GENERATE(true, false);
  INFO((node_goes_on ? "goes on" : "ends"));
  const tests::scratch_directory scratch;
  // More than the kernel holds for a connection.
  constexpr std::uint64_t published = 400;
  const std::vector<std::byte> block(256 << 10);
  fault::child behind([&](fault::channel& parent) {
    bus::node node(options(scratch.path(), "behind"));
    auto heard = node.subscribe<bus::raw>("left");
    crew::must(heard.wait_matched(1, crew::patience), "nobody speaks");
    parent.say(1);
    crew::must(crew::eventually(
                   [&] {
                     while (heard.take(0s)) {
                     }
                     node.run_for(5ms);
                     return heard.matched() == 0 && heard.accounts().expected >= published;
                   },
                   20s),
               "not all is accounted for: " + std::to_string(heard.accounts().expected));
    crew::say(parent, heard.accounts());
  });
  {
    bus::node node(options(scratch.path(), "leaver"));
    auto words = node.advertise<bus::raw>("left");
    REQUIRE(words.wait_matched(1, crew::patience));
    REQUIRE(behind.pipe().hear(crew::patience) == 1);
    ::kill(behind.id(), SIGSTOP);
    for (std::uint64_t i = 0; i < published; ++i) REQUIRE(words.publish(block).taken == 1);
    if (node_goes_on) {
      { const auto ended = std::move(words); }
      node.run_for(1200ms);  // longer than libzmq goes on with what was closed
    }
  }
  ::kill(behind.id(), SIGCONT);
  const bus::accounts books = crew::hear_accounts(behind.pipe());
  CHECK(books.balanced());
  CHECK(books.expected == published);
  CHECK(behind.wait() == 0);
}
