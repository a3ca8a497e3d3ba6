// The numbered cases of slots, as far as it takes whole processes to show them.
#include "tests/fault/stage.hpp"

#include <cstdlib>
#include <random>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

// Milliseconds from publication to arrival, of those published in [from, to), sorted.
std::vector<double> latencies_ms(const fault::history& by, const fault::history& to,
                                 std::int64_t from_ns, std::int64_t to_ns) {
  std::vector<std::int64_t> sent_ns(by.attempted + 1);
  for (const auto& one : by.published) sent_ns[one.sequence] = one.at_ns;
  std::vector<double> found;
  for (const auto& one : to.deliveries) {
    const std::int64_t sent = sent_ns[one.sequence];
    if (sent < from_ns || sent >= to_ns) continue;
    found.push_back(static_cast<double>(one.at_ns - sent) / 1e6);
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

TEST_CASE(
    "case 10: a stopped subscriber costs the others nothing, and sees its gap when it goes on") {
  fault::stage stage;
  auto& healthy = stage.listen();
  // It would lose the oldest of what waits in its queue; of what finds no room on the way, it loses
  // the newest.
  auto& stopped = stage.listen({.how = {.depth = 64, .when_full = bus::drop::oldest}});
  auto& speaker = stage.speak({.links = 2, .burst = 8, .waits_for_room = false, .link_depth = 512});
  speaker.has(2000);
  const std::int64_t fault_ns = bus::steady_ns();
  stopped.stop();
  // Its 512 places on the way, and many more that find none.
  speaker.has_more(5000);
  const std::int64_t healed_ns = bus::steady_ns();
  stopped.go_on();
  // I9: it is at full speed again within five seconds.
  constexpr std::int64_t window_ns = 100'000'000;
  const auto took_ns = [&] {
    return fault::recovery_ns(stopped.record.read(), fault_ns, healed_ns, window_ns);
  };
  REQUIRE(fault::eventually([&] { return took_ns() >= 0; }));
  CHECK(took_ns() < 5'000'000'000);
  stage.finish();

  const fault::history by = speaker.record.read();
  const fault::history well = healthy.record.read();
  const auto before = latencies_ms(by, well, 0, fault_ns);
  const auto during = latencies_ms(by, well, fault_ns, healed_ns);
  REQUIRE(before.size() > 1000);
  REQUIRE(during.size() > 4000);
  // Medians: a machine that is shared has outliers of its own.
  INFO("before " << before[before.size() / 2] << " ms, during " << during[during.size() / 2]);
  CHECK(during[during.size() / 2] < 10 * before[before.size() / 2] + 5);
  CHECK(by.full > 1000);
  const fault::history gap = stopped.record.read();
  CHECK(gap.lost_by(bus::loss::queue_full) > 1000);
  CHECK(gap.lost_by(bus::loss::no_link) + gap.lost_by(bus::loss::cut) == 0);
}

namespace {

// A hundred nodes are killed at random instants beside a publisher and a subscriber that go on.
void kill_a_hundred(std::mt19937& random, int rounds) {
  fault::stage stage;
  auto& listener = stage.listen();
  auto& speaker = stage.speak();
  for (int round = 0; round < rounds; ++round) {
    const bool publishes = random() % 2 == 0;
    auto& victim =
        publishes ? stage.start(fault::speaker_options{}) : stage.start(fault::listener_options{});
    // Not a wait but the instant at which it dies: unborn, half born, or in the middle of its work.
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
    victim.kill();
  }
  listener.has_more(100);
  speaker.has_more(100);
  // A newcomer is not held up by a hundred dead.
  auto& late = stage.listen();
  late.has(100);
  stage.finish();
  REQUIRE(listener.record.read().lost_by(bus::loss::no_link) == 0);
}

}  // namespace

TEST_CASE(
    "case 12: kill -9 at random instants under load, again and again, and nothing is left over") {
  // Ten thousand take some minutes: OMNIBUS_KILLS=10000.
  const char* const wanted = std::getenv("OMNIBUS_KILLS");
  const int kills = wanted ? std::stoi(wanted) : 300;
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int done = 0; done < kills; done += 100) kill_a_hundred(random, std::min(100, kills - done));
}
