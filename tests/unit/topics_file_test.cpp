// The topics file: what it says after any history of publishers that come and go, when it is torn,
// lost or too large, and what advertising leaves alone.
#include "bus/node/topics_file.hpp"

#include "bus/bus.hpp"
#include "bus/route/runs.hpp"
#include "tests/scratch.hpp"
#include "transports/shm/shm.hpp"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <sys/stat.h>

#include <catch2/catch.hpp>

namespace {

using namespace std::chrono_literals;
namespace files = std::filesystem;

// A node's publishers, its file, and what the file tells.
struct teller {
  tests::scratch_directory scratch = {};
  bus::node_id self = bus::node_id::random();
  bus::rendezvous place = std::move(*bus::rendezvous::open(scratch.path(), self));
  bus::publications all = {};
  bus::topics_file file = {};
  std::uint32_t last = 0;

  void advertise() {
    auto made = std::make_unique<bus::publication>();
    made->number = ++last;
    made->topic = "t/" + std::to_string(last);
    all.emplace(last, std::move(made));
  }
  void retire(std::uint32_t publisher) {
    file.went(publisher);
    all.erase(publisher);
  }
  [[nodiscard]] std::error_code write() { return file.write(place, all).error(); }
  [[nodiscard]] std::string path() const {
    return scratch.path() + "/" + bus::to_hex(self.value) + ".topics";
  }
  [[nodiscard]] std::vector<std::string> told() const {
    bus::wire::Card card;
    card.set_node(self.value);
    REQUIRE(place.add_topics(card));
    std::vector<std::string> names;
    for (const auto& words : card.advertisements()) names.push_back(words.topic());
    return names;
  }
  [[nodiscard]] std::vector<std::string> published() const {
    std::vector<std::string> names;
    for (const auto& [number, one] : all) names.push_back(one->topic);
    return names;
  }
};

ino_t inode_of(const std::string& path) {
  struct stat about {};
  REQUIRE(::stat(path.c_str(), &about) == 0);
  return about.st_ino;
}

}  // namespace

TEST_CASE("the topics file tells what is published, after any history") {
  const unsigned seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto below = [&](std::uint32_t end) {
    return std::uniform_int_distribution<std::uint32_t>(0, end - 1)(random);
  };
  teller one;
  for (int round = 0; round < 400; ++round) {
    const std::uint32_t more = below(60);
    // Tides: now most come, now most go.
    const std::uint32_t fewer = below(round / 50 % 2 == 0 ? 20 : 100);
    for (std::uint32_t i = 0; i < more; ++i) one.advertise();
    for (std::uint32_t i = 0; i < fewer && !one.all.empty(); ++i) {
      auto at = one.all.lower_bound(below(one.last));
      one.retire(at == one.all.end() ? one.all.begin()->first : at->first);
    }
    REQUIRE_FALSE(one.write());
    REQUIRE(one.told() == one.published());
  }
}

TEST_CASE("the topics file does not grow with those that have gone") {
  teller one;
  for (int round = 0; round < 20'000; ++round) {
    one.advertise();
    REQUIRE_FALSE(one.write());
    one.retire(one.last);
    REQUIRE_FALSE(one.write());
  }
  REQUIRE(one.told().empty());
  // 1024 records that are of no use, of at most 24 bytes.
  REQUIRE(files::file_size(one.path()) <= 1026 * 24);
}

TEST_CASE("a record that is cut off is not told, and the next writes are") {
  teller one;
  for (int i = 0; i < 3; ++i) one.advertise();
  REQUIRE_FALSE(one.write());
  const auto whole = files::file_size(one.path());
  one.advertise();
  REQUIRE_FALSE(one.write());
  const auto longer = files::file_size(one.path());
  for (auto bytes = longer - 1; bytes >= whole; --bytes) {
    files::resize_file(one.path(), bytes);
    REQUIRE(one.told() == std::vector<std::string>{"t/1", "t/2", "t/3"});
  }
  one.file.distrust();
  one.advertise();
  REQUIRE_FALSE(one.write());
  REQUIRE(one.told() == one.published());
}

TEST_CASE("a topics file with a record that is none is refused, and nothing of it is told") {
  teller one;
  one.advertise();
  REQUIRE_FALSE(one.write());
  std::fstream(one.path(), std::ios::in | std::ios::out) << '\x03' << "\xff\xff\xff";
  bus::wire::Card card;
  card.set_node(one.self.value);
  REQUIRE(one.place.add_topics(card).error() == bus::errc::bad_message);
  REQUIRE(card.advertisements().empty());
}

TEST_CASE("a topics file that was removed is told anew when it is distrusted") {
  teller one;
  for (int i = 0; i < 5; ++i) one.advertise();
  REQUIRE_FALSE(one.write());
  files::remove(one.path());
  REQUIRE(one.told().empty());
  one.file.distrust();
  REQUIRE_FALSE(one.write());
  REQUIRE(one.told() == one.published());
}

TEST_CASE("what somebody else puts in the place of a topics file is replaced, and left unwritten") {
  const std::string victim_text = "the text of a victim";
  for (const std::string kind : {"fifo", "symlink", "hard link", "directory"}) {
    INFO(kind);
    teller one;
    const std::string victim = one.scratch.path() + "/victim";
    std::ofstream(victim) << victim_text;
    if (kind == "fifo") REQUIRE(::mkfifo(one.path().c_str(), 0600) == 0);
    if (kind == "symlink") files::create_symlink(victim, one.path());
    if (kind == "hard link") files::create_hard_link(victim, one.path());
    if (kind == "directory") files::create_directory(one.path());
    one.advertise();
    if (kind == "directory") {
      REQUIRE(one.write());  // a directory is not replaced by a file: said, and tried again
      files::remove(one.path());
    }
    REQUIRE_FALSE(one.write());
    REQUIRE(one.told() == one.published());
    std::string text;
    std::getline(std::ifstream(victim), text);
    REQUIRE(text == victim_text);
  }
}

TEST_CASE("a topics file that grew too large for its readers is written anew") {
  teller one;
  one.advertise();
  REQUIRE_FALSE(one.write());
  files::resize_file(one.path(), 256 << 20);
  one.advertise();
  REQUIRE_FALSE(one.write());
  REQUIRE(files::file_size(one.path()) < 100);
  REQUIRE(one.told() == one.published());
}

TEST_CASE("advertising leaves the card of the node alone, so that no neighbour is woken") {
  const tests::scratch_directory scratch;
  bus::node node({.name = "n", .transports = {transports::shm()}, .directory = scratch.path()});
  const std::string own = scratch.path() + "/" + bus::to_hex(node.id().value);
  const ino_t card = inode_of(own + ".card");
  std::vector<bus::publisher<bus::raw>> sources;
  for (int i = 0; i < 100; ++i) {
    sources.push_back(node.advertise<bus::raw>("t/" + std::to_string(i)));
  }
  const auto told = [&] {
    const auto read = node.inside().meeting_place().read_whole_card(node.id());
    return read ? read->advertisements_size() : -1;
  };
  const auto until = bus::deadline::after(20s);
  while (told() != 100 && !until.passed()) node.run_for(1ms);
  CHECK(told() == 100);
  const ino_t topics = inode_of(own + ".topics");
  sources.erase(sources.begin() + 50, sources.end());
  while (told() != 50 && !until.passed()) node.run_for(1ms);
  CHECK(told() == 50);
  CHECK(inode_of(own + ".card") == card);
  CHECK(inode_of(own + ".topics") == topics);
}

TEST_CASE("runs say which of a node's publishers are meant") {
  bus::runs said;
  const std::set<std::uint32_t> meant = {1, 2, 3, 7, 9, 10, UINT32_MAX};
  for (const std::uint32_t number : meant) bus::add_to_runs(said, number);
  CHECK(said.size() == 8);
  for (std::uint32_t number = 0; number < 20; ++number) {
    CHECK(bus::in_runs(said, number) == meant.contains(number));
  }
  CHECK(bus::in_runs(said, UINT32_MAX));
  CHECK_FALSE(bus::in_runs(said, UINT32_MAX - 1));
  CHECK_FALSE(bus::in_runs({}, 1));
  // A stranger's, without an end.
  said.RemoveLast();
  CHECK_FALSE(bus::in_runs(said, UINT32_MAX));
}
