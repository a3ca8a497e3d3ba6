// The demo's thinking, without its processes: what it reads, what it concludes, what it keeps, and
// when it says that an account is settled.
#include "examples/quakes/account.hpp"
#include "examples/quakes/feed.hpp"
#include "examples/quakes/journal.hpp"
#include "examples/quakes/latencies.hpp"
#include "examples/quakes/watch.hpp"
#include "tests/scratch.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include <catch2/catch.hpp>

namespace {

demo::feed parsed(const std::string& features) {
  std::istringstream text(R"({"type":"FeatureCollection","features":[)" + features + "]}");
  return demo::read_feed(text);
}

std::string feature(const std::string& id, const std::string& properties) {
  return R"({"id":")" + id + R"(","properties":{)" + properties +
         R"(},"geometry":{"coordinates":[1,2,null]}})";
}

demo::Quake quake_at(const std::string& id, double latitude, std::int64_t time_ms) {
  demo::Quake quake;
  quake.set_id(id);
  quake.set_type("earthquake");
  quake.set_latitude(latitude);
  quake.set_time_ms(time_ms);
  quake.set_updated_ms(time_ms);
  return quake;
}

demo::Entry entry_of(const demo::Quake& quake, demo::Entry::Kind kind = demo::Entry::KIND_LIVE) {
  demo::Entry entry;
  entry.set_kind(kind);
  *entry.mutable_quake() = quake;
  return entry;
}

}  // namespace

TEST_CASE("a text that is no feed is refused, and the feature is named") {
  std::istringstream cut_short(R"({"features":[{"id":)");
  REQUIRE_THROWS_WITH(demo::read_feed(cut_short), Catch::Contains("no earthquake feed"));
  REQUIRE_THROWS_WITH(parsed(feature("a", "") + R"(,{"properties":{}})"),
                      Catch::Contains("feature 1"));
  REQUIRE_THROWS_WITH(demo::read_feed_file("/no/such/feed"), Catch::Contains("--data"));
}

TEST_CASE("nulls stay absent, are counted, and get the level unknown") {
  const auto input = parsed(feature("a", R"("mag":null,"magType":null,"net":"US","time":5)"));
  const demo::Quake& quake = input.quakes.at(0);
  REQUIRE_FALSE(quake.has_magnitude());
  REQUIRE_FALSE(quake.has_depth_km());
  REQUIRE(quake.latitude() == 2);
  REQUIRE(input.found.nulls.at("mag") == 1);
  REQUIRE(input.found.nulls.at("depth") == 1);
  REQUIRE(demo::topic_of(quake) == "quakes/us/unknown");
}

TEST_CASE("no word of the feed makes a bad level") {
  REQUIRE_FALSE(demo::level_of("").empty());
  REQUIRE(demo::level_of("a/b*") == "a_b_");
  REQUIRE(demo::level_of("mb_Lg") == "mb_lg");
}

TEST_CASE("repeats, revisions and disorder are counted, and none is dropped") {
  const auto input = parsed(feature("a", R"("net":"x","time":9,"updated":10,"mag":-1)") + "," +
                            feature("b", R"("net":"x","time":3,"updated":10)") + "," +
                            feature("a", R"("net":"x","time":9,"updated":12)") + "," +
                            feature("a", R"("net":"x","time":9,"updated":10)"));
  REQUIRE(input.quakes.size() == 4);
  REQUIRE(input.keys().size() == 3);
  REQUIRE(input.found.repeats == 1);
  REQUIRE(input.found.revisions == 1);
  REQUIRE(input.found.out_of_order == 1);
  REQUIRE(input.found.negative_magnitudes == 1);
  const auto ordered = input.in_event_order("x");
  REQUIRE(ordered.size() == 4);
  REQUIRE(ordered.front()->id() == "b");
  REQUIRE(ordered.back()->updated_ms() == 12);
}

TEST_CASE("the week of the feed is read to the last feature") {
  const auto input = demo::read_feed_file(DEMO_DATA);
  REQUIRE(input.quakes.size() == 1707);
  REQUIRE(input.keys().size() == 1707);
  REQUIRE(input.networks().size() == 12);
  REQUIRE(input.found.out_of_order == 1706);
  REQUIRE(input.found.negative_magnitudes == 44);
  REQUIRE(input.found.nulls.at("felt") == 1580);
  std::size_t in_all = 0;
  for (const std::string& network : input.networks())
    in_all += input.in_event_order(network).size();
  REQUIRE(in_all == 1707);
}

TEST_CASE("a weak quake, a deleted one and one without magnitude raise no alert") {
  demo::watch watching;
  demo::Quake weak = quake_at("weak", 0, 1);
  weak.set_magnitude(4.9);
  REQUIRE(watching.see(weak).empty());
  REQUIRE(watching.see(quake_at("unknown", 40, 1)).empty());
  demo::Quake deleted = quake_at("deleted", 80, 1);
  deleted.set_magnitude(9);
  deleted.set_status(demo::Quake::STATUS_DELETED);
  REQUIRE(watching.see(deleted).empty());
}

TEST_CASE("an event alarms once for each level, and a stale report never") {
  demo::watch watching;
  demo::Quake quake = quake_at("a", 0, 1);
  quake.set_magnitude(5.2);
  const auto first = watching.see(quake);
  REQUIRE(first.size() == 1);
  REQUIRE(first[0].level() == demo::Alert::LEVEL_WARNING);
  REQUIRE(watching.see(quake).empty());
  quake.set_updated_ms(5);
  quake.set_magnitude(6.1);
  REQUIRE(watching.see(quake).at(0).level() == demo::Alert::LEVEL_DANGER);
  quake.set_updated_ms(3);
  quake.set_magnitude(8);
  REQUIRE(watching.see(quake).empty());
  demo::Quake wave = quake_at("b", 50, 1);
  wave.set_tsunami(true);
  REQUIRE(watching.see(wave).at(0).level() == demo::Alert::LEVEL_WARNING);
}

TEST_CASE("clusters come out the same in whatever order their quakes arrive") {
  // A chain of quakes, each near the next one only, and strangers far away in space or time.
  std::vector<demo::Quake> quakes;
  quakes.reserve(32);
  for (int i = 0; i < 30; ++i) {
    quakes.push_back(quake_at("near" + std::to_string(i), 0.2 * i, 3'600'000LL * i));
  }
  quakes.push_back(quake_at("elsewhere", -60, 0));
  quakes.push_back(quake_at("later", 0, 1'000'000'000'000));
  const unsigned seed = Catch::rngSeed() + 1;
  CAPTURE(seed);
  std::mt19937 dice(seed);
  for (int round = 0; round < 20; ++round) {
    std::shuffle(quakes.begin(), quakes.end(), dice);
    demo::watch watching;
    std::size_t notices = 0;
    for (const demo::Quake& quake : quakes) notices += watching.see(quake).size();
    const auto clusters = watching.clusters();
    REQUIRE(clusters.size() == 1);
    REQUIRE(clusters[0].quake_ids_size() == 30);
    REQUIRE(clusters[0].id() == "near0");
    REQUIRE(notices >= 1);
  }
}

TEST_CASE("distances are those of the Earth, also across the date line") {
  REQUIRE(demo::distance_km({0, 0}, {0, 1}) == Approx(111.2).epsilon(0.001));
  REQUIRE(demo::distance_km({179.5, 0}, {-179.5, 0}) == Approx(111.2).epsilon(0.001));
}

TEST_CASE("a journal that a death cut short at any byte keeps every whole entry and goes on") {
  const tests::scratch_directory scratch;
  const std::string path = scratch.path() + "/journal";
  {
    demo::journal written(path);
    for (int i = 0; i < 3; ++i) written.append(entry_of(quake_at("q" + std::to_string(i), 0, i)));
  }
  const std::string intact = path + ".intact";
  std::filesystem::copy_file(path, intact);
  for (auto size = std::filesystem::file_size(intact); size-- > 0;) {
    std::filesystem::copy_file(intact, path, std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(path, size);
    const std::size_t left = demo::journal::read(path).size();
    REQUIRE(left < 3);
    demo::journal reopened(path);
    REQUIRE(reopened.before().size() == left);
    reopened.append(entry_of(quake_at("new", 0, 1)));
    const auto now = demo::journal::read(path);
    REQUIRE(now.size() == left + 1);
    REQUIRE(now.back().quake().id() == "new");
  }
}

TEST_CASE("a journal does not believe a flipped bit") {
  const tests::scratch_directory scratch;
  const std::string path = scratch.path() + "/journal";
  demo::journal(path).append(entry_of(quake_at("q", 0, 1)));
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(12);
  file.put('\x55');
  file.close();
  REQUIRE(demo::journal::read(path).empty());
}

TEST_CASE("an account with anything missing, foreign or counted twice is not settled") {
  const auto input = parsed(feature("a", R"("time":1,"updated":1)") + "," +
                            feature("b", R"("time":2,"updated":2)"));
  std::vector<demo::Entry> journal{entry_of(input.quakes[0])};
  const auto one_missing = demo::settle("x", journal, input, nullptr);
  REQUIRE(one_missing.missing == std::vector<std::string>{"b@2"});
  REQUIRE_FALSE(one_missing.is_settled());

  journal.push_back(entry_of(input.quakes[1], demo::Entry::KIND_RECOVERED));
  const auto complete = demo::settle("x", journal, input, nullptr);
  REQUIRE(complete.is_settled());
  REQUIRE(complete.quakes.live() == 1);
  REQUIRE(complete.quakes.recovered() == 1);
  const std::set<std::string> alerts{"alerts/danger a reason"};
  REQUIRE_FALSE(demo::settle("x", journal, input, &alerts).is_settled());

  auto foreign = journal;
  foreign.push_back(entry_of(quake_at("z", 0, 1)));
  REQUIRE_FALSE(demo::settle("x", foreign, input, nullptr).is_settled());
  journal.push_back(entry_of(input.quakes[0]));
  REQUIRE_FALSE(demo::settle("x", journal, input, nullptr).is_settled());
}

TEST_CASE("a quantile is never too low, and at most 7 percent too high") {
  demo::latencies latency;
  REQUIRE(latency.quantile_us(0.99) == 0);
  for (std::int64_t i = 1; i <= 100'000; ++i) latency.add(i * 10);
  REQUIRE(latency.quantile_us(0.5) >= 500);
  REQUIRE(latency.quantile_us(0.5) <= 535);
  REQUIRE(latency.quantile_us(0.99) >= 990);
  REQUIRE(latency.quantile_us(0.99) <= 1060);
  demo::latencies extreme;
  extreme.add(-5);
  extreme.add(INT64_MAX);
  REQUIRE(extreme.count() == 2);
  REQUIRE(extreme.quantile_us(1.0) > 1e15);
}
