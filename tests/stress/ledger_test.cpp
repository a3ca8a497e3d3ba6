// The ledger balances to the last message, whatever happens to whom: published = delivered + each
// loss, counted by cause, for subscribers that are fast, slow, stopped or killed, and for
// publishers that are killed. Each is a process; the parent only forks, signals and adds up.
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <memory>
#include <random>
#include <vector>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t key = 0x5eed;
const std::string topic = "ledger/numbers";

struct pace {
  std::size_t subscribers = 0;   // wait for so many, then begin
  std::uint32_t link_depth = 0;  // the shorter, the more is lost to the slow
  std::uint32_t batch = 0;       // messages per millisecond
};

bus::node make_node(const std::string& name, const std::string& directory, std::uint32_t depth) {
  return bus::node({.name = name,
                    .transports = {transports::shm()},
                    .directory = directory,
                    .link_depth = depth});
}

// Publishes until told to stop; then goes on telling its subscribers what they missed.
void publish(fault::channel& parent, const std::string& directory, const pace& how) {
  bus::node node = make_node("publisher", directory, how.link_depth);
  // It hears its subscribers too, so that links go both ways.
  const auto replies = node.subscribe<crew::numbered>("replies/*", [](const auto&) {});
  auto numbers = node.advertise<crew::numbered>(topic);
  crew::must(numbers.wait_matched(how.subscribers, crew::patience), "the publisher is alone");
  parent.say(node.id().value);
  while (!parent.has_news()) {
    for (std::uint32_t i = 0; i < how.batch; ++i) {
      const auto outcome = numbers.publish(crew::make(numbers.sequence() + 1, key));
      crew::must(!outcome.error, "publish: " + outcome.error.message());
    }
    node.run_for(1ms);
  }
  static_cast<void>(parent.hear());
  parent.say(numbers.sequence());
  while (!parent.has_news()) node.run_for(1ms);
}

struct habits {
  std::uint32_t depth = 0;
  bus::drop when_full = bus::drop::oldest;
  std::chrono::milliseconds pause{0};  // between two messages
};

// Takes until told how much was published, and until that is accounted for; then shows its books.
void subscribe(fault::channel& parent, const std::string& directory, const habits& how) {
  bus::node node = make_node("subscriber", directory, 64);
  auto heard =
      node.subscribe<crew::numbered>("ledger/*", {.depth = how.depth, .when_full = how.when_full});
  auto replies = node.advertise<crew::numbered>("replies/here");
  parent.say(node.id().value);
  std::uint64_t taken = 0;
  std::uint64_t last = 0;
  std::uint64_t published = UINT64_MAX;
  auto until = bus::deadline::never();
  while (heard.accounts().expected < published || heard.accounts().queued != 0) {
    if (const auto got = heard.take(5ms)) {
      last = crew::check(**got, key, last);
      ++taken;
      if (taken % 16 == 0) static_cast<void>(replies.publish(crew::make(taken, key)));
      // Its habit: this is how slow the slow subscriber is.
      if (published == UINT64_MAX) std::this_thread::sleep_for(how.pause);
    }
    if (published == UINT64_MAX && parent.has_news()) {
      published = parent.hear();
      until = bus::deadline::after(contract::patience);
    }
    if (until.passed()) break;
  }
  crew::must(heard.accounts().delivered == taken, "delivered is not what was taken");
  crew::say(parent, heard.accounts());
}

std::unique_ptr<fault::child> start_subscriber(const std::string& directory, const habits& how) {
  return std::make_unique<fault::child>(
      [=](fault::channel& parent) { subscribe(parent, directory, how); });
}

std::unique_ptr<fault::child> start_publisher(const std::string& directory, const pace& how) {
  return std::make_unique<fault::child>(
      [=](fault::channel& parent) { publish(parent, directory, how); });
}

// Waits until it has subscribed, or begun to publish; returns which node it is.
bus::node_id hear_node(fault::child& one) { return bus::node_id{one.pipe().hear(crew::patience)}; }

void require_balance(const bus::accounts& books, std::uint64_t published) {
  INFO("expected " << books.expected << " of " << published << ", delivered " << books.delivered
                   << ", queued " << books.queued << ", lost " << books.lost_in_all() << ", cut "
                   << books.lost_by(bus::loss::cut));
  CHECK(books.expected == published);
  CHECK(books.queued == 0);
  CHECK(books.delivered + books.lost_in_all() == published);
  CHECK(books.balanced());
}

bool reaches(const std::string& directory, bus::node_id node, std::uint64_t sequence) {
  return crew::eventually([&] { return crew::published_by(directory, node) >= sequence; });
}

}  // namespace

TEST_CASE("books balance to the last message with slow, stopped and killed subscribers") {
  const tests::scratch_directory scratch;
  const std::string& directory = scratch.path();
  // A second of room on every link: enough for the fast one on a busy machine.
  const auto fast =
      start_subscriber(directory, {.depth = 1 << 15, .when_full = bus::drop::newest, .pause = 0ms});
  const auto slow_oldest =
      start_subscriber(directory, {.depth = 64, .when_full = bus::drop::oldest, .pause = 1ms});
  const auto slow_newest =
      start_subscriber(directory, {.depth = 64, .when_full = bus::drop::newest, .pause = 1ms});
  const auto stopped =
      start_subscriber(directory, {.depth = 64, .when_full = bus::drop::newest, .pause = 0ms});
  const auto killed =
      start_subscriber(directory, {.depth = 64, .when_full = bus::drop::newest, .pause = 0ms});
  std::vector<fault::child*> survivors = {fast.get(), slow_oldest.get(), slow_newest.get(),
                                          stopped.get()};
  for (fault::child* const one : survivors) static_cast<void>(hear_node(*one));
  const bus::node_id victim = hear_node(*killed);
  const auto publisher =
      start_publisher(directory, {.subscribers = 5, .link_depth = 4096, .batch = 4});
  const bus::node_id source = hear_node(*publisher);

  REQUIRE(reaches(directory, source, 1'000));
  ::kill(stopped->id(), SIGSTOP);
  REQUIRE(reaches(directory, source, 2'000));
  killed->kill();
  REQUIRE(killed->wait() == -SIGKILL);
  REQUIRE(reaches(directory, source, 9'000));
  ::kill(stopped->id(), SIGCONT);
  REQUIRE(reaches(directory, source, 11'000));
  publisher->pipe().say(0);
  const std::uint64_t published = publisher->pipe().hear(crew::patience);

  std::vector<bus::accounts> books;
  for (fault::child* const one : survivors) one->pipe().say(published);
  for (fault::child* const one : survivors) {
    books.push_back(crew::hear_accounts(one->pipe()));
    require_balance(books.back(), published);
    CHECK(one->wait() == 0);
  }
  CHECK(books[0].lost_in_all() == 0);
  CHECK(books[1].lost_by(bus::loss::overwritten) > 0);
  CHECK(books[3].lost_by(bus::loss::queue_full) > 0);

  const auto row = crew::row_of(directory, source, bus::row_kind::publisher);
  REQUIRE(row);
  using namespace bus::column;
  CHECK(row->counts[bus::column::published] == published);
  CHECK(row->counts[offered] == row->counts[taken] + row->counts[full]);
  // Four links for all, and the killed one's for as long as it lived.
  CHECK(row->counts[offered] >= 4 * published + 2'000);
  CHECK(row->counts[offered] < 5 * published);
  const auto last_words = crew::row_of(directory, victim, bus::row_kind::subscription);
  REQUIRE(last_words);
  CHECK(last_words->counts[delivered] > 0);
  CHECK(last_words->counts[delivered] <= last_words->counts[expected]);
  CHECK(last_words->counts[expected] <= published);
  WARN("published " << published << "; delivered fast " << books[0].delivered << ", oldest "
                    << books[1].delivered << ", newest " << books[2].delivered << ", stopped "
                    << books[3].delivered << "; full " << row->counts[full]);
  publisher->pipe().say(0);
  CHECK(publisher->wait() == 0);
}

TEST_CASE("a publisher killed in mid-stream leaves books that balance with its last word") {
  constexpr unsigned seed = 20240607;
  std::mt19937 random(seed);
  INFO("seed " << seed);
  std::uint64_t cut = 0;
  std::uint64_t all = 0;
  for (int round = 0; round < 10; ++round) {
    INFO("round " << round);
    const tests::scratch_directory scratch;
    const std::string& directory = scratch.path();
    std::vector<std::unique_ptr<fault::child>> subscribers;
    subscribers.push_back(
        start_subscriber(directory, {.depth = 4096, .when_full = bus::drop::newest, .pause = 0ms}));
    subscribers.push_back(
        start_subscriber(directory, {.depth = 16, .when_full = bus::drop::newest, .pause = 1ms}));
    subscribers.push_back(
        start_subscriber(directory, {.depth = 16, .when_full = bus::drop::oldest, .pause = 1ms}));
    for (const auto& one : subscribers) static_cast<void>(hear_node(*one));
    const auto publisher =
        start_publisher(directory, {.subscribers = 3, .link_depth = 256, .batch = 32});
    const bus::node_id source = hear_node(*publisher);
    REQUIRE(reaches(directory, source, 1 + random() % 3'000));
    // Not a wait but the instant at which it dies.
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 2'000));
    publisher->kill();
    REQUIRE(publisher->wait() == -SIGKILL);
    const std::uint64_t published = crew::published_by(directory, source);
    for (const auto& one : subscribers) one->pipe().say(published);
    for (const auto& one : subscribers) {
      const bus::accounts books = crew::hear_accounts(one->pipe());
      require_balance(books, published);
      cut += books.lost_by(bus::loss::cut);
      all += published;
      CHECK(one->wait() == 0);
    }
  }
  WARN("10 killed publishers, 3 subscribers each: " << all << " owed, " << cut << " cut");
}
