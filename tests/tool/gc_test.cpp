// bus gc removes what the dead have left, and never anything of the living.
#include "schemas/demo/quake.pb.h"
#include "tests/no_inotify.hpp"
#include "tests/tool/workbench.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include <sys/stat.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>

using namespace tool_tests;

namespace {

bool any_of_node(const scratch& where, bus::node_id id) {
  const auto files = where.files();
  return std::any_of(files.begin(), files.end(), [&](const std::string& name) {
    return name.rfind(bus::to_hex(id.value), 0) == 0;
  });
}

void make_old(const std::string& path) {
  const auto long_ago = std::filesystem::file_time_type::clock::now() - std::chrono::hours(1);
  std::filesystem::last_write_time(path, long_ago);
}

std::size_t count(const std::vector<std::string>& files, const std::string& part) {
  return static_cast<std::size_t>(std::count_if(
      files.begin(), files.end(), [&](const std::string& name) { return has(name, part); }));
}

}  // namespace

TEST_CASE("gc keeps every file of a living node") {
  const scratch where;
  bus::node one(where.options("one"));
  const auto quakes = one.advertise<demo::Quake>("quakes/ak");
  wait_told(one, 1);
  const auto before = where.files();
  const outcome done = where.run({"gc"});
  CHECK(done.code == 0);
  CHECK(done.out.empty());
  CHECK(where.files() == before);
}

TEST_CASE("gc removes all files of a killed node, and says so; a dry run only says") {
  const scratch where;
  other_process dead(where, "dead", [](bus::node& own, const std::function<void()>& ready) {
    const auto words = own.advertise<bus::raw>("words");
    ready();
    own.run();
  });
  dead.kill();
  const bus::node alive(where.options("alive"));
  CHECK(has(where.run({"list", "--all"}).out, "dead: run bus gc"));
  CHECK_FALSE(has(where.run({"list", "--nodes"}).out, "dead"));
  const auto before = where.files();
  const outcome dry = where.run({"gc", "--dry-run"});
  CHECK(dry.code == 0);
  CHECK(has(dry.out, "would remove"));
  CHECK(where.files() == before);
  const outcome done = where.run({"gc"});
  CHECK(done.code == 0);
  CHECK(has(done.out, "removed"));
  CHECK(has(done.out, "its node dead"));
  CHECK(count(where.files(), ".ledger") == 1);
  CHECK(any_of_node(where, alive.id()));
  CHECK(where.run({"gc"}).out.empty());
}

TEST_CASE("gc keeps what a dead publisher has left until those who heard it have read it") {
  const scratch where;
  bus::node alive(where.options("alive"));
  auto heard = alive.subscribe<bus::raw>("words");
  other_process dead(where, "dead", [](bus::node& own, const std::function<void()>& ready) {
    const auto words = own.advertise<bus::raw>("words");
    ready();
    own.run();
  });
  REQUIRE(heard.wait_matched(1, std::chrono::seconds(20)));
  dead.kill();
  // `alive` does not turn meanwhile.
  const outcome early = where.run({"gc"});
  CHECK(early.code == 0);
  CHECK(has(early.out, "kept"));
  CHECK(has(early.out, "alive"));
  CHECK_FALSE(has(early.out, "removed"));
  CHECK(count(where.files(), ".ledger") == 2);
  CHECK_FALSE(has(where.run({"doctor"}).out, "files of the dead"));
  const auto until = bus::deadline::after(std::chrono::seconds(20));
  while (heard.matched() > 0 && !until.passed()) alive.run_for(std::chrono::milliseconds(1));
  outcome late;
  do {
    alive.run_for(std::chrono::milliseconds(1));
    late = where.run({"gc"});
  } while (has(late.out, "kept") && !until.passed());
  CHECK(has(late.out, "removed"));
  CHECK(count(where.files(), ".ledger") == 1);
}

TEST_CASE("gc removes old drafts and schemas that nobody names, and leaves fresh ones alone") {
  const scratch where;
  bus::node one(where.options("one"));
  const auto quakes = one.advertise<demo::Quake>("quakes/ak");
  wait_told(one, 1);
  const std::string schemas = where.path() + "/bus/schemas/";
  const std::string used = schemas + bus::to_hex(bus::codec<demo::Quake>::type().hash) + ".fds";
  const std::string unused = schemas + "00000000000000aa.fds";
  const std::string fresh = schemas + "00000000000000bb.fds";
  const std::string draft = schemas + "00000000000000cc.fds.tmp0123456789abcdef";
  const std::string socket = where.path() + "/bus/00000000000000dd.sock";
  const std::string stranger = where.path() + "/bus/notes.txt";
  for (const std::string& path : {unused, fresh, draft, socket, stranger}) {
    std::ofstream(path) << "x";
  }
  const std::string folder = where.path() + "/bus/schemas.tmp0123456789abcdef";
  REQUIRE(std::filesystem::create_directory(folder));
  for (const std::string& path : {used, unused, draft, socket, stranger, folder}) make_old(path);
  CHECK(where.run({"gc"}).code == 0);
  CHECK(std::filesystem::exists(used));
  CHECK(std::filesystem::exists(fresh));
  CHECK(std::filesystem::exists(stranger));
  CHECK_FALSE(std::filesystem::exists(unused));
  CHECK_FALSE(std::filesystem::exists(draft));
  CHECK_FALSE(std::filesystem::exists(folder));
  CHECK_FALSE(std::filesystem::exists(socket));
}

TEST_CASE("gc does not take a ledger that is just being made for a dead one's") {
  const scratch where;
  const bus::node one(where.options("one"));
  const std::string path = where.path() + "/bus/00000000000000ee.ledger";
  { const std::ofstream made(path); }
  CHECK(where.run({"gc"}).out.empty());
  CHECK(std::filesystem::exists(path));
  make_old(path);
  CHECK(has(where.run({"gc"}).out, "00000000000000ee.ledger"));
}

// Found by `bus chaos --transport zmq --seed 2`: a node that was killed between making its ledger
// and locking it left a file that gc took for somebody's beginning.
// And by `bus chaos --seed 20261128`, beside tests that had taken all inotify instances: one that
// was killed between making its pipe and its ledger left a pipe that gc could not tell from a
// beginning.
TEST_CASE("whoever is killed at any of its calls to the file system, one gc leaves nothing") {
  const bool waits_at_pipe = GENERATE(false, true);
  INFO((waits_at_pipe ? "no inotify" : "inotify"));
  std::optional<tests::no_inotify> taken;
  if (waits_at_pipe) taken.emplace();
  if (taken && !*taken) return;
  const scratch where;
  ::setenv("OMNIBUS_DIR", (where.path() + "/bus").c_str(), 1);
  ::setenv("LSAN_OPTIONS", "detect_leaks=0", 1);  // who is traced cannot look for leaks
  // Every call that makes, names or removes a file, from the first to the last of a node's life.
  const std::string calls =
      "openat,flock,fallocate,mkdirat,mknodat,linkat,renameat,bind,listen,ftruncate,write,unlinkat";
  const std::string traced = "strace -f -qq -o /dev/null -e trace=" + calls +
                             " -e inject=" + calls + ":signal=SIGKILL:when=";
  const std::string life = std::string(" ") + BUS_COMMAND + " echo x --timeout 0.01 2>/dev/null";
  int killed = 0;
  for (int n = 1; n <= 2000; ++n) {
    INFO("killed at call " << n);
    const int status =
        std::system(std::string(traced).append(std::to_string(n)).append(life).c_str());
    const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (code != 128 + SIGKILL) {
      CHECK(code == 3);  // it lived to its end: nothing came in time
      break;
    }
    ++killed;
    CHECK(where.run({"gc"}).code == 0);
    CHECK(where.files().empty());
    const std::string room = where.path() + "/bus/waiting";
    CHECK((!std::filesystem::exists(room) || std::filesystem::is_empty(room)));
  }
  ::unsetenv("LSAN_OPTIONS");
  ::unsetenv("OMNIBUS_DIR");
  // Far more than the calls of the loader before it begins.
  CHECK(killed > 20);
}
