// bus chaos: it balances, it leaves nothing, and what does not balance is named.
//
// OMNIBUS_CHAOS_SECONDS makes the first case longer (CI: 60), OMNIBUS_CHAOS_SEED repeats one.
#include "bus/base/clock.hpp"
#include "bus/tool/chaos_plan.hpp"
#include "bus/tool/chaos_verdict.hpp"
#include "tests/tool/workbench.hpp"

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace tool_tests;
using namespace bus::tool;

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

// Makes /tmp a folder of the test's own while it lives.
class temporary_files_here {
 public:
  explicit temporary_files_here(const scratch& where) : path_(where.path() + "/tmp") {
    fs::create_directory(path_);
    ::setenv("TMPDIR", path_.c_str(), 1);
  }
  ~temporary_files_here() { ::unsetenv("TMPDIR"); }
  temporary_files_here(const temporary_files_here&) = delete;
  temporary_files_here& operator=(const temporary_files_here&) = delete;
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

std::string from_environment(const char* name, const std::string& otherwise) {
  const char* const value = std::getenv(name);
  return value ? value : otherwise;
}

std::string drawn_seed() {
  return from_environment("OMNIBUS_CHAOS_SEED", std::to_string(std::random_device{}()));
}

// Looks every 2 ms: other processes' files call nobody.
template <class Holds>
bool eventually(Holds&& holds) {
  const auto until = bus::deadline::after(20s);
  while (!holds()) {
    if (until.passed()) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

// A subscriber and a publisher on paper, whose accounts balance: 10 published and taken.
struct paper {
  chaos_options options{.seed = 1, .publishers = 1, .subscribers = 1};
  static constexpr std::uint32_t lives = 2;
  static constexpr std::uint64_t node = 77;
  subscriber_arrays arrays{lives};
  std::vector<std::uint64_t> memory = std::vector<std::uint64_t>(arrays.bytes() / 8);
  subscriber_record& record = *reinterpret_cast<subscriber_record*>(memory.data());
  chaos_judge judge{options, lives};

  paper() {
    const std::size_t count = subscriber_like(options, 1, 0).subscriptions.size();
    for (std::size_t i = 0; i < count; ++i) {
      books_record& books = record.books[i];
      for (recorded* each : {&books.taken, &books.expected, &books.delivered}) note_down(*each, 10);
      attachment_record& from = arrays.attachment(record, i);
      note_down(from.node, node);
      note_down(from.publisher, 1);
      note_down(from.subscription, i);
      note_down(from.start, 1);
      note_down(arrays.source(record, 0, 0, i).last, 10);
      note_down(record.attachments, i + 1);
    }
  }
  [[nodiscard]] static publisher_account publisher(std::uint64_t done) {
    publisher_account made;
    made.node = bus::node_id{node};
    made.topics[0] = {.number = 1, .meant = done, .done = done, .published = {}};
    return made;
  }
  // How many findings there are when the publisher says that it has published so many.
  [[nodiscard]] std::vector<finding> findings(std::uint64_t published) {
    judge.set_living({publisher(published)});
    const subscriber_account one{.seat = 1, .life = 1, .record = &record};
    std::vector<finding> all = judge.judge(one, 0);
    for (finding& each : judge.judge_at_rest(one, 0)) all.push_back(std::move(each));
    return all;
  }
};

}  // namespace

TEST_CASE("accounts that balance on paper give no finding") { CHECK(paper().findings(10).empty()); }

TEST_CASE("a message that nobody accounts for is a finding") {
  CHECK_FALSE(paper().findings(11).empty());
}

TEST_CASE("a message that was never published is a finding") {
  CHECK_FALSE(paper().findings(9).empty());
}

TEST_CASE("a message that waits, or was taken uncounted, is a finding") {
  paper waits;
  note_down(waits.record.books[0].queued, 1);
  note_down(waits.record.books[0].delivered, 9);
  note_down(waits.record.books[0].taken, 9);
  CHECK_FALSE(waits.findings(10).empty());
  paper uncounted;
  note_down(uncounted.record.books[0].taken, 11);
  CHECK_FALSE(uncounted.findings(10).empty());
}

TEST_CASE("a breach is a finding that names the message and what was wrong") {
  paper broken;
  note_down(broken.record.breaches, 1);
  breach_record& one = broken.record.first_breaches[0];
  note_down(one.what, static_cast<std::uint64_t>(breach::duplicated));
  note_down(one.message.sequence, 7);
  const auto found = broken.findings(10);
  REQUIRE(found.size() == 1);
  CHECK(has(found.front().words, "duplicated"));
  CHECK(has(found.front().words, "message 7"));
}

TEST_CASE("a killed publisher whose ledger says less than it had published is a finding") {
  publisher_account one = paper::publisher(10);
  one.topics[0].published = 9;
  CHECK(chaos_judge::judge(one).size() == 1);
  one.topics[0].published = 10;
  CHECK(chaos_judge::judge(one).empty());
}

TEST_CASE("a torn message does not prove itself") {
  std::vector<std::byte> bytes(64);
  const chaos_message said{5, 1, 2, 3};
  said.write(bytes);
  CHECK(chaos_message::read(bytes, 5).whole);
  CHECK_FALSE(chaos_message::read(bytes, 6).whole);
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    auto torn = bytes;
    torn[at] ^= std::byte{1};
    CHECK_FALSE(chaos_message::read(torn, 5).whole);
  }
}

TEST_CASE("the schedule follows from the seed alone, and kills, stops and restarts") {
  const chaos_options options{.seconds = 10, .seed = 42};
  const chaos_plan one = plan_chaos(options);
  const chaos_plan again = plan_chaos(options);
  REQUIRE(one.deeds.size() == again.deeds.size());
  std::vector<int> count(5);
  for (std::size_t i = 0; i < one.deeds.size(); ++i) {
    CHECK(one.deeds[i].at_ns == again.deeds[i].at_ns);
    CHECK(one.deeds[i].what == again.deeds[i].what);
    CHECK(one.deeds[i].seat == again.deeds[i].seat);
    ++count[static_cast<std::size_t>(one.deeds[i].what)];
  }
  for (const int each : count) CHECK(each > 10);
  CHECK(plan_chaos({.seconds = 10, .seed = 43}).deeds.size() != one.deeds.size());
}

TEST_CASE("whoever is killed, stopped and restarted, the accounts balance and nothing is left") {
  const scratch where;
  const temporary_files_here temporary(where);
  const std::string seed = drawn_seed();
  const std::string seconds = from_environment("OMNIBUS_CHAOS_SECONDS", "4");
  WARN("seed " << seed << ", " << seconds << " s");
  const outcome done = where.run({"chaos", "--seconds", seconds, "--seed", seed});
  INFO(done.out << done.err);
  CHECK(done.code == 0);
  CHECK(has(done.out, "balanced"));
  CHECK(fs::is_empty(temporary.path()));
}

TEST_CASE("the accounts balance over zmq, too, and JSON says what was done") {
  const scratch where;
  const temporary_files_here temporary(where);
  const std::string seed = drawn_seed();
  const outcome done = where.run({"chaos", "--seconds", "3", "--seed", seed, "--transport", "zmq",
                                  "--publishers", "2", "--subscribers", "2", "--json"});
  INFO("seed " << seed << '\n' << done.out << done.err);
  REQUIRE(done.code == 0);
  const auto said = nlohmann::json::parse(done.out);
  CHECK(said["balanced"] == true);
  CHECK(said["seed"].get<std::uint64_t>() == std::stoull(seed));
  CHECK(said["started"].get<int>() > 4);
  CHECK(said["published"].get<std::uint64_t>() > 0);
  CHECK(fs::is_empty(temporary.path()));
}

TEST_CASE("where nobody can be killed, chaos refuses") {
  const scratch where;
  CHECK(where.run({"chaos", "--transport", "inproc"}).code == 2);
  CHECK(where.run({"chaos", "--seconds", "0"}).code == 2);
}

TEST_CASE("a chaos that is killed takes its parties and its folder with it") {
  const scratch where;
  const temporary_files_here temporary(where);
  running chaos(where, {"chaos", "--seconds", "1000"});
  REQUIRE(eventually([&] { return !fs::is_empty(temporary.path()); }));
  chaos.send_signal(SIGKILL);
  CHECK(chaos.wait().code == 128 + SIGKILL);
  CHECK(eventually([&] { return fs::is_empty(temporary.path()); }));
}
