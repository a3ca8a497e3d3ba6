// `bus run --in` waits for its first publisher, and its input ends when the last one has left. One
// that came and went between two looks, and published nothing, was never noticed: the program
// waited for ever.
#include "tests/tool/workbench.hpp"

#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <string>

#include <poll.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using namespace tool_tests;

namespace {

bool is_stopped(const std::string& process) {
  std::ifstream file("/proc/" + process + "/stat");
  const std::string all{std::istreambuf_iterator<char>(file), {}};
  return all.find(") T ") != std::string::npos;
}

}  // namespace

TEST_CASE("a publisher that came and went while nobody looked ends the input of bus run --in") {
  const scratch where;
  bus::node other(where.options("other"));
  auto said = other.subscribe<bus::raw>(
      "said", {.depth = 1, .when_full = bus::drop::none, .block_for = 60s});
  running reader(where, {"run", "--in", "a", "--out", "said", "--", "sh", "-c",
                         "echo $PPID; echo two; echo three; cat; echo over"});
  std::string process;
  // For the third one it was told that there is room: so our way to it is open, too.
  for (int i = 0; i < 3; ++i) {
    const auto got = said.take(20s);
    REQUIRE(got);
    if (i > 0) continue;
    process.assign(reinterpret_cast<const char*>(got->bytes().data()), got->bytes().size() - 1);
  }
  reader.send_signal(SIGSTOP);
  const auto until = bus::deadline::after(20s);
  while (!is_stopped(process) && !until.passed()) ::poll(nullptr, 0, 1);
  REQUIRE(is_stopped(process));
  {
    const auto came = other.advertise<bus::raw>("a");
    while (came.backlog() == 0 && !until.passed()) other.run_for(1ms);
    REQUIRE(came.backlog() > 0);
  }
  // One turn says that it has gone.
  other.run_for(10ms);
  reader.send_signal(SIGCONT);
  const auto over = said.take(20s);
  REQUIRE(over);
  CHECK(std::string(reinterpret_cast<const char*>(over->bytes().data()), over->bytes().size()) ==
        "over\n");
  CHECK(reader.wait().code == 0);
}
