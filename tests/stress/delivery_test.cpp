// A subscriber that blocks is stopped, goes on, or is killed, and the publisher that waits for it
// is not held up for longer than was agreed, nor is anybody else at all. Each is a process; the
// parent only forks, signals and reads ledgers. What is judged are counts and the order of events;
// times are printed.
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t key = 0xb10c;
const std::string orders_topic = "work/orders";
const std::string weather_topic = "weather";
// Longer than any test: whoever is waited for so long is waited for.
constexpr std::chrono::nanoseconds for_ever = 1h;

bus::node make_node(const std::string& name, const std::string& directory,
                    std::uint32_t link_depth = 1024) {
  return bus::node({.name = name,
                    .transports = {transports::shm()},
                    .directory = directory,
                    .link_depth = link_depth});
}

struct habits {
  bus::subscription_options orders;
  bool hears_weather = false;
};

// Takes all that comes until told how much was published, and until that is accounted for; then
// shows the books of the orders, and of the weather.
void subscribe(fault::channel& parent, const std::string& directory, const habits& how) {
  bus::node node = make_node("subscriber", directory);
  auto orders = node.subscribe<crew::numbered>(orders_topic, how.orders);
  std::optional<bus::subscriber<crew::numbered>> weather;
  if (how.hears_weather) {
    weather.emplace(node.subscribe<crew::numbered>(
        weather_topic, {.depth = 1 << 16, .when_full = bus::drop::newest}));
  }
  parent.say(node.id().value);
  std::uint64_t last_order = 0;
  std::uint64_t last_weather = 0;
  const auto take_all = [&] {
    while (const auto one = orders.try_take()) last_order = crew::check(**one, key, last_order);
    while (weather) {
      const auto one = weather->try_take();
      if (!one) break;
      last_weather = crew::check(**one, key, last_weather);
    }
  };
  const auto is_over = [](bus::subscriber<crew::numbered>& one, std::uint64_t published) {
    return one.accounts().expected >= published && one.accounts().queued == 0;
  };
  while (!parent.has_news()) {
    take_all();
    node.run_for(1ms);
  }
  const std::uint64_t published_orders = parent.hear();
  const std::uint64_t published_weather = parent.hear(crew::patience);
  const auto until = bus::deadline::after(crew::patience);
  while (!until.passed() && !(is_over(orders, published_orders) &&
                              (!weather || is_over(*weather, published_weather)))) {
    take_all();
    node.run_for(1ms);
  }
  crew::say(parent, orders.accounts());
  if (weather) crew::say(parent, weather->accounts());
}

std::unique_ptr<fault::child> start(const std::string& directory, const habits& how) {
  return std::make_unique<fault::child>(
      [=](fault::channel& parent) { subscribe(parent, directory, how); });
}

bus::node_id hear_node(fault::child& one) { return bus::node_id{one.pipe().hear(crew::patience)}; }

bus::subscription_options blocking(std::uint32_t depth, std::chrono::nanoseconds block_for) {
  return {.depth = depth, .when_full = bus::drop::none, .block_for = block_for};
}

// Whether the publisher of this node is held up now.
bool is_blocked(const std::string& directory, bus::node_id publisher) {
  const auto row = crew::row_of(directory, publisher, bus::row_kind::gate);
  return row && row->counts[bus::column::gate_since_ns] != 0;
}

// Turns the node until told to go on.
void await_word(fault::channel& parent, bus::node& node) {
  while (!parent.has_news()) node.run_for(1ms);
  static_cast<void>(parent.hear());
}

// How long each of `count` publish calls took, sorted; with orders between, if wanted.
std::vector<std::uint64_t> measure(bus::node& node, bus::publisher<crew::numbered>& weather,
                                   bus::publisher<crew::numbered>* orders, std::uint64_t count) {
  std::vector<std::uint64_t> took_ns;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto message = crew::make(weather.sequence() + 1, key);
    const std::int64_t begun_ns = bus::steady_ns();
    const auto outcome = weather.publish(message);
    took_ns.push_back(static_cast<std::uint64_t>(bus::steady_ns() - begun_ns));
    crew::must(!outcome.error && outcome.blocked == 0, "the weather was blocked");
    if (orders && i % 4 == 0) {
      const auto ordered = orders->publish(crew::make(orders->sequence() + 1, key));
      crew::must(ordered.blocked == 1, "the orders were not blocked");
      crew::must(ordered.taken == 1, "the other subscriber of the orders was refused");
    }
    if (i % 64 == 0) node.run_for(1ms);
  }
  std::sort(took_ns.begin(), took_ns.end());
  return took_ns;
}

void tell(fault::channel& parent, const std::vector<std::uint64_t>& sorted_ns) {
  parent.say(sorted_ns[sorted_ns.size() / 2]);
  parent.say(sorted_ns[sorted_ns.size() * 99 / 100]);
}

void publish_both(fault::channel& parent, const std::string& directory, std::uint64_t count) {
  // Room for all: the one that lives loses nothing, however little time this machine gives it.
  bus::node node = make_node("publisher", directory, 1 << 16);
  auto orders = node.advertise<crew::numbered>(orders_topic);
  auto weather = node.advertise<crew::numbered>(weather_topic);
  crew::must(orders.wait_matched(2, crew::patience) && weather.wait_matched(2, crew::patience),
             "the publisher is alone");
  parent.say(node.id().value);
  tell(parent, measure(node, weather, nullptr, count));
  await_word(parent, node);  // one of the two is stopped
  while (orders.has_room()) {
    crew::must(orders.publish(crew::make(orders.sequence() + 1, key)).error == std::error_code(),
               "an order was refused");
  }
  tell(parent, measure(node, weather, &orders, count));
  parent.say(orders.sequence());
  parent.say(weather.sequence());
  await_word(parent, node);
}

// Publishes so many orders, each as soon as publish_wait lets it; says after each that took long.
void publish_orders(fault::channel& parent, const std::string& directory, std::size_t subscribers,
                    std::uint64_t count) {
  bus::node node = make_node("publisher", directory);
  auto orders = node.advertise<crew::numbered>(orders_topic);
  crew::must(orders.wait_matched(subscribers, crew::patience), "the publisher is alone");
  parent.say(node.id().value);
  await_word(parent, node);
  for (std::uint64_t i = 1; i <= count; ++i) {
    const auto outcome = orders.publish_wait(crew::make(i, key), crew::patience);
    crew::must(!outcome.error, "publish_wait: " + outcome.error.message());
  }
  parent.say(orders.sequence());
  await_word(parent, node);
}

std::unique_ptr<fault::child> start_orders(const std::string& directory, std::size_t subscribers,
                                           std::uint64_t count) {
  return std::make_unique<fault::child>(
      [=](fault::channel& parent) { publish_orders(parent, directory, subscribers, count); });
}

bus::accounts settle(fault::child& one, std::uint64_t orders, std::uint64_t weather = 0) {
  one.pipe().say(orders);
  one.pipe().say(weather);
  return crew::hear_accounts(one.pipe());
}

}  // namespace

TEST_CASE("a stopped subscriber that blocks delays no other topic and no other subscriber") {
  const tests::scratch_directory scratch;
  const std::string& directory = scratch.path();
  constexpr std::uint64_t count = 20'000;
  const auto stuck = start(directory, {.orders = blocking(64, for_ever), .hears_weather = true});
  const auto live = start(directory, {.orders = {.depth = 1 << 16, .when_full = bus::drop::newest},
                                      .hears_weather = true});
  const bus::node_id stuck_node = hear_node(*stuck);
  static_cast<void>(hear_node(*live));
  fault::child publisher([=](fault::channel& parent) { publish_both(parent, directory, count); });
  const bus::node_id source = hear_node(publisher);
  const std::uint64_t free_p50 = publisher.pipe().hear(crew::patience);
  const std::uint64_t free_p99 = publisher.pipe().hear(crew::patience);
  ::kill(stuck->id(), SIGSTOP);
  publisher.pipe().say(0);
  const std::uint64_t blocked_p50 = publisher.pipe().hear(crew::patience);
  const std::uint64_t blocked_p99 = publisher.pipe().hear(crew::patience);
  const std::uint64_t orders = publisher.pipe().hear(crew::patience);
  const std::uint64_t weather = publisher.pipe().hear(crew::patience);
  // All of that happened while it was blocked.
  const auto gate = crew::row_of(directory, source, bus::row_kind::gate);
  REQUIRE(gate);
  CHECK(gate->peer == stuck_node);
  CHECK(gate->counts[bus::column::gate_since_ns] != 0);
  CHECK(gate->counts[bus::column::gate_waits] == 1);
  CHECK(gate->counts[bus::column::gate_lapsed] == 0);
  CHECK(gate->counts[bus::column::gate_missed] == count / 4);
  CHECK(weather == 2 * count);

  const bus::accounts live_orders = settle(*live, orders, weather);
  const bus::accounts live_weather = crew::hear_accounts(live->pipe());
  CHECK(live_orders.delivered == orders);
  CHECK(live_orders.lost_in_all() == 0);
  CHECK(live_weather.delivered == weather);
  CHECK(live_weather.lost_in_all() == 0);

  ::kill(stuck->id(), SIGCONT);
  const bus::accounts stuck_orders = settle(*stuck, orders, weather);
  const bus::accounts stuck_weather = crew::hear_accounts(stuck->pipe());
  CHECK(stuck_orders.balanced());
  CHECK(stuck_orders.expected == orders);
  CHECK(stuck_orders.lost_by(bus::loss::queue_full) == count / 4);
  CHECK(stuck_orders.lost_in_all() == count / 4);
  CHECK(stuck_weather.balanced());
  CHECK(stuck_weather.expected == weather);
  publisher.pipe().say(0);
  CHECK(publisher.wait() == 0);
  CHECK(live->wait() == 0);
  CHECK(stuck->wait() == 0);
  WARN("publish on the other topic, ns: p50 " << free_p50 << ", p99 " << free_p99
                                              << "; with a stopped subscriber that blocks: p50 "
                                              << blocked_p50 << ", p99 " << blocked_p99);
}

TEST_CASE("a stopped subscriber that blocks holds no more than its depth") {
  const tests::scratch_directory scratch;
  const std::string& directory = scratch.path();
  constexpr std::uint32_t depth = 64;
  constexpr std::uint64_t count = 100'000;
  const auto stuck = start(directory, {.orders = blocking(depth, 0ns)});
  const bus::node_id stuck_node = hear_node(*stuck);
  const auto publisher = start_orders(directory, 1, count);
  const bus::node_id source = hear_node(*publisher);
  ::kill(stuck->id(), SIGSTOP);
  publisher->pipe().say(0);
  CHECK(publisher->pipe().hear(crew::patience) == count);
  const auto link = crew::row_of(directory, source, bus::row_kind::link);
  REQUIRE(link);
  REQUIRE(link->peer == stuck_node);
  // Beside the samples: the word that nobody waits any longer.
  CHECK(link->counts[bus::column::link_unsettled] <= depth + 1);
  const auto gate = crew::row_of(directory, source, bus::row_kind::gate);
  REQUIRE(gate);
  CHECK(gate->counts[bus::column::gate_waits] == 1);
  CHECK(gate->counts[bus::column::gate_expired] >= count - depth);
  ::kill(stuck->id(), SIGCONT);
  const bus::accounts books = settle(*stuck, count);
  CHECK(books.expected == count);
  CHECK(books.balanced());
  CHECK(books.lost_by(bus::loss::expired) == gate->counts[bus::column::gate_expired]);
  CHECK(books.lost_in_all() == books.lost_by(bus::loss::expired));
  publisher->pipe().say(0);
  CHECK(publisher->wait() == 0);
  CHECK(stuck->wait() == 0);
}

TEST_CASE("a subscriber that is stopped for less than its deadline loses nothing") {
  const tests::scratch_directory scratch;
  const std::string& directory = scratch.path();
  constexpr std::uint64_t count = 20'000;
  const auto slow = start(directory, {.orders = blocking(256, for_ever)});
  static_cast<void>(hear_node(*slow));
  const auto publisher = start_orders(directory, 1, count);
  const bus::node_id source = hear_node(*publisher);
  publisher->pipe().say(0);
  for (int stall = 0; stall < 3; ++stall) {
    const std::uint64_t before = crew::published_by(directory, source);
    REQUIRE(crew::eventually([&] {
      return crew::published_by(directory, source) > std::min(before + 1000, count - 1);
    }));
    ::kill(slow->id(), SIGSTOP);
    REQUIRE(crew::eventually([&] {
      return is_blocked(directory, source) || crew::published_by(directory, source) == count;
    }));
    ::kill(slow->id(), SIGCONT);
  }
  CHECK(publisher->pipe().hear(crew::patience) == count);
  const bus::accounts books = settle(*slow, count);
  CHECK(books.delivered == count);
  CHECK(books.lost_in_all() == 0);
  publisher->pipe().say(0);
  CHECK(publisher->wait() == 0);
  CHECK(slow->wait() == 0);
}

TEST_CASE("a deadline ends the wait for a stopped subscriber, and the books name it") {
  const tests::scratch_directory scratch;
  const std::string& directory = scratch.path();
  constexpr std::uint64_t count = 5'000;
  const auto stuck = start(directory, {.orders = blocking(64, 200ms)});
  const auto live = start(directory, {.orders = blocking(64, for_ever)});
  static_cast<void>(hear_node(*stuck));
  static_cast<void>(hear_node(*live));
  const auto publisher = start_orders(directory, 2, count);
  static_cast<void>(hear_node(*publisher));
  ::kill(stuck->id(), SIGSTOP);
  publisher->pipe().say(0);
  CHECK(publisher->pipe().hear(crew::patience) == count);
  const bus::accounts all = settle(*live, count);
  CHECK(all.delivered == count);
  CHECK(all.lost_in_all() == 0);
  ::kill(stuck->id(), SIGCONT);
  const bus::accounts books = settle(*stuck, count);
  CHECK(books.expected == count);
  CHECK(books.balanced());
  CHECK(books.lost_by(bus::loss::expired) > 0);
  CHECK(books.lost_in_all() == books.lost_by(bus::loss::expired));
  publisher->pipe().say(0);
  CHECK(publisher->wait() == 0);
  CHECK(live->wait() == 0);
  CHECK(stuck->wait() == 0);
}

TEST_CASE("a subscriber that is killed lets go of the publisher that waits for it") {
  const tests::scratch_directory scratch;
  const std::string& directory = scratch.path();
  constexpr std::uint64_t count = 2'000;
  const auto victim = start(directory, {.orders = blocking(64, for_ever)});
  const auto live = start(directory, {.orders = blocking(64, for_ever)});
  const bus::node_id dead = hear_node(*victim);
  static_cast<void>(hear_node(*live));
  const auto publisher = start_orders(directory, 2, count);
  const bus::node_id source = hear_node(*publisher);
  ::kill(victim->id(), SIGSTOP);
  publisher->pipe().say(0);
  const auto waits_for_dead = [&] {
    const bus::fd opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const auto books = bus::read_ledger(opened.get(), source);
    return books && std::any_of(books->entries.begin(), books->entries.end(), [&](const auto& row) {
             return row.kind == bus::row_kind::gate && row.peer == dead &&
                    row.counts[bus::column::gate_since_ns] != 0;
           });
  };
  REQUIRE(crew::eventually(waits_for_dead));
  const std::int64_t killed_ns = bus::steady_ns();
  victim->kill();
  // It publishes all the rest: nobody waits for an hour.
  CHECK(publisher->pipe().hear(crew::patience) == count);
  const std::int64_t released_ns = bus::steady_ns();
  CHECK(victim->wait() == -SIGKILL);
  const bus::accounts books = settle(*live, count);
  CHECK(books.delivered == count);
  CHECK(books.lost_in_all() == 0);
  publisher->pipe().say(0);
  CHECK(publisher->wait() == 0);
  CHECK(live->wait() == 0);
  WARN("killed, let go of, and " << count << " messages more: "
                                 << (released_ns - killed_ns) / 1'000'000 << " ms");
}
