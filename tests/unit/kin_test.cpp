// A parent and its children over pipes: nodes that have nothing else in common.
#include "tests/unit/family.hpp"

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

#include <unistd.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using tests::family;
using tests::kin;
using tests::patience;
using tests::reading;

namespace {

constexpr std::uint64_t many = 10'000;

}  // namespace

// This program once more, as a child.
TEST_CASE("a child that answers", "[.]") {
  bus::node here(kin("child"));
  REQUIRE(here.directory() == bus::no_directory);
  auto questions = here.subscribe<reading>("questions", {.when_full = bus::drop::none});
  auto answers = here.advertise<reading>("answers");
  REQUIRE(answers.wait_matched(1, patience));
  for (std::uint64_t i = 1; i <= many; ++i) {
    const auto question = questions.take(patience);
    REQUIRE(question);
    REQUIRE((*question)->number == i);
    REQUIRE(answers.publish_wait(reading{2 * i}, patience));
  }
}

TEST_CASE("a child that counts until it is killed", "[.]") {
  REQUIRE(tests::count_for_ever("numbers"));
}

// Its second node, and its own child, find the descriptors' numbers in the environment, and are not
// to take what is not theirs.
TEST_CASE("a child with a family of its own", "[.]") {
  bus::node here(kin("first"));
  auto numbers = here.advertise<reading>("numbers");
  REQUIRE(numbers.wait_matched(1, patience));
  bus::node second(kin("second"));
  auto others = second.advertise<reading>("numbers");
  // Something else has the numbers now.
  std::array<int, 2> pipe{};
  REQUIRE(::pipe(pipe.data()) == 0);
  auto grandchild = bus::spawn(here, {"/proc/self/exe", "a grandchild that publishes"});
  second.run_for(20ms);
  REQUIRE(others.matched() == 0);
  REQUIRE(numbers.publish_wait(reading{1}, patience));
  REQUIRE(grandchild.wait(patience) == bus::exit_status{});
  REQUIRE(numbers.publish_wait(reading{2}, patience));
}

TEST_CASE("a grandchild that publishes", "[.]") {
  bus::node here(kin("grandchild"));
  auto numbers = here.advertise<reading>("numbers");
  here.run_for(20ms);
  REQUIRE(numbers.publish(reading{3}).links == 0);
}

TEST_CASE("a child that publishes in the directory", "[.]") {
  bus::node here(kin("child"));
  REQUIRE(here.directory() != bus::no_directory);
  auto numbers = here.advertise<reading>("numbers");
  REQUIRE(numbers.wait_matched(1, patience));
  REQUIRE(numbers.publish_wait(reading{1}, patience));
  REQUIRE(here.subscribe<reading>("end").take(patience));
}

TEST_CASE("a parent and a child that share no directory ask and answer over pipes") {
  family one;
  auto questions = one.parent.advertise<reading>("questions");
  auto answers = one.parent.subscribe<reading>("answers", {.when_full = bus::drop::none});
  auto child = one.start("a child that answers", {.shares_directory = false});
  REQUIRE(questions.wait_matched(1, patience));
  std::uint64_t asked = 0;
  std::uint64_t answered = 0;
  while (answered < many) {
    if (asked < many && questions.publish_wait(reading{asked + 1}, 0s)) ++asked;
    if (const auto answer = answers.try_take()) REQUIRE((*answer)->number == 2 * ++answered);
  }
  REQUIRE(child.wait(patience) == bus::exit_status{});
  REQUIRE(answers.accounts().expected == many);
  REQUIRE(answers.accounts().delivered == many);
  // Its end is the end of the pair.
  REQUIRE(one.turn([&] { return questions.matched() == 0 && answers.matched() == 0; }));
}

TEST_CASE("what a killed child had written arrives, and its next life counts from the beginning") {
  family one;
  auto numbers = one.parent.subscribe<reading>("numbers", {.when_full = bus::drop::none});
  auto child = one.start("a child that counts until it is killed",
                         {.restarts = bus::restart::on_failure, .shares_directory = false});
  std::uint64_t last = 0;
  for (const std::uint64_t life : {0, 1, 2}) {
    do {
      const auto got = numbers.take(patience);
      REQUIRE(got);
      if ((*got)->number == 1 && last > 1) {
        REQUIRE(child.restarts() == life);
        last = 0;
      }
      REQUIRE((*got)->number == ++last);
    } while (last < many || child.restarts() < life);
    REQUIRE(child.signal(SIGKILL));
  }
  REQUIRE(child.stop(patience).signal != 0);
  // What each had published and not brought is known from the books that it kept for its parent.
  REQUIRE(one.turn([&] { return numbers.matched() == 0; }));
  const bus::accounts books = numbers.accounts();
  REQUIRE(books.balanced());
  REQUIRE(books.expected == books.delivered + books.queued + books.lost_by(bus::loss::cut));
}

TEST_CASE("a child's pipes are its first node's, and neither another's nor a grandchild's") {
  family one;
  auto numbers = one.parent.subscribe<reading>("numbers", {.when_full = bus::drop::none});
  auto child = one.start("a child with a family of its own", {.shares_directory = false});
  for (std::uint64_t i = 1; i <= 2; ++i) {
    const auto got = numbers.take(patience);
    REQUIRE(got);
    REQUIRE((*got)->number == i);
  }
  REQUIRE(child.wait(patience) == bus::exit_status{});
  REQUIRE(numbers.accounts().expected == 2);
}

TEST_CASE("where parent and child share a directory, the cheaper way is taken, and why says so") {
  family one;
  auto numbers = one.parent.subscribe<reading>("numbers", {.when_full = bus::drop::none});
  auto end = one.parent.advertise<reading>("end");
  auto child = one.start("a child that publishes in the directory");
  REQUIRE(numbers.take(patience));
  REQUIRE(end.wait_matched(1, patience));
  REQUIRE(one.turn([&] {
    const std::string words = to_text(one.parent.why("end"));
    return words.find("shm") != std::string::npos && words.find("pipe") != std::string::npos;
  }));
  INFO(to_text(one.parent.why("end")));
  REQUIRE(end.publish({1}));
  REQUIRE(child.wait(patience) == bus::exit_status{});
}
