// A way of waking that the kernel refuses is given up for the next one; the message comes all the
// same, and `bus why` shows what happened.
#include "bus/bus.hpp"
#include "tests/fault/processes.hpp"
#include "tests/scratch.hpp"
#include "transports/shm/shm.hpp"

#include <array>
#include <chrono>
#include <string>

#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <asio/io_context.hpp>
#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

constexpr auto patience = 30s;

bus::node_options options(const std::string& directory, const std::string& name) {
  bus::node_options made{.name = name, .transports = {transports::shm()}, .directory = directory};
  made.waiting = bus::wait_policy::sleep;
  made.woken_by = bus::loop_wakeup::signal;
  return made;
}

// Sleeps in an event loop, and tells the parent the sequence of whatever comes.
void sleeper(fault::channel& parent, const std::string& directory) {
  asio::io_context context;
  bus::node_options wanted = options(directory, "sleeper");
  wanted.context = &context;
  bus::node node(std::move(wanted));
  const auto heard = node.subscribe<bus::raw>("rungs", [&](const bus::received<bus::raw>& message) {
    parent.say(message.head().sequence);
  });
  while (!parent.has_news()) context.run_for(50ms);
}

// Publishes until `bus why` says so; each message must have come.
bool why_will_say(bus::node& node, bus::publisher<bus::raw>& to, const fault::channel& other,
                  const std::string& words) {
  const std::array<std::byte, 8> message{};
  const auto until = bus::deadline::after(patience);
  while (!until.passed()) {
    contract::must(to.publish(message).taken == 1, "not taken");
    contract::must(other.hear(patience) == to.sequence(), "another message came");
    node.run_for(20ms);  // the books are kept, and the other sleeps again
    if (bus::to_text(node.why("rungs")).find(words) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("whose queue of signals is full is woken by eventfd, and bus why counts it") {
  const tests::scratch_directory scratch;
  fault::child other([&](fault::channel& parent) {
    const rlimit none{0, 0};
    contract::must(::setrlimit(RLIMIT_SIGPENDING, &none) == 0, "setrlimit");
    sleeper(parent, scratch.path());
  });
  bus::node node(options(scratch.path(), "talker"));
  auto to = node.advertise<bus::raw>("rungs");
  REQUIRE(to.wait_matched(1, patience));
  // It may come up again: the signal is tried each time.
  CHECK(why_will_say(node, to, other.pipe(), "woken by signal"));
  CHECK(why_will_say(node, to, other.pipe(), "wakeups fell to event"));
  other.pipe().say(0);
  CHECK(other.wait() == 0);
}

TEST_CASE("whose signals come, is woken by signal, and nothing falls") {
  const tests::scratch_directory scratch;
  fault::child other([&](fault::channel& parent) { sleeper(parent, scratch.path()); });
  bus::node node(options(scratch.path(), "talker"));
  auto to = node.advertise<bus::raw>("rungs");
  REQUIRE(to.wait_matched(1, patience));
  CHECK(why_will_say(node, to, other.pipe(), "woken by signal"));
  CHECK(bus::to_text(node.why("rungs")).find("fell") == std::string::npos);
  other.pipe().say(0);
  CHECK(other.wait() == 0);
}

TEST_CASE("another user is woken by the link's socket, and bus why says so") {
  if (::geteuid() != 0) {
    WARN("not shown here: only root may become another user");
    return;
  }
  constexpr gid_t group = 54321;
  constexpr uid_t user = 54322;
  const tests::scratch_directory scratch;
  REQUIRE(::chown(scratch.path().c_str(), 0, group) == 0);
  REQUIRE(::chmod(scratch.path().c_str(), 02770) == 0);
  fault::child other([&](fault::channel& parent) {
    contract::must(::setgroups(0, nullptr) == 0 && ::setgid(group) == 0 && ::setuid(user) == 0,
                   "become another user");
    // A process that was another user's may not look at its own descriptors, unless it says so.
    contract::must(::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0, "prctl");
    sleeper(parent, scratch.path());
  });
  bus::node node(options(scratch.path(), "talker"));
  auto to = node.advertise<bus::raw>("rungs");
  REQUIRE(to.wait_matched(1, patience));
  CHECK(why_will_say(node, to, other.pipe(), "woken by socket"));
  other.pipe().say(0);
  CHECK(other.wait() == 0);
}
