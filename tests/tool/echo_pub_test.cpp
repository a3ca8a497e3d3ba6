// echo, pub, hz and bw, as people run them: the real binary beside real nodes.
#include "schemas/demo/quake.pb.h"
#include "tests/tool/workbench.hpp"

#include <chrono>
#include <csignal>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace std::chrono_literals;
using namespace tool_tests;
using json = nlohmann::json;

namespace {

demo::Quake quake(const std::string& id, double magnitude) {
  demo::Quake made;
  made.set_id(id);
  made.set_magnitude(magnitude);
  made.set_place("somewhere, \"far\"");
  made.set_time_ms(1'700'000'000'000);
  return made;
}

struct pose {
  double x;
  double y;
};

}  // namespace

TEST_CASE("echo decodes a protobuf topic by the schema on the bus") {
  const scratch where;
  bus::node seismograph(where.options("seismograph"));
  auto quakes = seismograph.advertise<demo::Quake>("quakes/ak");
  running echo(where, {"echo", "quakes/**", "--once", "--json", "--timeout", "20"});
  REQUIRE(quakes.wait_matched(1, 20s));
  CHECK(quakes.publish(quake("ak1", 5.5)));
  const outcome seen = echo.wait();
  INFO(seen.err);
  CHECK(seen.code == 0);
  const json line = json::parse(seen.out);
  CHECK(line["topic"] == "quakes/ak");
  CHECK(line["type"] == "demo.Quake");
  CHECK(line["sequence"] == 1);
  CHECK(line["message"]["id"] == "ak1");
  CHECK(line["message"]["magnitude"] == 5.5);
}

TEST_CASE("echo chooses fields, filters, and writes csv with a header") {
  const scratch where;
  bus::node seismograph(where.options("seismograph"));
  auto quakes = seismograph.advertise<demo::Quake>("quakes/ak");
  running echo(where, {"echo", "quakes/ak", "--filter", "magnitude >= 5", "--csv", "--no-meta",
                       "--field", "id", "--field", "place", "--count", "2", "--timeout", "20"});
  REQUIRE(quakes.wait_matched(1, 20s));
  CHECK(quakes.publish(quake("small", 1)));
  CHECK(quakes.publish(quake("large", 6)));
  CHECK(quakes.publish(quake("larger", 7)));
  const outcome seen = echo.wait();
  INFO(seen.err);
  CHECK(seen.code == 0);
  CHECK(seen.out ==
        "id,place\nlarge,\"somewhere, \"\"far\"\"\"\nlarger,\"somewhere, \"\"far\"\"\"\n");
}

TEST_CASE("echo shows raw text as text, plain structs as hex, and --raw as they are") {
  const scratch where;
  bus::node talker(where.options("talker"));
  auto words = talker.advertise<bus::raw>("words");
  auto poses = talker.advertise<pose>("poses");
  running text(where, {"echo", "words", "--once", "--no-meta", "--timeout", "20"});
  running bytes(where, {"echo", "words", "--once", "--raw", "--timeout", "20"});
  running hex(where, {"echo", "poses", "--once", "--no-meta", "--timeout", "20"});
  REQUIRE(words.wait_matched(2, 20s));
  REQUIRE(poses.wait_matched(1, 20s));
  const std::string line = "hello";
  CHECK(words.publish(std::as_bytes(std::span(line))));
  CHECK(poses.publish(pose{1, 2}));
  CHECK(text.wait().out == "hello\n");
  CHECK(bytes.wait().out == "hello");
  CHECK(hex.wait().out == "hex:000000000000f03f0000000000000040\n");
}

TEST_CASE("echo --block is a subscription that blocks, and pub does not overrun it") {
  const scratch where;
  running echo(
      where, {"echo", "words", "--block", "20", "--count", "3000", "--no-meta", "--timeout", "60"});
  std::string lines;
  for (int i = 0; i < 3000; ++i) lines += "word " + std::to_string(i) + '\n';
  const outcome sent = where.run({"pub", "words", "--raw", "-w", "1", "-"}, lines);
  const outcome seen = echo.wait();
  CHECK(sent.code == 0);
  CHECK(seen.code == 0);
  CHECK(seen.err.empty());
  CHECK(seen.out == lines);
}

TEST_CASE("echo that hears nothing ends with 3 and says to ask why") {
  const scratch where;
  const outcome seen = where.run({"echo", "nobody", "--once", "--timeout", "0.2"});
  CHECK(seen.code == 3);
  CHECK(seen.out.empty());
  CHECK(has(seen.err, "bus why 'nobody'"));
}

TEST_CASE("SIGINT ends echo cleanly and leaves no files behind") {
  const scratch where;
  bus::node talker(where.options("talker"));
  {
    auto words = talker.advertise<bus::raw>("words");
    running echo(where, {"echo", "words"});
    REQUIRE(words.wait_matched(1, 20s));
    echo.send_signal(SIGINT);
    CHECK(echo.wait().code == 0);
  }
  const outcome nodes = where.run({"list", "--all", "--json"});
  CHECK(json::parse(nodes.out)["node"] == "talker");
}

TEST_CASE("echo whose reader went away ends at once, and quietly") {
  const scratch where;
  running echo(where, {"echo", "words"});
  echo.close_output();
  const outcome seen = echo.wait();
  CHECK(seen.code == 0);
  CHECK(seen.err.empty());
}

TEST_CASE("pub makes a message out of JSON, by the type of the subscriber") {
  const scratch where;
  bus::node reader(where.options("reader"));
  auto quakes = reader.subscribe<demo::Quake>("quakes/**");
  running pub(where, {"pub", "quakes/ak", R"({"id": "ak9", "magnitude": 6.5})"});
  const auto got = quakes.take(20s);
  REQUIRE(got);
  CHECK((*got)->id() == "ak9");
  CHECK((*got)->magnitude() == 6.5);
  const outcome done = pub.wait();
  INFO(done.err);
  CHECK(done.code == 0);
}

TEST_CASE("pub of one message and leaving at once loses nothing, over and over") {
  const scratch where;
  bus::node reader(where.options("reader"));
  auto words = reader.subscribe<bus::raw>("words");
  for (int i = 0; i < 10; ++i) {
    running pub(where, {"pub", "--raw", "words", std::to_string(i)});
    const auto got = words.take(20s);
    REQUIRE(got);
    CHECK(std::string(reinterpret_cast<const char*>(got->bytes().data()), got->bytes().size()) ==
          std::to_string(i));
    CHECK(pub.wait().code == 0);
  }
}

TEST_CASE("pub publishes lines of its input, in order, and none is lost") {
  const scratch where;
  bus::node reader(where.options("reader"));
  auto words = reader.subscribe<bus::raw>("words", {.depth = 8192});
  std::string input;
  constexpr int lines = 5000;
  for (int i = 0; i < lines; ++i) input += std::to_string(i) + '\n';
  running pub(where, {"pub", "--raw", "words"}, input);
  for (int i = 0; i < lines; ++i) {
    const auto got = words.take(20s);
    REQUIRE(got);
    const std::string text(reinterpret_cast<const char*>(got->bytes().data()), got->bytes().size());
    REQUIRE(text == std::to_string(i) + '\n');
  }
  CHECK(pub.wait().code == 0);
  CHECK(words.accounts().lost_in_all() == 0);
}

TEST_CASE("pub -r -t publishes so often, and no faster") {
  const scratch where;
  bus::node reader(where.options("reader"));
  auto words = reader.subscribe<bus::raw>("words");
  const auto begun = std::chrono::steady_clock::now();
  running pub(where, {"pub", "-r", "50", "-t", "10", "-w", "1", "--raw", "words", "x"});
  for (int i = 0; i < 10; ++i) REQUIRE(words.take(20s));
  CHECK(std::chrono::steady_clock::now() - begun >= 180ms);
  CHECK(pub.wait().code == 0);
}

TEST_CASE("pub that waits for subscribers in vain ends with 3") {
  const scratch where;
  const outcome done = where.run({"pub", "-w", "1", "--timeout", "0.2", "--raw", "words", "x"});
  CHECK(done.code == 3);
  CHECK(has(done.err, "0 of 1 subscribers"));
}

TEST_CASE("pub refuses JSON that the type does not allow, and shows what it does") {
  const scratch where;
  bus::node reader(where.options("reader"));
  const auto quakes = reader.subscribe<demo::Quake>("quakes/ak");
  const outcome done = where.run({"pub", "quakes/ak", R"({"magnitudo": 6.5})"});
  CHECK(done.code == 2);
  CHECK(has(done.err, "magnitudo"));
  CHECK(has(done.err, "demo.Quake"));
}

TEST_CASE("pub refuses a type that nobody names, and a bad topic") {
  const scratch where;
  CHECK(where.run({"pub", "--type", "demo.Nothing", "a", "{}"}).code == 1);
  const outcome bad = where.run({"pub", "--raw", "a/*/b", "x"});
  CHECK(bad.code == 2);
  CHECK(has(bad.err, "a/*/b"));
}

TEST_CASE("a rate or a time that is no number above 0 is refused in a short sentence") {
  const scratch where;
  for (const char* const wrong : {"0", "-1", "often", "--once", "inf", ""}) {
    INFO(wrong);
    const outcome rate = where.run({"pub", "words", "x", "-r", wrong});
    CHECK(rate.code == 2);
    CHECK(has(rate.err, "--rate"));
    const outcome time = where.run({"echo", "words", "--block", wrong});
    CHECK(time.code == 2);
    CHECK(has(time.err, "--block"));
    CHECK(rate.err.size() + time.err.size() < 300);
  }
}

TEST_CASE("hz and bw measure what is published, one JSON object a window") {
  const scratch where;
  running source(where, {"pub", "-r", "100", "--raw", "words", "0123456789"});
  const outcome hz = where.run({"hz", "words", "--window", "0.5", "--count", "3", "--json"});
  REQUIRE(hz.code == 0);
  const json last = json::parse(hz.out.substr(hz.out.rfind('\n', hz.out.size() - 2) + 1));
  CHECK(last["topic"] == "words");
  // A crowded machine is slow, and never fast.
  CHECK(last["per_second"].get<double>() > 5);
  CHECK(last["per_second"].get<double>() < 200);
  const outcome bw = where.run({"bw", "words", "--window", "0.5", "--count", "1", "--json"});
  REQUIRE(bw.code == 0);
  CHECK(json::parse(bw.out)["bytes_mean"] == 10.0);
  source.send_signal(SIGINT);
  CHECK(source.wait().code == 0);
  CHECK(where.run({"hz", "nothing", "--window", "0.1", "--timeout", "0.2"}).code == 3);
}
