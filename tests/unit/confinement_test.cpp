// A locked-in child has no way out: each is tried twice, by the same program, locked in and not.
#include "bus/base/child_process.hpp"
#include "tests/calm_sanitizers.hpp"
#include "tests/unit/escape_target.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace {

using bus::child_plan;
using bus::child_process;
using bus::confinement;
using bus::errc;
using bus::exit_status;
using bus::fd;
using bus::wall;
using bus::walls;
using tests::way;

struct outcomes {
  std::map<std::string, int> errors;
  walls held;
  int signals = 0;

  [[nodiscard]] bool succeeded(std::string_view name) const {
    return errors.at(std::string(name)) == 0;
  }
};

void reap_all() {
  while (::waitpid(-1, nullptr, 0) > 0 || errno == EINTR) continue;
}

// All attempts of one child of this program.
outcomes tried(tests::target& at, const std::optional<confinement>& confined) {
  at.restore();
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  const fd out(ends[0]);
  fd in(ends[1]);
  const fd nowhere(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const child_plan plan{.command = {"/proc/self/exe", "a child that tries to get out"},
                        .environment = tests::calm_sanitizers,
                        .descriptors = {{nowhere.get(), STDOUT_FILENO},
                                        {in.get(), tests::results_fd},
                                        {at.terminal(), tests::terminal_fd},
                                        {at.told(), tests::target_fd}},
                        .confined = confined};
  auto child = child_process::start(plan);
  if (!child) FAIL(child.error().message());
  in.reset();
  std::string said;
  std::array<char, 4096> some{};
  for (ssize_t got = 0; (got = ::read(out.get(), some.data(), some.size())) > 0;) {
    said.append(some.data(), static_cast<std::size_t>(got));
  }
  outcomes all;
  all.held = child->locked_in_by();
  INFO(all.held.describe());
  CHECK(child->wait() == exit_status{});
  reap_all();
  std::istringstream lines(said);
  for (std::string name; std::getline(lines, name, '\t');) {
    lines >> all.errors[name];
    lines.ignore();
  }
  REQUIRE(all.errors.size() == tests::attempts().size());
  all.signals = at.signals_received();
  return all;
}

void check_closed(const outcomes& all) {
  INFO(all.held.describe());
  CHECK(all.held.is_closed());
  CHECK(all.signals == 0);
  for (const tests::attempt& one : tests::attempts()) {
    if (one.kind == way::names && !all.held.holds(wall::mount_namespace)) continue;
    INFO(one.name);
    CHECK_FALSE(all.succeeded(one.name));
  }
}

}  // namespace

TEST_CASE("a child that tries to get out", "[.]") { tests::try_all(); }

TEST_CASE("whatever gets a child out, no longer does when it is locked in", "[walls]") {
  tests::target at;
  const outcomes free = tried(at, std::nullopt);
  CHECK(free.held.describe() == "not locked in");
  CHECK_FALSE(free.held.is_closed());
  CHECK(free.signals == tests::signals_max);
  for (const tests::attempt& one : tests::attempts()) {
    INFO(one.name << ": " << free.errors.at(std::string(one.name)));
    if (one.always) {
      CHECK(free.succeeded(one.name));
    } else if (!free.succeeded(one.name)) {
      WARN("not shown here, the kernel forbids it anyhow: " << one.name);
    }
  }
  check_closed(tried(at, confinement{}));
}

TEST_CASE("what some walls leave open, the others close", "[walls]") {
  tests::target at;
  const std::vector<std::vector<wall>> missing = {
      {wall::landlock},
      {wall::mount_namespace},
      {wall::network_namespace},
      {wall::ipc_namespace},
      {wall::user_namespace},
      {wall::user_namespace, wall::mount_namespace, wall::network_namespace, wall::ipc_namespace},
      {wall::landlock, wall::network_namespace, wall::ipc_namespace},
      {wall::landlock, wall::user_namespace},
  };
  for (const std::vector<wall>& some : missing) {
    const confinement without{.without = some};
    // Without rights there are no other namespaces than in a user namespace: it may be refused.
    const auto probe = child_process::start({.command = {"true"}, .confined = without});
    if (!probe) {
      CHECK(probe.error() == errc::open_walls);
      continue;
    }
    const outcomes all = tried(at, without);
    for (const wall one : some) CHECK_FALSE(all.held.holds(one));
    check_closed(all);
  }
}

TEST_CASE("a child that some way out is left to does not start", "[walls]") {
  const std::vector<std::vector<wall>> missing = {
      {wall::seccomp},
      {wall::mount_namespace, wall::landlock},
      {wall::capabilities},
      {wall::no_new_privileges},
  };
  tests::target at;
  for (const std::vector<wall>& some : missing) {
    child_plan plan{.command = {"sh", "-c", ": > " + at.directory() + "/made"},
                    .confined = confinement{.without = some}};
    CHECK(child_process::start(plan).error() == errc::open_walls);
    plan.confined->writes = {at.directory()};
    CHECK(child_process::start(plan).error() == errc::open_walls);
    CHECK(::access((at.directory() + "/made").c_str(), F_OK) != 0);
    plan.confined->even_if_open = true;
    auto child = child_process::start(plan);
    REQUIRE(child);
    CHECK_FALSE(child->locked_in_by().is_closed());
    CHECK(child->wait() == exit_status{});
    at.restore();
  }
  reap_all();
}

TEST_CASE("without its filter a child is still kept from files, the network and signals",
          "[walls]") {
  tests::target at;
  const outcomes all = tried(at, confinement{.even_if_open = true, .without = {wall::seccomp}});
  INFO(all.held.describe());
  CHECK_FALSE(all.held.is_closed());
  CHECK(all.signals == 0);
  for (const wall one : {wall::mount_namespace, wall::network_namespace, wall::landlock}) {
    if (!all.held.holds(one)) return;
  }
  for (const tests::attempt& one : tests::attempts()) {
    INFO(one.name);
    if (one.kind == way::processes && all.succeeded(one.name)) {
      // Nothing but the filter knows these. That is why it has to hold.
      const std::array<std::string_view, 4> known = {"make it nicer", "move it to other cores",
                                                     "limit it", "become its child's sibling"};
      CHECK(std::find(known.begin(), known.end(), one.name) != known.end());
    } else if (one.kind != way::kernel) {
      CHECK_FALSE(all.succeeded(one.name));
    }
  }
}

TEST_CASE("what does not hold is said with what the kernel said", "[walls]") {
  auto child = child_process::start(
      {.command = {"true"}, .confined = confinement{.without = {wall::ipc_namespace}}});
  REQUIRE(child);
  CHECK(child->wait() == exit_status{});
  const walls& held = child->locked_in_by();
  CHECK_FALSE(held.holds(wall::ipc_namespace));
  CHECK(held.why_not(wall::ipc_namespace) == std::errc::function_not_supported);
  CHECK(held.holds(wall::seccomp));
  CHECK_FALSE(held.why_not(wall::seccomp));
  INFO(held.describe());
  CHECK(held.describe().find("IPC namespace (Function not implemented)") != std::string::npos);
  CHECK(held.describe().find("seccomp") == 0);
}
