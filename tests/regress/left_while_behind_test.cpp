// A publisher that left while its subscriber was behind could not say goodbye, and took its books
// with it: what the subscriber had not been given was never counted, and its account of the
// publisher never ended. (Found by `bus chaos --seed 5`.) Over a network, what was sent counted as
// heard: all that a subscriber had not read a second later was lost. (`--transport zmq --seed
// 2364116871`.)
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"
#include "transports/zmq/zmq.hpp"

#include <chrono>
#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include <sys/wait.h>

#include <catch2/catch.hpp>

namespace {

using namespace std::chrono_literals;

struct scene {
  bool is_far;
  std::uint64_t published;  // near: more than the link carries; far: than the kernel holds for it
  std::size_t bytes;        // each; a numbered one comes first
  std::chrono::milliseconds goes_on;  // far: longer than libzmq goes on with what was closed
};

bus::node_options options(const std::string& directory, const std::string& name, bool is_far) {
  return {.name = name,
          .transports = {is_far ? transports::zmq() : transports::shm()},
          .directory = directory,
          .listen = {"tcp://127.0.0.1:*"}};
}

// Takes and counts until the publisher has gone and all is accounted for; says the books.
void be_behind(fault::channel& parent, const std::string& directory, const scene& at) {
  bus::node node(options(directory, "behind", at.is_far));
  auto heard = node.subscribe<bus::raw>("left", {.when_full = bus::drop::newest});
  crew::must(heard.wait_matched(1, crew::patience), "nobody speaks");
  parent.say(1);
  std::uint64_t last = 0;
  crew::must(crew::eventually(
                 [&] {
                   while (const auto message = heard.take(0s)) {
                     crew::numbered one{};
                     std::memcpy(&one, message->bytes().data(), sizeof one);
                     last = crew::check(one, 1, last);
                   }
                   node.run_for(5ms);
                   return heard.matched() == 0 && heard.accounts().expected >= at.published;
                 },
                 20s),
             "not all is accounted for: " + std::to_string(heard.accounts().expected));
  crew::say(parent, heard.accounts());
}

}  // namespace

TEST_CASE("what a publisher had published when it left is counted by those who were behind") {
  const scene at = GENERATE(scene{false, 3000, sizeof(crew::numbered), 50ms},
                            scene{true, 400, 256 << 10, 1200ms});
  // The node goes on for a while without the publisher, or ends with it.
  const bool node_goes_on = GENERATE(true, false);
  INFO((at.is_far ? "far, " : "near, ") << (node_goes_on ? "goes on" : "ends"));
  const tests::scratch_directory scratch;
  fault::child behind([&](fault::channel& parent) { be_behind(parent, scratch.path(), at); });
  {
    bus::node node(options(scratch.path(), "leaver", at.is_far));
    auto source = node.advertise<bus::raw>("left");
    REQUIRE(source.wait_matched(1, crew::patience));
    REQUIRE(behind.pipe().hear(crew::patience) == 1);
    ::kill(behind.id(), SIGSTOP);
    std::vector<std::byte> message(at.bytes);
    for (std::uint64_t i = 1; i <= at.published; ++i) {
      const crew::numbered one = crew::make(i, 1);
      std::memcpy(message.data(), &one, sizeof one);
      const auto sent = source.publish(message);
      if (at.is_far) REQUIRE(sent.taken == 1);
    }
    if (node_goes_on) {
      { const auto ended = std::move(source); }
      node.run_for(at.goes_on);
    }
  }
  ::kill(behind.id(), SIGCONT);
  const bus::accounts books = crew::hear_accounts(behind.pipe());
  CHECK(books.balanced());
  CHECK(books.expected == at.published);
  if (!at.is_far) CHECK(books.lost_in_all() > 0);
  CHECK(behind.wait() == 0);
}
