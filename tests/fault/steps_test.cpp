// A death at every named step (bus/base/step.hpp). Four processes live through all of them: one
// publishes, and three subscribe, each woken by another rung. What they owe one another must come
// whole and to the last message, whoever else dies beside them, and at whatever step; of the dead
// they must have heard all, or know how much was cut.
#include "bus/base/step.hpp"
#include "tests/fault/shm_stage.hpp"
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"

#include <map>
#include <set>

#include <asio/io_context.hpp>
#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t healthy_key = 1;
constexpr std::uint64_t victim_key = 2;
// Of what one subscriber only hears.
constexpr std::uint64_t alone_key = 3;
// In place of a number of messages: what a survivor knows of the victims is asked for.
constexpr std::uint64_t report = UINT64_MAX;

bus::node make_node(const std::string& directory, const char* name, std::uint32_t depth = 1024,
                    bus::loop_wakeup woken_by = bus::loop_wakeup::signal) {
  return bus::node({.name = name,
                    .transports = {transports::shm()},
                    .directory = directory,
                    .waiting = bus::wait_policy::sleep,
                    .woken_by = woken_by,
                    .memory_bytes_max = 8 << 20,
                    .link_depth = depth});
}

// Publishes as many as it is told, and then says how many there have been. A number above 300 is
// one burst, which makes receivers ask their senders not to fence.
void publish_healthy(const std::string& directory, fault::channel& parent) {
  bus::node node = make_node(directory, "healthy publisher", 2048);
  auto numbers = node.advertise<crew::numbered>("healthy/numbers");
  crew::must(numbers.wait_matched(3, crew::patience), "three were to listen");
  parent.say(0);
  for (;;) {
    while (!parent.has_news()) node.run_for(1ms);
    const std::uint64_t count = parent.hear();
    if (count == 0) break;
    for (std::uint64_t i = 0; i < count; ++i) {
      while (!numbers.has_room()) crew::must(numbers.wait_room(crew::patience), "no room");
      const auto sent = numbers.publish(crew::make(numbers.sequence() + 1, healthy_key));
      crew::must(!sent.error, "not published");
      if (count < 300) node.run_for(1ms);
    }
    parent.say(numbers.sequence());
  }
}

enum class woken_by { semaphore, signal, event };

// Checks every message, and answers: with a number, when it has heard as many of the healthy one;
// when asked for a report, what it was owed by victims and what of it came or was cut.
void survive(const std::string& directory, fault::channel& parent, woken_by rung) {
  bus::node node =
      make_node(directory, "survivor", 2048,
                rung == woken_by::event ? bus::loop_wakeup::event : bus::loop_wakeup::signal);
  asio::io_context* const loop = rung == woken_by::semaphore ? nullptr : &node.context();
  constexpr bus::subscription_options deep{.depth = 4096, .when_full = bus::drop::newest};
  auto healthy = node.subscribe<crew::numbered>("healthy/numbers", deep);
  auto victims = node.subscribe<crew::numbered>("victim/numbers", deep);
  // What has one reader only goes another way.
  std::optional<bus::subscriber<crew::numbered>> alone;
  if (rung == woken_by::semaphore) {
    alone.emplace(node.subscribe<crew::numbered>("victim/alone", deep));
  }
  std::uint64_t last = 0;
  const auto turn = [&] {
    auto got = rung == woken_by::semaphore ? healthy.take(2ms) : healthy.try_take();
    for (; got; got = healthy.try_take()) {
      crew::must(crew::check(**got, healthy_key, last) == last + 1, "a healthy one is missing");
      ++last;
    }
    while (const auto one = victims.try_take()) {
      static_cast<void>(crew::check(**one, victim_key, 0));
    }
    crew::must(victims.accounts().balanced(), "a victim's books do not balance");
    if (alone) {
      while (const auto one = alone->try_take()) {
        static_cast<void>(crew::check(**one, alone_key, 0));
      }
      crew::must(alone->accounts().balanced(), "the books of who is heard alone do not balance");
    }
    if (loop) loop->run_for(2ms);
  };
  crew::must(healthy.wait_matched(1, crew::patience), "no healthy publisher");
  parent.say(0);
  for (;;) {
    while (!parent.has_news()) turn();
    const std::uint64_t wanted = parent.hear();
    if (wanted == 0) break;
    if (wanted == report) {
      crew::say(parent, victims.accounts());
      continue;
    }
    const auto until = bus::deadline::after(crew::patience);
    while (last < wanted) {
      crew::must(!until.passed(), "starved by somebody's death");
      turn();
    }
    parent.say(last);
  }
  crew::must(healthy.accounts().balanced() && healthy.accounts().lost_in_all() == 0,
             "the healthy one's books do not balance");
}

// --- who dies

// Two parties of one process: what a node does seldom. A sender comes again while its first link is
// open, leaves that with samples out, and loses a receiver that has not read what it was sent.
void meet_oddly() {
  const fault::shm_world room;
  const auto sender = room.make({.memory_bytes_max = 1 << 20, .link_depth = 4});
  const auto receiver = room.make();
  const contract::parties both{sender.get(), receiver.get()};
  const auto open = [&]() -> bus::outbox& {
    bus::outbox& way = sender->connect(receiver->id, receiver->where());
    contract::must(
        contract::pump_until(both, [&] { return way.state() != bus::link_state::opening; }),
        "never opened");
    return way;
  };
  bus::outbox& first = open();
  contract::must(first.send(sender->make_many(1, 2, 100)).value_or(0) == 2, "not sent");
  contract::must(first.give(sender->make(3, 100)).value_or(0) == 1, "not given");
  contract::must(contract::pump_until(both, [&] { return receiver->heard.accepted == 3; }),
                 "not heard");
  bus::outbox& second = open();
  sender->ways.erase(sender->ways.begin());
  contract::must(second.send(sender->make_many(4, 3, 100)).value_or(0) == 3, "not sent");
  contract::must(second.give(sender->make(7, 100)).value_or(0) == 1, "not given");
  static_cast<void>(second.arm());
  receiver->die();
  contract::must(contract::pump_until({sender.get()}, [&] { return second.unsettled() == 0; }),
                 "the dead one's samples did not come home");
}

void publish_and_die(const std::string& directory, fault::channel& parent) {
  {
    bus::node node = make_node(directory, "victim", 64);
    parent.say(node.id().value);
    auto numbers = node.advertise<crew::numbered>("victim/numbers");
    auto alone = node.advertise<crew::numbered>("victim/alone");
    crew::must(numbers.wait_matched(3, crew::patience), "three were to listen");
    crew::must(alone.wait_matched(1, crew::patience), "one was to listen");
    parent.say(0);
    const auto publish = [&] {
      static_cast<void>(numbers.publish(crew::make(numbers.sequence() + 1, victim_key)));
      static_cast<void>(alone.publish(crew::make(alone.sequence() + 1, alone_key)));
    };
    // Slowly, so that each listener sleeps in between; then more than there is room for.
    for (int i = 0; i < 5; ++i) {
      publish();
      node.run_for(3ms);
    }
    for (int i = 0; i < 200; ++i) {
      publish();
      if (!numbers.has_room()) static_cast<void>(numbers.wait_room(crew::patience));
    }
    // A word that nobody has read would take what we say with it when we die.
    static_cast<void>(parent.hear(crew::patience));
    parent.say(numbers.sequence());
  }
  meet_oddly();
}

void subscribe_and_die(const std::string& directory, fault::channel& parent) {
  {
    bus::node node = make_node(directory, "victim");
    parent.say(node.id().value);
    auto heard = node.subscribe<crew::numbered>("healthy/numbers");
    crew::must(heard.wait_matched(1, crew::patience), "nobody publishes");
    parent.say(0);
    std::uint64_t last = 0;
    const auto take = [&](int count) {
      for (int i = 0; i < count; ++i) {
        const auto got = heard.take(crew::patience);
        crew::must(got.has_value(), "nothing came");
        last = crew::check(**got, healthy_key, last);
      }
    };
    take(5);
    // Elsewhere while more comes than senders should fence for.
    static_cast<void>(parent.hear(crew::patience));
    take(400);
    // The last ones by an event loop, which falls asleep after many and after few.
    for (int i = 0; i < (contract::sanitized ? 20 : 5); ++i) {
      node.context().run_for(3ms);
      while (const auto got = heard.try_take()) last = crew::check(**got, healthy_key, last);
    }
  }
  meet_oddly();
}

// --- the stage

class survivors {
 public:
  explicit survivors(const std::string& directory)
      : directory_(directory),
        publisher_([&](fault::channel& parent) { publish_healthy(directory, parent); }) {
    for (const woken_by rung : {woken_by::semaphore, woken_by::signal, woken_by::event}) {
      others_.push_back(std::make_unique<fault::child>(
          [&, rung](fault::channel& parent) { survive(directory, parent, rung); }));
    }
    contract::must(publisher_.pipe().hear(crew::patience) == 0, "the publisher is not well");
    for (const auto& one : others_) {
      contract::must(one->pipe().hear(crew::patience) == 0, "a subscriber is not well");
    }
  }

  void publish(std::uint64_t count) {
    publisher_.pipe().say(count);
    published_ = publisher_.pipe().hear(crew::patience);
  }
  // All that was published.
  void check_all_heard() {
    for (const auto& one : others_) one->pipe().say(published_);
    for (const auto& one : others_) {
      contract::must(one->pipe().hear(crew::patience) == published_, "not all was heard");
    }
  }
  // What victims published, as their own ledgers say, each survivor has heard or counted.
  void check_dead(std::uint64_t published) {
    const bool agreed = crew::eventually([&] {
      bool all = true;
      for (const auto& one : others_) {
        one->pipe().say(report);
        const bus::accounts books = crew::hear_accounts(one->pipe());
        all = all && books.balanced() && books.expected == published;
      }
      return all;
    });
    std::string heard;
    for (const auto& one : others_) {
      one->pipe().say(report);
      const bus::accounts books = crew::hear_accounts(one->pipe());
      heard += " " + std::to_string(books.expected) + "/" + std::to_string(books.delivered) + "+" +
               std::to_string(books.lost_in_all());
    }
    contract::must(agreed, "not all that the dead published was delivered or counted: of " +
                               std::to_string(published) + " each heard" + heard);
  }
  void check_end() {
    publisher_.pipe().say(0);
    contract::must(publisher_.wait() == 0, "the publisher");
    for (const auto& one : others_) one->pipe().say(0);
    for (const auto& one : others_) contract::must(one->wait() == 0, "a subscriber");
  }
  [[nodiscard]] const std::string& directory() const { return directory_; }

 private:
  std::string directory_;
  fault::child publisher_;
  std::vector<std::unique_ptr<fault::child>> others_;
  std::uint64_t published_ = 0;
};

using body = void (*)(const std::string& directory, fault::channel& parent);

// What was said before the other end closed; empty if nothing was.
std::optional<std::uint64_t> last_word(const fault::channel& from) {
  try {
    return from.hear();
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

// The words of a victim until it is ready for what it does, or dead: its id, and a zero.
std::optional<bus::node_id> ready(fault::child& victim) {
  std::optional<bus::node_id> id;
  try {
    id = bus::node_id{victim.pipe().hear(crew::patience)};
    static_cast<void>(victim.pipe().hear(crew::patience));
  } catch (const std::exception&) {
    // It has died on the way, and the channel with it.
  }
  return id;
}

// One victim, killed at the n-th passing of a step; whether it came there. Adds what it published.
bool dies_at(survivors& others, body lives, const std::string& where, std::uint64_t& published) {
  fault::child victim([&](fault::channel& parent) {
    crew::must(bus::crash_at(where), "no such step: " + where);
    lives(others.directory(), parent);
  });
  const auto id = ready(victim);
  // Few, so that there are sleeps in between; a burst, while a subscriber is busy; few again.
  others.publish(5);
  others.publish(400);
  try {
    victim.pipe().say(0);
  } catch (const std::exception&) {
    // It is dead.
  }
  others.publish(5);
  const int end = victim.wait();
  contract::must(end == 0 || end == -SIGKILL, "ended with " + std::to_string(end));
  others.check_all_heard();
  // Who came to the end of its work said how much that was, and may have taken its ledger away.
  const auto said = lives == publish_and_die ? last_word(victim.pipe()) : std::nullopt;
  if (said) published += *said;
  if (!said && id) published += crew::published_by(others.directory(), *id);
  others.check_dead(published);
  return end == -SIGKILL;
}

// Kills `lives` at each step, at its first passing and at a later one. The steps at which it died.
const std::set<std::string_view>& deaths_of(body lives) {
  static std::map<body, std::set<std::string_view>> known;
  const auto [place, is_new] = known.try_emplace(lives);
  if (!is_new) return place->second;
  const tests::scratch_directory scratch;
  survivors others(scratch.path());
  std::uint64_t published = 0;
  for (const std::string_view name : bus::step_names) {
    for (const int passing : contract::sanitized ? std::vector{1} : std::vector{1, 3}) {
      const std::string where = std::string(name) + ":" + std::to_string(passing);
      try {
        if (dies_at(others, lives, where, published)) place->second.insert(name);
      } catch (const std::exception& failure) {
        throw std::runtime_error(where + ": " + failure.what());
      }
    }
  }
  others.check_end();
  return place->second;
}

}  // namespace

TEST_CASE("a publisher may die at any step, and the others lose nothing of one another's") {
  const auto& places = deaths_of(publish_and_die);
  for (const char* const name : {"lane.push.offset", "lane.push.mark", "bell.wake.post",
                                 "bell.wake.signal", "bell.wake.event", "bell.wake.mark",
                                 "lane.reclaim.credit", "node.publish.published", "card.rename"}) {
    INFO(name);
    CHECK(places.contains(name));
  }
}

TEST_CASE("a subscriber may die at any step, and the others lose nothing of one another's") {
  const auto& places = deaths_of(subscribe_and_die);
  for (const char* const name : {"lane.take.frame", "lane.release.bit", "lane.release.look",
                                 "bell.wait.sleep", "bell.arm.barriers", "answers.make.head"}) {
    INFO(name);
    CHECK(places.contains(name));
  }
}

TEST_CASE("there is no step at which nobody has died") {
  std::set<std::string_view> all = deaths_of(publish_and_die);
  for (const std::string_view name : deaths_of(subscribe_and_die)) all.insert(name);
  for (const std::string_view name : bus::step_names) {
    INFO(name);
    CHECK(all.contains(name));
  }
}

TEST_CASE("OMNIBUS_CRASH_AT kills a program at that passing, and a misspelt one refuses to start") {
  const auto run_with = [](const char* variable) {
    fault::child program([&](fault::channel&) {
      ::setenv("OMNIBUS_CRASH_AT", variable, 1);
      ::execl("/proc/self/exe", "steps", "[.two nodes]", nullptr);
    });
    return program.wait();
  };
  CHECK(run_with("memory.create:1") == -SIGKILL);
  CHECK(run_with("memory.create:100000") == 0);
  for (const char* const wrong : {"memory.crate:1", "memory.create", "memory.create:0", ":1",
                                  "memory.create:1x", "memory.create:-1"}) {
    INFO(wrong);
    CHECK(run_with(wrong) == 2);
  }
}

TEST_CASE("what OMNIBUS_CRASH_AT is tried on", "[.two nodes]") {
  fault::shm_world stage;
  contract::party& one = stage.add();
  REQUIRE(stage.link(one, stage.add()).state() == bus::link_state::open);
}
