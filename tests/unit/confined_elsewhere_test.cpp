// Locking in where the kernel gives less: to other users, and where it gives no namespaces. The
// tests of the tag [walls] are run there once more, by a copy of this program that everybody may
// run.
#include "bus/base/child_process.hpp"
#include "tests/calm_sanitizers.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace {

using bus::child_process;
using bus::confinement;
using bus::exit_status;
using bus::fd;

constexpr const char* somebody = "4711";
constexpr const char* setuid_variable = "OMNIBUS_TEST_SETUID";

class public_place {
 public:
  public_place() {
    if (!::mkdtemp(path_.data())) FAIL("no scratch directory");
    REQUIRE(::chmod(path_.c_str(), 0755) == 0);
  }
  ~public_place() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  public_place(const public_place&) = delete;
  public_place& operator=(const public_place&) = delete;

  [[nodiscard]] std::string copy_of(const std::string& program, mode_t mode) const {
    std::string copy = path_ + "/" + std::filesystem::canonical(program).filename().string();
    std::filesystem::copy_file(program, copy);
    REQUIRE(::chmod(copy.c_str(), mode) == 0);
    return copy;
  }

 private:
  std::string path_ = "/tmp/omnibus-public-XXXXXX";
};

std::vector<std::string> as_somebody(std::vector<std::string> command) {
  const std::string id = somebody;
  const std::array first = {std::string("setpriv"), "--reuid=" + id, "--regid=" + id,
                            std::string("--clear-groups")};
  command.insert(command.begin(), first.begin(), first.end());
  return command;
}

// Root's rights are none, and no more user namespaces can be made: neither by it nor by us.
std::vector<std::string> without_namespaces(std::vector<std::string> command) {
  const std::array first = {
      std::string("unshare"),
      std::string("-Ur"),
      std::string("sh"),
      std::string("-c"),
      std::string("echo 0 > /proc/sys/user/max_user_namespaces && "
                  "exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all \"$@\""),
      std::string("sh")};
  command.insert(command.begin(), first.begin(), first.end());
  return command;
}

exit_status end_of(std::vector<std::string> command) {
  auto child = child_process::start({.command = std::move(command)});
  if (!child) FAIL(child.error().message());
  return child->wait();
}

bool is_root() { return ::geteuid() == 0; }

// x86-64 has a second set of numbers, that of x32; other architectures have one only.
void call_as_another_architecture() {
#if defined(__x86_64__)
  ::syscall(0x4000'0000L | SYS_getpid);
#else
  ::kill(::getpid(), SIGSYS);
#endif
}

}  // namespace

TEST_CASE("children of an unprivileged user are locked in as well") {
  if (!is_root()) return;
  const public_place place;
  const std::string copy = place.copy_of("/proc/self/exe", 0755);
  CHECK(end_of(as_somebody({copy, "[walls]"})) == exit_status{});
}

TEST_CASE("where there are no namespaces, Landlock and seccomp are enough") {
  if (!end_of(without_namespaces({"true"})).succeeded()) {
    WARN("not shown here: no namespace can be made in which none can be made");
    return;
  }
  const public_place place;
  const std::string copy = place.copy_of("/proc/self/exe", 0755);
  CHECK(end_of(without_namespaces({copy, "[walls]"})) == exit_status{});
  if (is_root()) CHECK(end_of(as_somebody(without_namespaces({copy, "[walls]"}))) == exit_status{});
}

TEST_CASE("somebody runs a program of root's", "[.]") {
  const std::string program = std::getenv(setuid_variable);
  // As root unless it is locked in; the numbers are in its output.
  for (const bool is_confined : {false, true}) {
    bus::child_plan plan{.command = {program, "-u"}};
    if (is_confined) plan.confined = confinement{};
    REQUIRE(child_process::start(plan)->wait() == exit_status{});
  }
}

TEST_CASE("a program of root's gives a locked-in child nothing") {
  if (!is_root()) return;
  const public_place place;
  const std::string copy = place.copy_of("/proc/self/exe", 0755);
  const std::string root = place.copy_of("/usr/bin/id", 04755);
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  const fd out(ends[0]);
  fd in(ends[1]);
  auto child =
      child_process::start({.command = as_somebody({copy, "somebody runs a program of root's"}),
                            .environment = {std::string(setuid_variable) + "=" + root},
                            .descriptors = {{in.get(), STDOUT_FILENO}}});
  REQUIRE(child);
  in.reset();
  CHECK(child->wait() == exit_status{});
  std::array<char, 4096> said{};
  const ssize_t got = ::read(out.get(), said.data(), said.size());
  REQUIRE(got > 0);
  const std::string all(said.data(), static_cast<std::size_t>(got));
  INFO(all);
  if (!all.starts_with("0\n")) WARN("not shown here: /tmp has no such programs");
  CHECK(all.find(std::string(somebody) + "\n") != std::string::npos);
  CHECK(all.find("0\n", 2) == std::string::npos);
}

TEST_CASE("a call of another architecture", "[.]") { call_as_another_architecture(); }

TEST_CASE("a call by the numbers of another architecture ends a locked-in child") {
  auto child =
      child_process::start({.command = {"/proc/self/exe", "a call of another architecture"},
                            .environment = tests::calm_sanitizers,
                            .confined = confinement{}});
  REQUIRE(child);
  CHECK(child->wait() == exit_status{.signal = SIGSYS});
}
