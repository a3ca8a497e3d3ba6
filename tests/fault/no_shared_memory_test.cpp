// No shared memory left, at each place where a node asks the kernel for some: the error names it
// and the next step, other transports go on, nothing is left behind, and nobody else notices.
#include "bus/node/census.hpp"
#include "bus/route/explain.hpp"
#include "tests/fault/refusals.hpp"
#include "tests/fault/shm_stage.hpp"
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/zmq/zmq.hpp"

#include <cerrno>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <sys/resource.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

// What a process is refused once its node is there.
using refusal = std::function<void()>;
const refusal nothing = [] {};
const refusal memory_files = [] { fault::refuse({SYS_memfd_create}, ENOMEM); };
const refusal their_pages = [] { fault::refuse({SYS_fallocate}, ENOSPC); };

constexpr std::uint64_t messages = 10;

bus::node make_node(const std::string& directory, const std::string& name) {
  return bus::node({.name = name,
                    .transports = {transports::shm(), transports::zmq()},
                    .directory = directory,
                    .listen = {"tcp://127.0.0.1:*"}});
}

int in_child(const std::function<void()>& body) {
  fault::child one([&](fault::channel&) { body(); });
  return one.wait();
}

void hear(fault::channel& parent, const std::string& directory, const refusal& refused) {
  bus::node node = make_node(directory, "hearer");
  refused();
  auto heard = node.subscribe<crew::numbered>("numbers");
  parent.say(1);
  for (std::uint64_t last = 0; last < messages;) {
    const auto got = heard.take(crew::patience);
    crew::must(got.has_value(), "not heard");
    crew::must(crew::check(**got, 1, last) == last + 1, "another one");
    ++last;
  }
  crew::must(heard.accounts().balanced(), "the books do not balance");
  crew::must(heard.accounts().lost_in_all() == 0, "something was lost");
  // The speaker has something to look up before we go.
  while (!parent.has_news()) node.run_for(2ms);
}

// Sends to one hearer, and requires that shm was tried and refused, and that zmq carried all.
void speak(const std::string& directory, const refusal& refused) {
  bus::node node = make_node(directory, "speaker");
  refused();
  auto numbers = node.advertise<crew::numbered>("numbers");
  crew::must(numbers.wait_matched(1, crew::patience), "they did not match");
  for (std::uint64_t i = 1; i <= messages; ++i) {
    crew::must(numbers.publish(crew::make(i, 1)).taken == 1, "not taken");
  }
  bool is_right = false;
  const auto shown = [&] {
    node.run_for(2ms);
    const auto links = node.inside().meeting_place().read_links(node.id());
    if (!links || links->links_size() != 1) return false;
    for (const auto& tried : links->links(0).candidates()) {
      if (tried.scheme() == "shm") {
        is_right = tried.verdict().find("memory limit reached") != std::string::npos;
      }
      if (tried.chosen() && tried.scheme() == "zmq") return is_right;
    }
    return false;
  };
  crew::must(crew::eventually(shown, 10s), "not zmq, or shm does not say why");
}

bool converse(const std::string& directory, const refusal& of_speaker, const refusal& of_hearer) {
  fault::child hearer([&](fault::channel& parent) { hear(parent, directory, of_hearer); });
  REQUIRE(hearer.pipe().hear(crew::patience) == 1);
  fault::child speaker([&](fault::channel&) { speak(directory, of_speaker); });
  const int spoken = speaker.wait();
  if (spoken != 0) hearer.kill();
  if (spoken == 0) hearer.pipe().say(1);
  return hearer.wait() == 0 && spoken == 0;
}

// Takes from the limit of file sizes, which holds for memory files, too, and gives it back.
void limit_files(rlim_t bytes) {
  rlimit files{};
  crew::must(::getrlimit(RLIMIT_FSIZE, &files) == 0, "getrlimit");
  files.rlim_cur = bytes;
  crew::must(::setrlimit(RLIMIT_FSIZE, &files) == 0, "setrlimit");
}

}  // namespace

TEST_CASE("case 39: a node that is refused shared memory says so by name, and leaves nothing") {
  const tests::scratch_directory scratch;
  const auto require_refused = [&](int error, const char* next_step) {
    return in_child([&] {
      fault::refuse({SYS_memfd_create}, error);
      const std::size_t before = fault::open_descriptors();
      std::string sentence;
      try {
        static_cast<void>(make_node(scratch.path(), "unwanted"));
      } catch (const bus::error& refused) {
        sentence = refused.what();
      }
      for (const char* const word : {"shared memory", next_step}) {
        crew::must(sentence.find(word) != std::string::npos, "lacks a word: '" + sentence + "'");
      }
      crew::must(fault::open_descriptors() == before, "descriptors left");
      crew::must(std::filesystem::is_empty(scratch.path()), "files left");
    });
  };
  CHECK(require_refused(ENOMEM, "memory.max") == 0);
  CHECK(require_refused(ENFILE, "ulimit -n") == 0);
}

TEST_CASE("a publisher that is refused memory for payloads publishes over the next transport") {
  const tests::scratch_directory scratch;
  CHECK(converse(scratch.path(), memory_files, nothing));
  CHECK(converse(scratch.path(), their_pages, nothing));
}

TEST_CASE("a subscriber that is refused memory for its answers hears over the next transport") {
  const tests::scratch_directory scratch;
  CHECK(converse(scratch.path(), nothing, memory_files));
  CHECK(converse(scratch.path(), nothing, their_pages));
}

TEST_CASE("without another transport the link is tried again, piles up nothing, and is explained") {
  const tests::scratch_directory scratch;
  CHECK(in_child([&] {
          const std::string& directory = scratch.path();
          const auto with_shm_only = [&](const char* name) {
            return bus::node(
                {.name = name, .transports = {transports::shm()}, .directory = directory});
          };
          bus::node speaker = with_shm_only("speaker");
          bus::node hearer = with_shm_only("hearer");
          const auto numbers = speaker.advertise<crew::numbered>("numbers");
          auto explained = bus::explanation{};
          const auto says_why = [&] {
            speaker.run_for(1ms);
            hearer.run_for(1ms);
            explained = bus::explain(bus::take_census(speaker.inside().meeting_place()), "numbers");
            return explained.fix.find("shared memory") != std::string::npos;
          };
          static_cast<void>(says_why());
          const std::size_t before = fault::open_descriptors();
          memory_files();
          const auto heard = hearer.subscribe<crew::numbered>("numbers");
          const bool is_explained = crew::eventually(says_why, 10s);
          crew::must(is_explained, "not explained: " + bus::to_text(explained));
          // Through several attempts: after 20 ms, 40 ms, and so on.
          const auto until = bus::deadline::after(500ms);
          while (!until.passed()) static_cast<void>(says_why());
          crew::must(says_why(), "no longer explained");
          crew::must(numbers.matched() == 0, "matched by nothing");
          crew::must(fault::open_descriptors() == before, "descriptors pile up");
        }) == 0);
}

TEST_CASE(
    "case 21: an arena that may not grow says no_memory, keeps its links, and grows when it may") {
  const tests::scratch_directory scratch;
  CHECK(in_child([&] {
          bus::node writer = make_node(scratch.path(), "writer");
          bus::node reader = make_node(scratch.path(), "reader");
          auto blocks = writer.advertise<bus::raw>("blocks");
          auto heard = reader.subscribe<bus::raw>("blocks", {.depth = 1024});
          const auto matched = [&] {
            reader.run_for(1ms);
            writer.run_for(1ms);
            return blocks.matched() == 1;
          };
          crew::must(crew::eventually(matched, 10s), "they did not match");
          const std::size_t descriptors = fault::open_descriptors();
          const std::string block(100'000, 'x');
          std::vector<bus::received<bus::raw>> held;
          const auto publish = [&] {
            const auto outcome = blocks.publish(std::as_bytes(std::span(block)));
            while (auto got = heard.try_take()) held.push_back(std::move(*got));
            return outcome.error;
          };
          // SIGXFSZ would end us if it came through.
          limit_files(4 << 20);
          std::error_code failed;
          for (int i = 0; i < 100 && !failed; ++i) failed = publish();
          crew::must(failed == bus::errc::no_memory, "not no_memory but: " + failed.message());
          const std::size_t most = held.size();
          crew::must(most >= 10, "it failed too early");
          // What comes home is used again.
          held.clear();
          crew::must(!publish() && held.size() == 1, "no recovery");
          limit_files(RLIM_INFINITY);
          for (std::size_t i = 0; i < 2 * most; ++i) crew::must(!publish(), "no growth");
          crew::must(held.size() == 2 * most + 1, "some did not come");
          held.clear();
          crew::must(blocks.matched() == 1, "the link was lost");
          crew::must(heard.accounts().balanced(), "the books do not balance");
          crew::must(heard.accounts().lost_in_all() == 0, "something was lost");
          crew::must(fault::open_descriptors() == descriptors, "descriptors pile up");
        }) == 0);
}
