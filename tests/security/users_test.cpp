// Several users on one bus: a group's directory, strangers, roots of user namespaces, and those who
// lose their rights while they are connected.
#include "tests/security/users.hpp"

#include "tests/fault/shm_liar.hpp"
#include "tests/no_inotify.hpp"
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"

#include <functional>
#include <optional>
#include <sstream>

using namespace std::chrono_literals;
using contract::must;
using contract::party;
using fault::channel;
using fault::child;
using security::alice;
using security::become;
using security::bob;
using security::mallory;
using world = fault::shm_world;

namespace {

constexpr std::uint64_t messages = 100;
using turn = std::function<void()>;

bus::node make_node(const std::string& directory, const std::string& name) {
  return bus::node({.name = name, .transports = {transports::shm()}, .directory = directory});
}

// That no mapping of what the other one writes can be written here.
void require_read_only() {
  std::ifstream maps("/proc/self/maps");
  int foreign = 0;
  for (std::string line; std::getline(maps, line);) {
    const auto at = line.find("omnibus-");
    if (at == line.npos) continue;
    std::string range;
    std::string access;
    std::istringstream(line) >> range >> access;
    foreign += access[1] == '-' ? 1 : 0;
    // Ours: one bell, one arena, a lane and answers for each link.
    must(access[1] == '-' || access == "rw-s", "strange access: " + line);
    must(access[2] == '-', "executable: " + line);
  }
  must(foreign >= 3, "nothing of another's is mapped read-only");
}

// Speaks on `mine` and hears `theirs`, until both have all; says over which link.
void converse(channel& parent, const std::string& directory, const std::string& name,
              const std::string& mine, const std::string& theirs) {
  bus::node node = make_node(directory, name);
  auto heard = node.subscribe<crew::numbered>(theirs);
  auto spoken = node.advertise<crew::numbered>(mine);
  must(spoken.wait_matched(1, crew::patience), "they did not match");
  for (std::uint64_t i = 1; i <= messages; ++i) {
    must(spoken.publish(crew::make(i, 1)).taken == 1, "not taken");
    const auto got = heard.take(crew::patience);  // asleep each time
    must(got.has_value(), "not heard");
    must(crew::check(**got, 1, i - 1) == i, "another one");
  }
  must(heard.accounts().lost_in_all() == 0, "something was lost");
  require_read_only();
  const auto socket = [&] {
    node.run_for(2ms);
    const auto words = node.inside().meeting_place().read_links(node.id());
    return words && words->links_size() == 1 &&
           words->links(0).proof().find("woken by socket") != std::string::npos;
  };
  must(crew::eventually(socket, 10s), "the link does not say that it is woken by its socket");
  parent.say(1);
  while (!parent.has_news()) node.run_for(2ms);
}

void require_exchange(const std::string& directory, const turn& first, const turn& second) {
  child one([&](channel& parent) {
    first();
    converse(parent, directory, "one", "a", "b");
  });
  child other([&](channel& parent) {
    second();
    converse(parent, directory, "other", "b", "a");
  });
  REQUIRE(one.pipe().hear(crew::patience) == 1);
  REQUIRE(other.pipe().hear(crew::patience) == 1);
  one.pipe().say(1);
  other.pipe().say(1);
  REQUIRE(one.wait() == 0);
  REQUIRE(other.wait() == 0);
}

// Tries to be a node there; says what it was told.
std::string told(const std::string& directory) {
  try {
    const bus::node node = make_node(directory, "stranger");
    return "let in";
  } catch (const bus::error& refused) {
    return refused.what();
  }
}

// How a party `turns_into` somebody and asks `victim` for a link; the reason of its end, or 0.
std::error_code asked(const world& stage, party& victim, const turn& turns_into) {
  child caller([&](channel& parent) {
    turns_into();
    const auto self = stage.make();
    auto way = self->carrier->connect(victim.id, victim.where());
    std::error_code why;
    if (!way) why = way.error();
    if (way) {
      must(contract::pump_until({self.get()},
                                [&] { return (*way)->state() != bus::link_state::opening; }),
           "no answer");
      why = (*way)->reason();
    }
    const bool is_ours = !why || why.category() == bus::category();
    parent.say(is_ours ? static_cast<std::uint64_t>(why.value()) : 1000);
    static_cast<void>(parent.hear());
  });
  must(stage.pump_until([&] { return caller.pipe().has_news(); }, {.look_every = 5ms}), "silence");
  const auto word = static_cast<int>(caller.pipe().hear());
  caller.pipe().say(1);
  must(caller.wait() == 0, "the caller failed");
  return word == 0 ? std::error_code() : make_error_code(static_cast<bus::errc>(word));
}

}  // namespace

TEST_CASE("statement 1: two users of one group exchange by shared memory, read-only both ways") {
  if (!security::is_root()) return;
  const tests::scratch_directory scratch;
  security::give_to_group(scratch.path());
  require_exchange(
      scratch.path(), [] { become(alice); }, [] { become(bob); });
}

TEST_CASE("statement 1: root of a user namespace is the plain user that it is outside") {
  if (!security::is_root() || !security::has_user_namespaces()) return;
  const tests::scratch_directory scratch;
  security::give_to_group(scratch.path());
  require_exchange(
      scratch.path(), [] { become(alice); },
      [] {
        become(bob);
        security::become_root_inside();
      });
}

TEST_CASE("statement 1: a user outside the group is refused by the directory's mode, by name") {
  if (!security::is_root()) return;
  const tests::scratch_directory scratch;
  security::give_to_group(scratch.path());
  child stranger([&](channel&) {
    become(mallory, {});
    const std::string sentence = told(scratch.path());
    for (const char* const word : {"cannot use the bus directory", "permission denied", "mode 2770",
                                   "group 22000", "neither its owner nor in its group"}) {
      must(sentence.find(word) != std::string::npos, "lacks a word: " + sentence);
    }
  });
  REQUIRE(stranger.wait() == 0);
  // And nobody makes a bus of what everybody may write to.
  REQUIRE(::chmod(scratch.path().c_str(), 0777) == 0);
  child member([&](channel&) {
    become(alice);
    const std::string sentence = told(scratch.path());
    must(sentence.find("mode 0777") != std::string::npos, sentence);
    must(sentence.find("everybody may write there") != std::string::npos, sentence);
  });
  REQUIRE(member.wait() == 0);
}

TEST_CASE("statement 1: where the directory was opened by hand, the socket asks who it is") {
  if (!security::is_root()) return;
  world stage;
  security::give_to_group(stage.scratch());
  party& victim = stage.add();
  REQUIRE(asked(stage, victim, [] { become(bob); }) == std::error_code());
  REQUIRE(::chmod(stage.scratch().c_str(), 0777) == 0);
  const std::string socket = stage.scratch() + "/" + bus::to_hex(victim.id.value) + ".sock";
  REQUIRE(::chmod(socket.c_str(), 0777) == 0);
  const std::error_code why = asked(stage, victim, [] { become(mallory, {}); });
  REQUIRE(why == bus::errc::stranger);
  for (const char* const word : {"permission denied", "user", "group of its bus directory"}) {
    REQUIRE(why.message().find(word) != std::string::npos);
  }
  // So is root of a user namespace, who is mallory outside.
  if (security::has_user_namespaces()) {
    REQUIRE(asked(stage, victim, [] {
              become(mallory, {});
              security::become_root_inside();
            }) == bus::errc::stranger);
  }
  // Nobody came in, and it is in the books by user.
  REQUIRE(victim.heard.departures.size() == 1);  // bob's
  bool counted = false;
  for (const auto& tally : victim.inbox().refused()) {
    counted = counted || (tally.user == mallory &&
                          tally.counts[static_cast<std::size_t>(bus::refusal::stranger)] >= 1);
  }
  REQUIRE(counted);
}

TEST_CASE("statement 2: nobody comes as a node that is another user's") {
  if (!security::is_root()) return;
  world stage;
  security::give_to_group(stage.scratch());
  party& victim = stage.add();
  party& honest = stage.add();  // root's, and not connected yet
  child liar([&](channel& parent) {
    become(mallory);
    fault::liar enemy(stage.scratch());
    enemy.seal_all();
    enemy.id = honest.id;
    const auto answer = enemy.meet(victim.id, enemy.hello());
    must(fault::refusal(answer) == bus::errc::stranger, "let in under another's name");
    parent.say(1);
  });
  REQUIRE(stage.pump_until([&] { return liar.pipe().has_news(); }, {.look_every = 5ms}));
  REQUIRE(liar.wait() == 0);
  bus::outbox& way = stage.link(honest, victim);
  contract::send_all(stage.all(), way, honest.make_many(1, 10, 100));
  REQUIRE(stage.pump_until([&] { return victim.heard.accepted == 10; }));
}

TEST_CASE("statement 5: who is no member any more is refused when he comes again") {
  if (!security::is_root()) return;
  world stage;
  security::give_to_group(stage.scratch());
  party& victim = stage.add();
  REQUIRE(asked(stage, victim, [] { become(bob); }) == std::error_code());
  REQUIRE(asked(stage, victim, [] { become(bob); }) == std::error_code());
  // Without the group, as after `gpasswd -d bob GROUP` and a new login.
  child removed([&](channel&) {
    become(bob, {});
    must(told(stage.scratch()).find("permission denied") != std::string::npos, "let in");
  });
  REQUIRE(removed.wait() == 0);
}

TEST_CASE("statement 5: a directory that is closed to a group cuts its members, memory included") {
  if (!security::is_root()) return;
  const tests::scratch_directory scratch;
  security::give_to_group(scratch.path());
  child member([&](channel& parent) {
    become(bob);
    bus::node node = make_node(scratch.path(), "member");
    auto heard = node.subscribe<crew::numbered>("numbers");
    const auto kept = heard.take(crew::patience);  // and with it the mapping
    must(kept.has_value(), "nothing came");
    parent.say(1);
    while (!parent.has_news()) node.run_for(2ms);
    // What it has mapped of the publisher's memory holds nothing that was published since.
    int mapped = 0;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      if (line.find("omnibus-arena") == line.npos || line.find(" r--s ") == line.npos) continue;
      std::uint64_t first = 0;
      std::istringstream(line) >> std::hex >> first;
      ++mapped;
      const auto* const words = reinterpret_cast<const std::uint64_t*>(first);
      for (std::size_t i = 0; i < (1 << 20) / 8; ++i) {
        must(words[i] != 0x5ec7e75ec7e75ec7, "a secret lies where the revoked can read it");
      }
    }
    must(mapped == 1, "the memory that it had is not there to be looked at");
    must(!heard.take(0ms).has_value(), "something came after all");
  });
  // One who is told by the kernel, and one who has to look.
  const bool waits_at_pipe = GENERATE(false, true);
  INFO((waits_at_pipe ? "no inotify" : "inotify"));
  std::optional<tests::no_inotify> taken;
  if (waits_at_pipe) taken.emplace();
  if (taken && !*taken) return;
  bus::node speaker = make_node(scratch.path(), "speaker");
  taken.reset();
  REQUIRE(speaker.inside().meeting_place().waits_at_pipe() == waits_at_pipe);
  bus::node friendly = make_node(scratch.path(), "friendly");
  auto also_heard = friendly.subscribe<crew::numbered>("numbers");
  auto numbers = speaker.advertise<crew::numbered>("numbers");
  const auto both = [&] {
    speaker.run_for(1ms);
    friendly.run_for(1ms);
    return numbers.matched();
  };
  REQUIRE(crew::eventually([&] { return both() == 2; }));
  REQUIRE(numbers.publish(crew::make(1, 1)).taken == 2);
  REQUIRE(crew::eventually([&] {
    static_cast<void>(both());
    return member.pipe().has_news();
  }));
  REQUIRE(member.pipe().hear() == 1);

  REQUIRE(::chmod(scratch.path().c_str(), 0700) == 0);
  // The stated time: as long as the kernel takes to tell, or a second for who has to look; 2 s more
  // on the busiest machine. Then root's own subscriber is linked again, over memory that the other
  // one never had.
  const auto stated = bus::deadline::after(waits_at_pipe ? 3s : 2s);
  REQUIRE((crew::eventually([&] { return both() == 1; }, 3s) && !stated.passed()));
  REQUIRE(crew::eventually([&] {
    auto secret = crew::make(2, 0x5ec7e75ec7e75ec7);
    const bool sent = numbers.publish(secret).taken == 1;
    static_cast<void>(both());
    return sent;
  }));
  REQUIRE(also_heard.take(10s).has_value());
  member.pipe().say(1);
  REQUIRE(member.wait() == 0);
}

namespace {

// All that is in the directory has one of these modes, by kind; returns how many there were.
int require_exact(const std::string& directory, bool is_group) {
  int seen = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    struct stat about {};
    must(::lstat(entry.path().c_str(), &about) == 0, "lstat");
    const mode_t mode = about.st_mode & 07777;
    mode_t wanted = is_group ? 0640 : 0600;
    if (S_ISSOCK(about.st_mode) || S_ISFIFO(about.st_mode)) wanted = is_group ? 0660 : 0600;
    if (S_ISDIR(about.st_mode)) wanted = is_group ? 02770 : 0700;
    std::ostringstream words;
    words << entry.path() << " has mode " << std::oct << mode << " and not " << wanted;
    must(mode == wanted, words.str());
    ++seen;
  }
  return seen;
}

// A node with all that a node can have, under this umask.
void make_everything(const std::string& directory, mode_t mask, bool is_group) {
  ::umask(mask);
  bus::node node = make_node(directory, "first");
  // The node that gets no inotify instance waits at a pipe.
  const tests::no_inotify taken;
  must(static_cast<bool>(taken), "more inotify instances than descriptors");
  bus::node waiting = make_node(directory, "second");
  auto numbers = node.advertise<crew::numbered>("numbers");
  auto heard = waiting.subscribe<crew::numbered>("numbers");
  must(crew::eventually([&] {
         node.run_for(1ms);
         waiting.run_for(1ms);
         return numbers.matched() == 1;
       }),
       "they did not match");
  // Two cards, two ledgers, two sockets, two links files, schemas.
  must(crew::eventually([&] {
         node.run_for(1ms);
         waiting.run_for(1ms);
         return require_exact(directory, is_group) >= 8;
       }),
       "too few files");
}

}  // namespace

TEST_CASE("statement 27: every file has its exact mode under umask 000 and 077") {
  for (const mode_t mask : {mode_t{000}, mode_t{077}, mode_t{022}}) {
    for (const bool is_group : {false, true}) {
      const tests::scratch_directory scratch;
      const std::string directory = scratch.path() + "/bus";
      REQUIRE(::chmod(scratch.path().c_str(), 0777) == 0);
      if (is_group) {
        REQUIRE(::mkdir(directory.c_str(), 0700) == 0);
        if (::geteuid() == 0) {
          REQUIRE(::chown(directory.c_str(), alice, security::bus_group) == 0);
        }
        REQUIRE(::chmod(directory.c_str(), 02770) == 0);
      }
      INFO("umask " << mask << (is_group ? ", a group's" : ", private"));
      child node([&](channel&) {
        if (::geteuid() == 0) become(alice);  // whose inotify instances are nobody else's
        make_everything(directory, mask, is_group);
        struct stat about {};
        must(::stat(directory.c_str(), &about) == 0, "stat");
        must((about.st_mode & 07777) == (is_group ? 02770 : 0700), "the directory itself");
      });
      REQUIRE(node.wait() == 0);
    }
  }
}
