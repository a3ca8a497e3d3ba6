// bus bench leaves nothing behind, however it ends.
#include "bus/base/clock.hpp"
#include "tests/tool/workbench.hpp"

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace tool_tests;

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

  [[nodiscard]] bool empty() const { return fs::is_empty(path_); }
  // Nodes that have their files in a folder of a bench.
  [[nodiscard]] std::size_t nodes() const {
    std::size_t count = 0;
    std::error_code gone;  // it may go while we look
    for (fs::recursive_directory_iterator at(path_, gone), end; !gone && at != end;
         at.increment(gone)) {
      count += at->path().extension() == ".card" ? 1 : 0;
    }
    return count;
  }

 private:
  std::string path_;
};

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

}  // namespace

TEST_CASE("every way of waiting is measured, beside its limit, and nothing is lost") {
  const scratch where;
  const auto [workload, more] = GENERATE(table<std::string, std::vector<std::string>>({
      {"latency", {"--wait", "sleep"}},
      {"latency", {"--wait", "sleep", "--loop", "event"}},
      {"latency", {"--wait", "sleep", "--loop", "signal"}},
      {"latency", {"--wait", "spin"}},
      {"throughput", {"--wait", "spin_then_sleep"}},
      {"throughput", {"--batch", "32"}},
      {"fanout", {"--subscribers", "2"}},
  }));
  std::vector<std::string> words{"bench", workload, "--count", "2000", "--rounds", "1", "--json"};
  words.insert(words.end(), more.begin(), more.end());
  const outcome done = where.run(words);
  INFO(workload << ' ' << more.back() << ": " << done.err);
  REQUIRE(done.code == 0);
  const auto line = nlohmann::json::parse(done.out);
  CHECK(line["lost"] == 0);
  CHECK(line["count"] >= 2000);
  CHECK(line["limit_value"] > 0.0);
  CHECK(line["ratio"] > 0.0);
}

TEST_CASE("a bench that ends well leaves nothing") {
  const scratch where;
  const temporary_files_here temporary(where);
  for (const char* const transport : {"shm", "inproc"}) {
    const outcome done = where.run({"bench", "latency", "--transport", transport, "--count", "100",
                                    "--rounds", "1", "--no-limits", "--wait", "sleep"});
    CHECK(done.code == 0);
    CHECK(temporary.empty());
  }
}

TEST_CASE("a bench that is killed or interrupted takes its peers and its folder with it") {
  const scratch where;
  const temporary_files_here temporary(where);
  for (const int number : {SIGKILL, SIGTERM, SIGINT}) {
    INFO("signal " << number);
    running bench(where, {"bench", "fanout", "--subscribers", "2", "--rounds", "1000",
                          "--no-limits", "--wait", "sleep"});
    REQUIRE(eventually([&] { return temporary.nodes() == 3; }));
    bench.send_signal(number);
    CHECK(bench.wait().code == 128 + number);
    // Only when the last of its processes has ended does the folder go.
    CHECK(eventually([&] { return temporary.empty(); }));
  }
}
