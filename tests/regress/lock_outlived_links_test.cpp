// A dead node's links hang up first and its lock goes last, and between the two the kernel may have
// much to do: to close an inotify instance, it waits for all processors. Whoever heard of the end
// looked at the lock for one second only, and never counted what the dead one had published.
#include "bus/base/fd.hpp"
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <csignal>

#include <fcntl.h>
#include <sys/file.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t published = 1000;
constexpr std::uint32_t depth = 64;  // of the link: the rest is known from the dead one's books

bus::node_options options(const std::string& directory, const std::string& name) {
  bus::node_options made{.name = name, .transports = {transports::shm()}, .directory = directory};
  made.link_depth = depth;
  return made;
}

}  // namespace

TEST_CASE("what a dead node had published is counted, however long its lock outlives its links") {
  const tests::scratch_directory scratch;
  fault::child speaker([&](fault::channel& parent) {
    bus::node node(options(scratch.path(), "speaker"));
    parent.say(node.id().value);
    auto numbers = node.advertise<crew::numbered>("numbers");
    crew::must(numbers.wait_matched(1, crew::patience), "nobody listens");
    static_cast<void>(parent.hear());  // from here on the listener takes nothing
    for (std::uint64_t i = 1; i <= published; ++i) {
      static_cast<void>(numbers.publish(crew::make(i, 1)));
    }
    ::raise(SIGKILL);
  });
  bus::node node(options(scratch.path(), "listener"));
  auto heard = node.subscribe<crew::numbered>("numbers");
  const std::string source = bus::to_hex(speaker.pipe().hear(crew::patience));
  REQUIRE(heard.wait_matched(1, crew::patience));
  speaker.pipe().say(1);
  REQUIRE(speaker.wait() == -SIGKILL);
  {
    // In the place of a kernel that is slow: we have not looked yet, and find the lock held.
    const bus::fd books(
        ::open((scratch.path() + "/" + source + ".ledger").c_str(), O_RDONLY | O_CLOEXEC));
    REQUIRE(books);
    REQUIRE(::flock(books.get(), LOCK_EX | LOCK_NB) == 0);
    node.run_for(3s);
    REQUIRE(heard.matched() == 0);
    REQUIRE(heard.accounts().expected < published);
  }
  REQUIRE(crew::eventually([&] {
    node.run_for(5ms);
    return heard.accounts().expected == published;
  }));
  REQUIRE(heard.accounts().balanced());
  REQUIRE(heard.accounts().lost_by(bus::loss::cut) > 0);
  REQUIRE(heard.accounts().lost_in_all() == heard.accounts().lost_by(bus::loss::cut));
}
