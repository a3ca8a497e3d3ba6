// Two processes in containers that share only the bus directory: a message of 1 GiB by loan, or one
// clear error.
#include "tests/security/container.hpp"

#include "bus/bus.hpp"
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/headroom.hpp"
#include "transports/shm/shm.hpp"

#include <filesystem>

using namespace std::chrono_literals;
using contract::must;
using fault::channel;
using fault::child;
using security::container_options;

namespace {

// The sanitizers have a shadow of all that is touched.
constexpr std::uint64_t large = contract::sanitized ? 64ULL << 20 : 1ULL << 30;
// Of the cgroup, beside it. ThreadSanitizer's shadow is four times what it watches.
constexpr std::uint64_t for_the_rest = large / 2 + (contract::has_second_thread ? 4 * large : 0);
// A slot is at most an eighth larger than its payload; the rest is for the node's own words.
constexpr std::uint64_t memory_bytes_max = large + large / 8 + (4 << 20);
constexpr std::uint64_t stride = 4096 + 8;  // touches every page, and every place in a page

bus::node make_node(const std::string& name) {
  return bus::node({.name = name,
                    .transports = {transports::shm()},
                    .directory = "/bus",
                    .memory_bytes_max = memory_bytes_max});
}

void fill(std::span<std::byte> memory, std::uint64_t key) {
  for (std::size_t at = 0; at + 8 <= memory.size(); at += stride) {
    const std::uint64_t word = key + at;
    std::memcpy(memory.data() + at, &word, sizeof word);
  }
}

bool proves(std::span<const std::byte> memory, std::uint64_t key) {
  for (std::size_t at = 0; at + 8 <= memory.size(); at += stride) {
    std::uint64_t word = 0;
    std::memcpy(&word, memory.data() + at, sizeof word);
    if (word != key + at) return false;
  }
  return true;
}

void hear(channel& parent, std::uint64_t bytes) {
  bus::node node = make_node("hearer");
  auto heard = node.subscribe<bus::raw>("images");
  const auto got = heard.take(crew::patience);
  must(got.has_value(), "nothing came");
  must(got->bytes().size() == bytes && proves(got->bytes(), 7), "not what was sent");
  parent.say(1);
  while (!parent.has_news()) node.run_for(2ms);
}

void speak(channel& parent, std::uint64_t bytes) {
  bus::node node = make_node("speaker");
  auto images = node.advertise<bus::raw>("images");
  must(images.wait_matched(1, crew::patience), "they did not match");
  auto lent = images.loan(bytes);
  must(lent.has_value(), "no loan: " + lent.error().message());
  fill(lent->bytes().first(bytes), 7);
  must(images.publish(std::move(*lent), bytes).taken == 1, "not taken");
  const auto links = [&] {
    node.run_for(2ms);
    const auto words = node.inside().meeting_place().read_links(node.id());
    return words && words->links_size() == 1 && words->links(0).state() == "open";
  };
  must(crew::eventually(links, 10s), "no link");
  parent.say(1);
  while (!parent.has_news()) node.run_for(2ms);
}

// A folder that users of containers can reach, with a bus for one of them, and two roots.
struct stage {
  tests::scratch_directory scratch;
  std::string bus = scratch.path() + "/bus";

  explicit stage(uid_t user) {
    must(::chmod(scratch.path().c_str(), 0755) == 0, "chmod");
    for (const char* const each : {"/bus", "/one", "/other"}) {
      std::filesystem::create_directory(scratch.path() + each);
    }
    must(::chown(bus.c_str(), user, security::own_group) == 0, "chown");
    must(::chmod(bus.c_str(), 0700) == 0, "chmod");
  }
  [[nodiscard]] container_options in(const std::string& root) const {
    return {.shared = bus, .root = scratch.path() + "/" + root};
  }
};

void require_exchange(const container_options& one, const container_options& other,
                      std::uint64_t bytes) {
  child hearer([&](channel& parent) {
    security::run_in_container(
        one, [&](channel& up) { hear(up, bytes); }, parent);
  });
  child speaker([&](channel& parent) {
    security::run_in_container(
        other, [&](channel& up) { speak(up, bytes); }, parent);
  });
  REQUIRE(speaker.pipe().hear(crew::patience) == 1);
  REQUIRE(hearer.pipe().hear(crew::patience) == 1);
  speaker.pipe().say(1);
  hearer.pipe().say(1);
  REQUIRE(speaker.wait() == 0);
  REQUIRE(hearer.wait() == 0);
}

std::string own_name(const char* what) {
  return "omnibus-test-" + std::string(what) + "-" + std::to_string(::getpid());
}

}  // namespace

TEST_CASE("containers that share only the bus directory exchange 1 GiB by loan") {
  if (!security::is_root()) return;
  const auto limit = security::memory_cgroup::make(own_name("ample"), large + for_the_rest);
  const stage here(security::alice);
  auto one = here.in("one");
  auto other = here.in("other");
  if (limit) other.limit = &*limit;
  if (!limit) WARN("no memory cgroup can be made here: exchanged without a limit");
  require_exchange(one, other, large);
  if (limit) REQUIRE(limit->killed() == 0);
}

TEST_CASE("containers whose root is a plain user outside exchange as well") {
  if (!security::is_root() || !security::has_user_namespaces()) return;
  const stage here(security::alice);
  auto one = here.in("one");
  auto other = here.in("other");
  one.as_inner_root = other.as_inner_root = true;
  require_exchange(one, other, 16 << 20);
}

TEST_CASE("a message larger than the memory cgroup is one clear error, and kills nobody") {
  if (!security::is_root()) return;
  // Smaller than the message, and large enough for all else.
  const auto limit = security::memory_cgroup::make(own_name("tight"), 256ULL << 20);
  if (!limit) {
    WARN("no memory cgroup can be made here: not tested");
    return;
  }
  const stage here(security::alice);
  auto how = here.in("one");
  how.limit = &*limit;
  child speaker([&](channel& parent) {
    security::run_in_container(
        how,
        [&](channel&) {
          bus::node node({.name = "speaker",
                          .transports = {transports::shm()},
                          .directory = "/bus",
                          .memory_bytes_max = 2ULL << 30});
          auto images = node.advertise<bus::raw>("images");
          const auto lent = images.loan(1ULL << 30);
          must(!lent.has_value(), "lent what is not there");
          must(lent.error() == bus::errc::cgroup_full, "not named: " + lent.error().message());
          const std::string sentence = lent.error().message();
          for (const char* const word : {"cgroup", "memory.max", "send less"}) {
            must(sentence.find(word) != std::string::npos, "lacks a word: " + sentence);
          }
          // What fits goes on.
          auto small = images.loan(8 << 20);
          must(small.has_value(), "nothing is lent any more: " + small.error().message());
          fill(small->bytes(), 7);
        },
        parent);
  });
  REQUIRE(speaker.wait() == 0);
  REQUIRE(limit->killed() == 0);
}

TEST_CASE("what a cgroup leaves is the least of all above it, and what can be dropped counts") {
  const tests::scratch_directory scratch;
  const auto put = [&](const std::string& name, const std::string& text) {
    const std::string path = scratch.path() + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    security::write_to(path, text);
  };
  const auto left = [&] { return transports::shared::find_headroom(scratch.path()); };
  // Nothing is known.
  REQUIRE(left().cgroup == UINT64_MAX);
  REQUIRE(left().machine == UINT64_MAX);
  put("/proc/meminfo", "MemTotal: 100 kB\nMemAvailable:     64 kB\nSwapFree:   0 kB\n");
  put("/proc/self/cgroup", "0::/a/b\n");
  put("/sys/fs/cgroup/a/b/memory.max", "max\n");
  put("/sys/fs/cgroup/a/b/memory.current", "500\n");
  put("/sys/fs/cgroup/a/memory.max", "1000\n");
  put("/sys/fs/cgroup/a/memory.current", "900\n");
  put("/sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 50\nactive_file 30\n");
  REQUIRE(left().machine == 64 << 10);
  REQUIRE(left().cgroup == 180);
  put("/sys/fs/cgroup/a/b/memory.max", "520\n");
  REQUIRE(left().cgroup == 20);
  put("/sys/fs/cgroup/a/b/memory.max", "400\n");
  REQUIRE(left().cgroup == 0);
  // The first version, in a container: the path is the host's, and is not there.
  put("/proc/self/cgroup", "4:memory:/docker/1234\n1:cpu:/\n0::/\n");
  put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
  put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n");
  put("/sys/fs/cgroup/memory/memory.stat", "total_inactive_file 100\ntotal_active_file 0\n");
  REQUIRE(left().cgroup == 4100);
  put("/proc/meminfo", "MemAvailable: 64 kB\nSwapFree: 1 kB\n");
  REQUIRE(left().cgroup == 4100 + 1024);
}
