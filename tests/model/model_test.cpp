// The state machine of slots, lanes and bells, as the production code has it, gone through: every
// way where that can be done, and a stated number of ways where it cannot.
//
//   OMNIBUS_MODEL_SCHEDULES=n   random schedules for each configuration (default: 2,000)
//   OMNIBUS_MODEL_SEED=s        the first one's seed; with SCHEDULES=1 a failure is played again
#include "tests/contract/world.hpp"
#include "tests/model/explore.hpp"

#include <cstdio>
#include <cstdlib>
#include <random>

#include <catch2/catch.hpp>

using model::mistake;
using model::plan;
using model::points;
using model::sleep_by;
using model::way;

namespace {

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

// A world that is put back and unmade at the end of the case.
struct stage {
  explicit stage(const plan& of) : here(model::world::make(of)) {}
  stage(const stage&) = delete;
  stage& operator=(const stage&) = delete;
  ~stage() {
    here->restart(points::all);
    delete here;
  }
  model::world* here;
};

void tell(const char* name, const model::found& result, double seconds) {
  std::printf("%s: %llu states, %llu transitions, %llu ends, %.3g schedules, longest %zu, %.1f s\n",
              name, static_cast<unsigned long long>(result.states),
              static_cast<unsigned long long>(result.transitions),
              static_cast<unsigned long long>(result.ends), result.schedules, result.longest,
              seconds);
  std::fflush(stdout);
}

model::found explored(const char* name, model::world& here, model::search within) {
  const auto began = bus::steady_ns();
  model::found result = model::explore(here, within);
  tell(name, result, static_cast<double>(bus::steady_ns() - began) / 1e9);
  return result;
}

// ASan and TSan keep books of each stack that putting one back would upset: there, schedules are
// random only.
bool can_explore() {
  if (!contract::sanitized) return true;
  WARN("not shown here: states cannot be put back under this sanitizer");
  return false;
}

void require_right(const char* name, const plan& of, model::search within = {}) {
  if (!can_explore()) return;
  const stage on(of);
  const model::found result = explored(name, *on.here, within);
  INFO(result.failure);
  REQUIRE(result.failure.empty());
  REQUIRE(result.ends > 0);
}

void require_found(const char* name, plan of, mistake wrong, const std::string& failure) {
  if (!can_explore()) return;
  of.wrong = wrong;
  const stage on(of);
  const model::found result = explored(name, *on.here, {});
  REQUIRE_FALSE(result.failure.empty());
  REQUIRE_THAT(result.failure, Catch::StartsWith(failure));
}

// Each state of the one search, once the steps that go alone are taken, is one of the other.
void require_the_same(const char* name, const plan& of, unsigned kills_max) {
  if (!can_explore()) return;
  const stage on(of);
  std::printf("%s, at every step that can be seen, and at those that are shared:\n", name);
  const model::found seen =
      explored("  seen", *on.here, {.at = points::seen, .kills_max = kills_max});
  const model::found shared =
      explored("  shared", *on.here, {.at = points::shared, .kills_max = kills_max});
  REQUIRE(seen.failure.empty());
  REQUIRE(shared.failure.empty());
  REQUIRE(seen.ends == shared.ends);
  REQUIRE(seen.ends_hash == shared.ends_hash);
  REQUIRE(seen.settled == shared.settled);
  REQUIRE(seen.settled_hash == shared.settled_hash);
}

// Many schedules of one plan, each with its own seed.
void require_many_right(const char* name, const plan& of, bool is_live) {
  const std::uint64_t count =
      number_from("OMNIBUS_MODEL_SCHEDULES", contract::sanitized ? 100 : 2'000);
  const std::uint64_t first =
      number_from("OMNIBUS_MODEL_SEED", std::uint64_t{std::random_device{}()} << 20U);
  const stage on(of);
  std::uint64_t steps = 0;
  std::uint64_t kills = 0;
  for (std::uint64_t seed = first; seed != first + count; ++seed) {
    const model::walked result =
        model::wander(*on.here, {.seed = seed, .kills_max = 3, .is_live = is_live});
    INFO("OMNIBUS_MODEL_SEED=" << seed << " OMNIBUS_MODEL_SCHEDULES=1");
    INFO(result.failure);
    REQUIRE(result.failure.empty());
    steps += result.steps;
    kills += result.kills;
  }
  std::printf("%s, %s: %llu schedules from seed %llu, %llu steps, %llu killed\n", name,
              is_live ? "liveness" : "safety", static_cast<unsigned long long>(count),
              static_cast<unsigned long long>(first), static_cast<unsigned long long>(steps),
              static_cast<unsigned long long>(kills));
  std::fflush(stdout);
}

plan of(unsigned publishers, unsigned subscribers, unsigned messages) {
  return {.publishers = publishers, .subscribers = subscribers, .messages = messages};
}

plan asleep(plan awake) {
  awake.sleep = sleep_by::semaphore;
  return awake;
}

// The smallest rings, whose counters wrap.
plan late(plan early) {
  early.depth = 1;
  early.counters_late = true;
  return early;
}

// Its samples come by value, and a second thread lets go of them.
plan with_keeper(plan without) {
  without.by = way::value;
  without.depth = 1;
  without.keepers = true;
  return without;
}

}  // namespace

// --- every schedule

TEST_CASE("two publishers, two subscribers, two slots: every schedule, a death at every step") {
  require_right("2 to 2, 2 slots, 1 message each", of(2, 2, 1));
}

// Minutes: CTest runs it as a test of its own.
TEST_CASE("and with two messages each: every schedule, a death at every step", "[.long]") {
  require_right("2 to 2, 2 slots, 2 messages each", of(2, 2, 2));
}

TEST_CASE("slots, entries and cells are used again: every schedule, a death at every step") {
  require_right("1 to 2, 2 slots, 4 messages", of(1, 2, 4));
  require_right("2 to 1, 2 slots, 3 messages each", of(2, 1, 3));
}

TEST_CASE("no step hides another: every schedule of all steps, two deaths") {
  require_right("1 to 1, 2 slots, 3 messages, all steps", of(1, 1, 3),
                {.at = points::all, .kills_max = 2});
}

TEST_CASE("steps that go alone leave out no state") {
  require_the_same("1 to 1, 3 messages, two deaths", of(1, 1, 3), 2);
  require_the_same("1 to 1, asleep, 2 messages, two deaths", asleep(of(1, 1, 2)), 2);
  require_the_same("1 to 2, 1 message", of(1, 2, 1), 1);
  require_the_same("2 to 1, 1 message each", of(2, 1, 1), 1);
}

TEST_CASE("laps, cells, credits and sleeps that wrap: every schedule, a death at every step") {
  require_right("1 to 2, depth 1, counters wrap, 5 messages", late(of(1, 2, 5)));
  require_right("1 to 1, depth 1, counters wrap, asleep, 5 messages", late(asleep(of(1, 1, 5))));
}

TEST_CASE("no wakeup is lost: every schedule of sleepers, a death at every step") {
  require_right("1 to 1, asleep, waiting for messages and for room", asleep(of(1, 1, 4)));
  require_right("2 to 1, asleep", asleep(of(2, 1, 1)));
  plan unfenced = asleep(of(1, 1, 2));
  unfenced.unfenced = true;
  require_right("1 to 1, asleep, senders need not fence", unfenced);
}

TEST_CASE("who has no place for a value is rung when there is one: every schedule, a death") {
  require_right("1 to 1 with a keeper, asleep, depth 1", with_keeper(asleep(of(1, 1, 2))));
}

// --- what is wrong is found

TEST_CASE("a subscriber that reads what it has let go of is found out") {
  require_found("reads after release", of(1, 1, 3), mistake::reads_after_release,
                "a stale payload was read");
}

TEST_CASE("a publisher that takes back what a live subscriber may read is found out") {
  require_found("reclaims the living", of(1, 1, 4), mistake::reclaims_the_living,
                "a slot was used again while a live subscriber may read it");
}

TEST_CASE("a subscriber that sends a credit home twice is found out") {
  require_found("releases twice", of(1, 1, 3), mistake::releases_twice, "the two ends disagree");
}

TEST_CASE("a publisher that rings before it publishes loses a wakeup") {
  require_found("rings first", asleep(of(1, 1, 1)), mistake::rings_first,
                "somebody waits for ever");
}

TEST_CASE("a sleeper that does not look once more loses a wakeup") {
  require_found("no last look", asleep(of(1, 1, 1)), mistake::no_last_look,
                "somebody waits for ever");
}

TEST_CASE("a publisher that does not hear of a death waits for ever") {
  require_found("forgets the dead", of(1, 1, 3), mistake::forgets_the_dead,
                "somebody waits for ever");
}

TEST_CASE("a subscriber that nobody tells of a place for a value waits for ever") {
  require_found("no doorbell", with_keeper(asleep(of(1, 1, 2))), mistake::no_doorbell,
                "somebody waits for ever");
}

TEST_CASE("a publisher that does not ask whether a cell was read is found out") {
  plan values = of(1, 1, 3);
  values.by = way::value;
  require_found("overfills cells", values, mistake::overfills_cells,
                "a cell was used again before it was read");
}

// --- many schedules of more

TEST_CASE("four publishers, four subscribers: schedules by lot", "[random]") {
  plan many{.publishers = 4, .subscribers = 4, .slots = 4, .depth = 4, .messages = 12, .holds = 2};
  const char* name = "4 to 4, awake";
  SECTION("awake") {}
  SECTION("asleep on semaphores") {
    name = "4 to 4, asleep on semaphores";
    many.sleep = sleep_by::semaphore;
  }
  SECTION("asleep in event loops") {
    name = "4 to 4, asleep in event loops";
    many.sleep = sleep_by::event;
  }
  SECTION("asleep, and senders need not fence") {
    name = "4 to 4, asleep, senders need not fence";
    many.sleep = sleep_by::semaphore;
    many.unfenced = true;
  }
  SECTION("with counters that wrap") {
    name = "4 to 4, asleep, counters wrap";
    many.sleep = sleep_by::semaphore;
    many.counters_late = true;
  }
  SECTION("with fewer credits and cells than slots") {
    name = "4 to 4, depth 2";
    many.depth = 2;
  }
  SECTION("with a second thread that lets go") {
    name = "4 to 4 with keepers, asleep, depth 2";
    many.sleep = sleep_by::semaphore;
    many.depth = 2;
    many.keepers = true;
  }
  require_many_right(name, many, false);
  require_many_right(name, many, true);
}
