// `bus pipe`: a pipeline as a shell's, which can be tapped while it runs.
#include "tests/tool/workbench.hpp"

#include <chrono>
#include <csignal>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using namespace tool_tests;

TEST_CASE("a pipeline carries everything from stage to stage, and ends with its input") {
  const scratch where;
  std::string lines;
  for (int i = 0; i < 100'000; ++i) lines += std::to_string(i) + '\n';
  const outcome done = where.run({"pipe", "cat", "tr 0-9 a-j", "tr a-j 0-9"}, lines);
  CHECK(done.code == 0);
  CHECK(done.err.empty());
  CHECK((done.out == lines));
  CHECK(where.run({"pipe", "echo alone"}).out == "alone\n");
}

TEST_CASE("a stage that has enough ends those before it, as in a shell") {
  const scratch where;
  const outcome done = where.run({"pipe", "yes", "cat", "head -3"});
  CHECK(done.out == "y\ny\ny\n");
  CHECK(done.err.empty());
  CHECK(done.code == 0);
}

TEST_CASE("a pipeline ends with the code of the last stage that failed, and names all that did") {
  const scratch where;
  const outcome first = where.run({"pipe", "echo x; exit 3", "cat"});
  CHECK(first.code == 3);
  CHECK(first.out == "x\n");
  CHECK(has(first.err, "stage 1, echo x; exit 3, ended with 3"));
  const outcome both = where.run({"pipe", "exit 3", "exit 4", "cat"});
  CHECK(both.code == 4);
  CHECK(has(both.err, "stage 1"));
  CHECK(has(both.err, "stage 2"));
  CHECK(where.run({"pipe", "echo x", "no-such-program"}).code == 127);
  CHECK(where.run({"pipe", "echo x", "cat; kill -9 $$"}).code == 128 + SIGKILL);
}

TEST_CASE("every joint of a pipeline can be tapped while it runs") {
  const scratch where;
  running first(where, {"echo", "--raw", "pipe/demo/1", "--count", "3", "--timeout", "60"});
  running second(where, {"echo", "--raw", "pipe/demo/2", "--count", "3", "--timeout", "60"});
  // A line whenever somebody may have come to listen; until both have had three.
  running pipe(where, {"pipe", "--name", "demo", "while echo x; do sleep 0.05; done",
                       "while read -r l; do echo \"$l$l\"; done", "cat >/dev/null"});
  CHECK(first.wait().out == "x\nx\nx\n");
  CHECK(second.wait().out == "xx\nxx\nxx\n");
  pipe.send_signal(SIGTERM);
  CHECK(pipe.wait().code == 128 + SIGTERM);
}

TEST_CASE(
    "a tap that stands still does not hold the pipeline, and one that blocks misses nothing") {
  const scratch where;
  const other_process still(where, "still", [](bus::node& own, const auto& ready) {
    auto* const taps = new auto(own.subscribe<bus::raw>("pipe/demo/1"));
    wait_told(own, 0, 1);
    static_cast<void>(taps);
    ready();
  });
  bus::node careful(where.options("careful"));
  auto taps = careful.subscribe<bus::raw>(
      "pipe/demo/1", {.depth = 4, .when_full = bus::drop::none, .block_for = 60s});
  running pipe(where, {"pipe", "--name", "demo", "seq 1 5000", "tail -1"});
  for (int i = 1; i <= 5000; ++i) {
    const auto got = taps.take(60s);
    REQUIRE(got);
    REQUIRE(std::string(reinterpret_cast<const char*>(got->bytes().data()), got->bytes().size()) ==
            std::to_string(i) + "\n");
  }
  const outcome done = pipe.wait();
  CHECK(done.out == "5000\n");
  CHECK(done.code == 0);
}

TEST_CASE("SIGTERM ends a pipeline with all its stages") {
  const scratch where;
  running pipe(where, {"pipe", "while :; do sleep 0.05; echo x; done", "cat >/dev/null"});
  // It is there once its topic is.
  while (!has(where.run({"list", "--names"}).out, "pipe/")) {
  }
  pipe.send_signal(SIGTERM);
  CHECK(pipe.wait().code == 128 + SIGTERM);
}
