// `rm -rf` of the bus directory under a live bus: the links that were there stopped carrying, since
// a card that went away was taken for a node that left.
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <vector>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

bus::node make_node(const std::string& directory) {
  return bus::node({.name = "n", .transports = {transports::shm()}, .directory = directory});
}

}  // namespace

TEST_CASE("links outlive the directory in which they were made") {
  const tests::scratch_directory scratch;
  const std::string directory = scratch.path() + "/bus";
  bus::node writer = make_node(directory);
  bus::node reader = make_node(directory);
  auto numbers = writer.advertise<crew::numbered>("numbers");
  auto heard = reader.subscribe<crew::numbered>("numbers");
  const auto turn = [&](auto done) {
    return crew::eventually(
        [&] {
          reader.run_for(1ms);
          writer.run_for(1ms);
          return done();
        },
        10s);
  };
  REQUIRE(turn([&] { return numbers.matched() == 1; }));
  std::filesystem::remove_all(directory);
  // Both look at what happened, as often as they like.
  for (int i = 0; i < 20; ++i) static_cast<void>(turn([] { return true; }));
  for (std::uint64_t i = 1; i <= 100; ++i) {
    REQUIRE(numbers.publish(crew::make(i, 1)).taken == 1);
    const auto got = heard.take(10s);
    REQUIRE(got);
    REQUIRE((*got)->sequence == i);
  }
  REQUIRE(heard.accounts().balanced());
}

namespace {

// Two nodes that know each other, and what was done to their directory; then one that comes later.
class bystanders {
 public:
  bystanders() : directory_(scratch_.path() + "/bus") {
    nodes_.push_back(std::make_unique<bus::node>(tests_node(directory_)));
    nodes_.push_back(std::make_unique<bus::node>(tests_node(directory_)));
    for (auto& one : nodes_) {
      publishers_.push_back(one->advertise<crew::numbered>("numbers"));
      subscribers_.push_back(one->subscribe<crew::numbered>("answers"));
    }
  }

  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] std::string scratch() const { return scratch_.path(); }

  // Turns all nodes, as often as it takes and no longer than 10 s.
  template <class Done>
  [[nodiscard]] bool turn(Done done) {
    return crew::eventually(
        [&] {
          for (auto& one : nodes_) one->run_for(1ms);
          return done();
        },
        10s);
  }
  // Everybody is where newcomers look: with card and lock.
  [[nodiscard]] bool all_are_there() {
    return turn([&] {
      const auto place = bus::rendezvous::visit(directory_);
      return place && std::all_of(nodes_.begin(), nodes_.end(), [&](const auto& one) {
               const bus::node_id id = one->inside().id();
               return place->read_card(id) && bus::is_alive(place->directory(), id);
             });
    });
  }
  // A third node finds both, hears both, and is heard by both.
  void welcome_a_third() {
    nodes_.push_back(std::make_unique<bus::node>(tests_node(directory_)));
    auto heard = nodes_.back()->subscribe<crew::numbered>("numbers");
    auto answers = nodes_.back()->advertise<crew::numbered>("answers");
    REQUIRE(turn([&] {
      return answers.matched() == 2 && heard.matched() == 2 && publishers_[0].matched() == 1 &&
             publishers_[1].matched() == 1;
    }));
    for (auto& one : publishers_) REQUIRE(one.publish(crew::make(1, 1)).taken == 1);
    REQUIRE(answers.publish(crew::make(1, 1)).taken == 2);
    REQUIRE(heard.take(10s));
    REQUIRE(heard.take(10s));
    for (auto& one : subscribers_) REQUIRE(one.take(10s));
    REQUIRE(heard.accounts().balanced());
  }

 private:
  [[nodiscard]] static bus::node_options tests_node(const std::string& directory) {
    return {.name = "n", .transports = {transports::shm()}, .directory = directory};
  }

  tests::scratch_directory scratch_;
  std::string directory_;
  std::vector<std::unique_ptr<bus::node>> nodes_;
  std::vector<bus::publisher<crew::numbered>> publishers_;
  std::vector<bus::subscriber<crew::numbered>> subscribers_;
};

}  // namespace

TEST_CASE("after rm -rf of the directory, who comes later finds everybody") {
  bystanders both;
  // More than once, and with what `rm` does in between.
  for (int i = 0; i < 3; ++i) {
    std::filesystem::remove_all(both.directory());
    REQUIRE(both.all_are_there());
  }
  REQUIRE(std::filesystem::is_directory(both.directory() + "/schemas"));
  both.welcome_a_third();
}

TEST_CASE("after the directory was moved away, who comes later finds everybody where it was") {
  bystanders both;
  std::filesystem::rename(both.directory(), both.scratch() + "/elsewhere");
  REQUIRE(both.all_are_there());
  // Nobody lives where it is now.
  const auto moved = bus::rendezvous::visit(both.scratch() + "/elsewhere");
  REQUIRE(moved);
  REQUIRE(both.turn([&] { return moved->nodes().empty(); }));
  both.welcome_a_third();
}

TEST_CASE("files that were removed one by one are put back") {
  bystanders both;
  std::vector<std::filesystem::path> all;
  for (const auto& one : std::filesystem::directory_iterator(both.directory())) {
    if (one.path().filename() != "schemas") all.push_back(one.path());
  }
  for (const auto& one : all) std::filesystem::remove(one);
  REQUIRE(both.all_are_there());
  both.welcome_a_third();
}

TEST_CASE("a directory that somebody opened to everybody in the meantime is not used") {
  bystanders both;
  std::filesystem::remove_all(both.directory());
  std::filesystem::create_directory(both.directory());
  std::filesystem::permissions(both.directory(), std::filesystem::perms::all);
  // Longer than mending takes.
  const auto until = bus::deadline::after(200ms);
  REQUIRE(both.turn([&] { return until.passed(); }));
  REQUIRE(std::filesystem::is_empty(both.directory()));
  // And when it is put right, all is well.
  std::filesystem::permissions(both.directory(), std::filesystem::perms::owner_all);
  REQUIRE(both.all_are_there());
}

TEST_CASE("a node whose directory and peer are gone forgets the peer") {
  const tests::scratch_directory scratch;
  const std::string directory = scratch.path() + "/bus";
  bus::node writer = make_node(directory);
  auto numbers = writer.advertise<crew::numbered>("numbers");
  {
    bus::node reader = make_node(directory);
    const auto heard = reader.subscribe<crew::numbered>("numbers");
    REQUIRE(crew::eventually(
        [&] {
          reader.run_for(1ms);
          writer.run_for(1ms);
          return numbers.matched() == 1;
        },
        10s));
    std::filesystem::remove_all(directory);
  }
  REQUIRE(crew::eventually(
      [&] {
        writer.run_for(1ms);
        return numbers.matched() == 0;
      },
      10s));
  REQUIRE(numbers.publish(crew::make(1, 1)).links == 0);
}
