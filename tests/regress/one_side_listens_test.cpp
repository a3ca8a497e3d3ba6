// A node that listens nowhere and calls a peer was never answered: links were made by whoever
// sends, and nobody could send to it.
#include "tests/regress/far_apart.hpp"

#include <catch2/catch.hpp>

using namespace far_apart;

namespace {

// A node that listens, and one on another machine that calls it and cannot be called.
struct pair {
  pair()
      : listener(make_node({.machine = scratch.path() + "/here", .listen = anywhere})),
        caller(
            make_node({.machine = scratch.path() + "/there",
                       .listen = {},
                       .peers = {address_of(scratch.path() + "/here", listener->inside().id())}})) {
  }
  template <class Done>
  [[nodiscard]] bool until(Done done) {
    return turn({listener.get(), caller.get()}, done);
  }
  tests::scratch_directory scratch;
  std::unique_ptr<bus::node> listener;
  std::unique_ptr<bus::node> caller;
};

constexpr std::uint64_t many = 5000;

// All that `from` publishes, `to` gets, in order, with pressure back.
void exchange(pair& both, bus::node& from, bus::node& to) {
  auto numbers = from.advertise<crew::numbered>("numbers");
  auto heard = to.subscribe<crew::numbered>("numbers", {.depth = 16384});
  REQUIRE(both.until([&] { return numbers.matched() == 1 && heard.matched() == 1; }));
  std::uint64_t sent = 0;
  std::uint64_t got = 0;
  REQUIRE(both.until([&] {
    for (int i = 0; i < 100 && sent < many && numbers.has_room(); ++i) {
      if (numbers.publish(crew::make(sent + 1, 1)).taken == 1) ++sent;
    }
    while (const auto one = heard.take(0ms)) got = crew::check(**one, 1, got);
    return got == many;
  }));
  const auto books = heard.accounts();
  REQUIRE(books.balanced());
  REQUIRE(books.delivered == many);
}

}  // namespace

TEST_CASE("a caller that cannot be called gets what it asked for") {
  pair both;
  exchange(both, *both.listener, *both.caller);
}

TEST_CASE("a caller that cannot be called is heard") {
  pair both;
  exchange(both, *both.caller, *both.listener);
}

TEST_CASE("large messages go both ways over what the caller opened") {
  pair both;
  auto there = both.caller->advertise<bus::raw>("there");
  auto here = both.listener->advertise<bus::raw>("here");
  auto at_listener = both.listener->subscribe<bus::raw>("there");
  auto at_caller = both.caller->subscribe<bus::raw>("here");
  REQUIRE(both.until([&] { return there.matched() == 1 && here.matched() == 1; }));
  const std::vector<std::byte> large(3 << 20, std::byte{42});
  REQUIRE(there.publish(large).taken == 1);
  REQUIRE(here.publish(large).taken == 1);
  std::size_t bytes = 0;
  REQUIRE(both.until([&] {
    if (const auto one = at_listener.take(0ms)) bytes += one->bytes().size();
    if (const auto one = at_caller.take(0ms)) bytes += one->bytes().size();
    return bytes == 2 * large.size();
  }));
}

TEST_CASE("a caller whose listener was replaced is answered by the new one") {
  pair both;
  auto heard = both.caller->subscribe<crew::numbered>("numbers");
  const std::string where = address_of(both.scratch.path() + "/here", both.listener->inside().id());
  {
    auto numbers = both.listener->advertise<crew::numbered>("numbers");
    REQUIRE(both.until([&] { return numbers.matched() == 1; }));
  }
  both.listener.reset();
  both.listener = make_node({.machine = both.scratch.path() + "/here", .listen = {where}});
  auto numbers = both.listener->advertise<crew::numbered>("numbers");
  REQUIRE(both.until([&] { return numbers.matched() == 1; }));
  REQUIRE(numbers.publish(crew::make(1, 1)).taken == 1);
  REQUIRE(both.until([&] { return heard.take(0ms).has_value(); }));
}

TEST_CASE("a caller that leaves is forgotten") {
  pair both;
  auto numbers = both.listener->advertise<crew::numbered>("numbers");
  {
    auto heard = both.caller->subscribe<crew::numbered>("numbers");
    REQUIRE(both.until([&] { return numbers.matched() == 1; }));
  }
  const bus::node_id gone = both.caller->inside().id();
  both.caller.reset();
  REQUIRE(turn({both.listener.get()}, [&] { return !knows(*both.listener, gone); }));
  REQUIRE(numbers.publish(crew::make(1, 1)).links == 0);
}
