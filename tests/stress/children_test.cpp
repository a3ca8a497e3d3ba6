// Thousands of children, started and killed: nothing of them stays.
#include "bus/base/child_process.hpp"
#include "tests/contract/world.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <thread>
#include <vector>

#include <sys/wait.h>

#include <catch2/catch.hpp>

namespace {

std::ptrdiff_t descriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

// Children that have ended, and that nobody has asked about, are among them.
bool has_children() {
  siginfo_t about{};
  return ::waitid(P_ALL, 0, &about, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

// How many of `cycles` went as they should: a program that runs until it is killed.
std::uint64_t start_and_kill(std::uint64_t cycles, bool is_bound,
                             const std::optional<bus::confinement>& confined = {}) {
  std::uint64_t good = 0;
  for (std::uint64_t i = 0; i < cycles; ++i) {
    auto child = bus::child_process::start(
        {.command = {"sleep", "1000"}, .is_bound = is_bound, .confined = confined});
    if (!child || child->poll() || !child->signal(SIGKILL)) continue;
    good += child->wait() == bus::exit_status{.signal = SIGKILL} ? 1 : 0;
  }
  return good;
}

}  // namespace

TEST_CASE("of 10,000 children that are started and killed, no descriptor and no process is left") {
  // The thread that starts bound children stays.
  REQUIRE(start_and_kill(1, true) == 1);
  const auto before = descriptors();
  const std::uint64_t each = contract::times(10'000) / 4;
  std::atomic<std::uint64_t> good = 0;
  contract::together(
      {[&] { good += start_and_kill(each, true); }, [&] { good += start_and_kill(each, true); },
       [&] { good += start_and_kill(each, false); }, [&] { good += start_and_kill(each, false); }});
  CHECK(good == 4 * each);
  CHECK(descriptors() == before);
  CHECK_FALSE(has_children());
}

TEST_CASE("of 1,000 children that are locked in, no descriptor, mount and process is left") {
  const auto mounts = [] {
    std::ifstream file("/proc/self/mountinfo");
    return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
  };
  const bus::confinement usual;
  // As root it is another mount namespace of the same user then.
  const bus::confinement ours{.without = {bus::wall::user_namespace}};
  REQUIRE(start_and_kill(1, true, usual) == 1);
  const auto descriptors_before = descriptors();
  const auto mounts_before = mounts();
  const std::uint64_t each = contract::times(1'000) / 4;
  std::atomic<std::uint64_t> good = 0;
  contract::together({[&] { good += start_and_kill(each, true, usual); },
                      [&] { good += start_and_kill(each, false, usual); },
                      [&] { good += start_and_kill(each, false, ours); },
                      [&] { good += start_and_kill(each, false, usual); }});
  CHECK(good == 4 * each);
  CHECK(descriptors() == descriptors_before);
  CHECK(mounts() == mounts_before);
  CHECK_FALSE(has_children());
}

TEST_CASE("of 1,000 children that their owner forgets, none is left") {
  const auto before = descriptors();
  std::vector<bus::child_process> crowd;
  for (std::uint64_t i = 0; i < contract::times(1'000); ++i) {
    auto child = bus::child_process::start({.command = {"sleep", "1000"}});
    REQUIRE(child);
    crowd.push_back(std::move(*child));
    if (crowd.size() == 50) crowd.clear();
  }
  crowd.clear();
  CHECK(descriptors() == before);
  CHECK_FALSE(has_children());
}
