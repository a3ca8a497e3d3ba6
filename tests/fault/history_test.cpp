// The checker of histories, checked: it passes what is right, and fails on each thing that must
// never happen.
#include "tests/fault/history.hpp"

#include <catch2/catch.hpp>

namespace {

constexpr std::uint64_t first_epoch = 0xa;
constexpr std::uint64_t second_epoch = 0xb;

fault::history publisher(std::uint64_t epoch, std::uint64_t count, std::int64_t from_ns = 100) {
  fault::history made;
  made.epoch = epoch;
  made.began_ns = from_ns;
  made.attached_ns = from_ns + 10;
  made.ended_ns = from_ns + 1000;
  made.attempted = count;
  for (std::uint64_t i = 1; i <= count; ++i) {
    made.published.push_back({i, fault::make_message(epoch, i).checksum, from_ns + 20});
  }
  return made;
}

fault::delivery arrival(std::uint64_t epoch, std::uint64_t sequence) {
  return {.sender = epoch,
          .sequence = sequence,
          .epoch = epoch,
          .claimed = sequence,
          .checksum = fault::make_message(epoch, sequence).checksum,
          .is_whole = true,
          .at_ns = 200};
}

// One who was there throughout and got the sequences 1 to `count` of the first epoch.
fault::history subscriber(std::uint64_t count) {
  fault::history made;
  made.epoch = 0xc;
  made.began_ns = 50;
  made.ended_ns = 5000;
  for (std::uint64_t i = 1; i <= count; ++i) made.deliveries.push_back(arrival(first_epoch, i));
  made.has_books = true;
  made.expected = made.delivered = count;
  return made;
}

bool names(const std::vector<fault::history>& all, const char* word) {
  const auto found = fault::checker::check(all);
  INFO("the first complaint: " << (found.empty() ? "none" : found.front()));
  return found.size() == 1 && found.front().find(word) != std::string::npos;
}

}  // namespace

TEST_CASE("the checker passes what is whole, in order and accounted for") {
  CHECK(fault::checker::check({publisher(first_epoch, 5), subscriber(5)}).empty());
  auto lossy = subscriber(5);
  lossy.deliveries.erase(lossy.deliveries.begin() + 2);
  lossy.delivered = 4;
  lossy.lost[0] = 1;
  CHECK(fault::checker::check({publisher(first_epoch, 5), lossy}).empty());
}

TEST_CASE("the checker fails on a torn delivery") {
  auto torn = subscriber(5);
  torn.deliveries[2].is_whole = false;
  CHECK(names({publisher(first_epoch, 5), torn}, "torn"));
  auto swapped = subscriber(5);
  swapped.deliveries[2].checksum += 1;
  CHECK(names({publisher(first_epoch, 5), swapped}, "torn"));
}

TEST_CASE("the checker fails on a duplicated delivery") {
  auto twice = subscriber(5);
  twice.deliveries.push_back(arrival(first_epoch, 5));
  twice.expected = twice.delivered = 6;
  auto by = publisher(first_epoch, 5);
  by.attempted = 6;
  CHECK(names({by, twice}, "duplicated"));
}

TEST_CASE("the checker fails on a reordered delivery") {
  auto askew = subscriber(5);
  std::swap(askew.deliveries[1], askew.deliveries[2]);
  CHECK(names({publisher(first_epoch, 5), askew}, "reordered"));
}

TEST_CASE("the checker fails on a message that is lost and not counted") {
  CHECK(names({publisher(first_epoch, 5), subscriber(4)}, "lost and not counted"));
  auto unbalanced = subscriber(5);
  unbalanced.deliveries.pop_back();
  unbalanced.delivered = 4;
  CHECK(names({publisher(first_epoch, 5), unbalanced}, "is not what its books expect"));
  auto boasting = subscriber(5);
  boasting.deliveries.pop_back();
  CHECK(names({publisher(first_epoch, 5), boasting}, "its books say 5"));
}

TEST_CASE("the checker fails on a loss that was counted twice") {
  auto eager = subscriber(5);
  eager.lost[0] = 1;
  eager.expected = 6;
  CHECK(names({publisher(first_epoch, 5), eager}, "lost and not counted"));
}

TEST_CASE("the checker fails on a foreign delivery") {
  auto stray = subscriber(5);
  stray.deliveries[2].sender = stray.deliveries[2].epoch = 0x77;
  CHECK(names({publisher(first_epoch, 5), stray}, "foreign"));
  auto other = subscriber(5);
  other.deliveries[2].epoch = 0x77;
  CHECK(names({publisher(first_epoch, 5), other}, "foreign"));
  auto invented = subscriber(5);
  invented.deliveries.back() = arrival(first_epoch, 6);
  CHECK(names({publisher(first_epoch, 5), invented}, "never published"));
}

TEST_CASE("the checker fails on a stale delivery") {
  auto old = subscriber(5);
  old.deliveries[2].claimed = 2;
  CHECK(names({publisher(first_epoch, 5), old}, "stale: the payload of 2"));
  auto mixed = subscriber(5);
  mixed.deliveries[2].epoch = second_epoch;
  CHECK(names({publisher(first_epoch, 5), publisher(second_epoch, 0x1, 6000), mixed}, "stale"));
  auto late = subscriber(5);
  late.began_ns = 2000;
  late.deliveries.resize(1);
  late.expected = late.delivered = 1;
  late.has_books = false;
  CHECK(names({publisher(first_epoch, 5), late}, "stale: from before we came"));
  auto after = subscriber(5);
  after.detached[first_epoch] = 200;
  after.deliveries.back().at_ns = 201;
  CHECK(names({publisher(first_epoch, 5), after}, "stale: it had left"));
}

TEST_CASE("a publisher killed in the middle of a call may have published that one, and no more") {
  auto by = publisher(first_epoch, 5);
  by.attempted = 6;
  CHECK(fault::checker::check({by, subscriber(5)}).empty());
  CHECK(fault::checker::check({by, subscriber(6)}).empty());
  CHECK(names({by, subscriber(4)}, "lost and not counted"));
}

TEST_CASE("who came late or left early is asked for no more than it can know") {
  auto late = subscriber(5);
  late.began_ns = 150;
  late.deliveries.erase(late.deliveries.begin(), late.deliveries.begin() + 3);
  late.expected = late.delivered = 2;
  CHECK(fault::checker::check({publisher(first_epoch, 5), late}).empty());
}

TEST_CASE("a call that is too long, a word that is missing and a slow recovery are seen") {
  auto slow = subscriber(1);
  slow.longest_call_ns = 11;
  CHECK(fault::blocked({slow}, 10).size() == 1);
  CHECK(fault::blocked({slow}, 11).empty());
  CHECK(fault::lacking("no space left", {"space", "OMNIBUS_DIR"}) ==
        std::vector<std::string>{"OMNIBUS_DIR"});
  fault::history of;
  const auto get = [&](std::int64_t from_ns, std::int64_t to_ns, std::int64_t each_ns) {
    for (std::int64_t at = from_ns; at < to_ns; at += each_ns) {
      of.deliveries.push_back({.at_ns = at});
    }
  };
  get(0, 1000, 10);     // full speed until the fault
  get(2000, 3000, 50);  // a fifth of it
  get(3000, 5000, 10);
  CHECK(fault::recovery_ns(of, 1000, 2000, 400) > 1000);
  CHECK(fault::recovery_ns(of, 1000, 2000, 400) < 1500);
  get(5000, 6000, 10);
  of.deliveries.resize(120);
  CHECK(fault::recovery_ns(of, 1000, 2000, 400) == -1);
}
