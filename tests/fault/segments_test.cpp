// The numbered cases of segments and nodes, as far as it takes whole processes to show them: who
// comes, who goes, and what the dead leave behind.
#include "bus/node/census.hpp"
#include "bus/node/ledger_file.hpp"
#include "bus/route/explain.hpp"
#include "tests/fault/stage.hpp"
#include "transports/shm/handshake.hpp"
#include "transports/shm/lane_in.hpp"

#include <cstring>
#include <random>

#include <fcntl.h>
#include <grp.h>
#include <sys/syscall.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using fault::child;
using fault::must;

namespace {

namespace files = std::filesystem;

bool is_root() {
  if (::geteuid() == 0) return true;
  WARN("not shown here: only root may become somebody else");
  return false;
}

// The descriptors of this process that lead to somebody's shared memory, ours among them.
std::vector<int> memory_files() {
  std::vector<int> found;
  for (const auto& entry : files::directory_iterator("/proc/self/fd")) {
    std::error_code closed;
    const std::string target = files::read_symlink(entry.path(), closed).string();
    if (target.find("memfd:omnibus-") == std::string::npos) continue;
    found.push_back(std::stoi(entry.path().filename().string()));
  }
  return found;
}

// Tries to take pages away from all shared memory that this process can reach.
void require_no_truncation() {
  const std::vector<int> all = memory_files();
  must(all.size() >= 3, "no shared memory was found");
  for (const int one : all) {
    must(::ftruncate(one, 0) != 0, "truncated");
    const bus::fd again(::open(("/proc/self/fd/" + std::to_string(one)).c_str(), O_RDWR));
    must(!again || ::ftruncate(again.get(), 0) != 0, "opened again and truncated");
  }
}

// A subscriber that keeps what it gets, and looks at it again whenever it is told to.
void hold(fault::channel& parent, const std::string& directory, std::size_t count) {
  bus::node node = fault::make_client({.name = "holder", .directory = directory});
  auto numbers = node.subscribe<fault::message>("numbers");
  parent.say(1);
  std::vector<bus::received<fault::message>> held;
  while (held.size() < count) {
    auto got = numbers.take(fault::long_patience);
    must(got.has_value(), "nothing more came");
    held.push_back(std::move(*got));
  }
  require_no_truncation();
  parent.say(held.size());
  for (;;) {
    while (!parent.has_news()) node.run_for(2ms);
    if (parent.hear() == 0) return;
    for (const auto& one : held) must(one->checksum == fault::checksum_of(*one), "it changed");
    parent.say(1);
  }
}

bool says_yes(child& holder) {
  holder.pipe().say(1);
  return holder.pipe().hear(fault::long_patience) == 1;
}

void end(child& holder) {
  holder.pipe().say(0);
  REQUIRE(holder.wait() == 0);
}

std::string file_of(const fault::stage& stage, const fault::stage::client& one,
                    const std::string& suffix) {
  return stage.directory() + '/' + bus::to_hex(one.record.epoch()) + suffix;
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// Each line of 64 bytes in turn, as all ones, as zeroes, and as noise.
template <class Look>
void corrupt_each_line(const std::string& bytes, Look&& look) {
  std::mt19937_64 random(19);
  for (std::size_t at = 0; at < bytes.size(); at += 64) {
    const std::size_t count = std::min<std::size_t>(64, bytes.size() - at);
    for (int pattern = 0; pattern < 3; ++pattern) {
      std::string wrong = bytes;
      for (std::size_t i = at; i < at + count; ++i) {
        const auto noise = static_cast<char>(random());
        wrong[i] = pattern == 0 ? '\xff' : pattern == 1 ? '\0' : noise;
      }
      look(wrong);
    }
  }
}

}  // namespace

TEST_CASE("case 14: who dies between opening and locking its ledger holds up nobody, ever") {
  for (const char* const call : {"flock", "fallocate", "renameat"}) {
    fault::stage stage;
    auto& listener = stage.listen();
    child victim([&](fault::channel& parent) {
      static_cast<void>(parent.hear(fault::long_patience));
      static_cast<void>(fault::make_client({.name = "victim", .directory = stage.directory()}));
    });
    // renameat publishes the card: then there is a ledger that was locked.
    fault::tracer trace(victim.id(), stage.scratch() + "/trace",
                        {"-e", std::string("trace=") + call, "-e",
                         std::string("inject=") + call + ":signal=SIGKILL:when=1"});
    victim.pipe().say(1);
    REQUIRE(victim.wait() == -SIGKILL);
    static_cast<void>(trace.end());
    const auto left = fault::left_in(stage.directory());
    const bool has_name = std::any_of(left.begin(), left.end(), [&](const std::string& name) {
      return name.ends_with(".ledger") && name.find(bus::to_hex(listener.record.epoch())) != 0;
    });
    // Before it is locked and has its room, a ledger has no name.
    REQUIRE(has_name == (std::string_view(call) == "renameat"));
    // Nobody who looks at the directory takes it for somebody alive, or waits for it.
    const auto place = bus::rendezvous::visit(stage.directory());
    REQUIRE(place);
    CHECK(bus::take_census(*place).nodes.size() == 1);
    stage.speak();
    listener.has(200);
    stage.finish();
  }
}

TEST_CASE(
    "case 15: eight publishers and eight subscribers that create one directory at once meet") {
  fault::stage stage;
  files::remove(stage.directory());
  std::vector<fault::stage::client*> all;
  for (int i = 0; i < 8; ++i) {
    all.push_back(&stage.start(fault::listener_options{}));
    all.push_back(&stage.start(fault::speaker_options{.links = 8, .burst = 1, .pause = 5ms}));
  }
  // A publisher is at work once it has found all eight: there is one generation of the directory.
  for (auto* const one : all) fault::stage::wait_for(*one);
  for (auto* const one : all) one->has(20);
  stage.finish();
}

TEST_CASE(
    "case 16: a cleaner that comes too late leaves the new owner of the same names its files") {
  fault::stage stage;
  auto& listener = stage.listen();
  auto& speaker = stage.speak();
  listener.has(100);
  // Names are drawn from 64 random bits, so nobody gets a dead one's by chance. Only a node that
  // puts its own files back has old names: here after somebody removed its ledger, at the moment
  // at which the cleaner, who has looked twice, is about to remove the rest.
  for (const auto& entry : files::directory_iterator(stage.directory())) {
    if (entry.is_directory()) continue;
    const timespec long_ago[2] = {{1, 0}, {1, 0}};
    REQUIRE(::utimensat(AT_FDCWD, entry.path().c_str(), long_ago, 0) == 0);
  }
  const auto before = fault::left_in(stage.directory());
  child cleaner([&](fault::channel& parent) {
    static_cast<void>(parent.hear(fault::long_patience));
    ::setenv("LSAN_OPTIONS", "detect_leaks=0", 1);  // who is traced cannot look for leaks
    ::execl(fault::bus_command(), "bus", "gc", "--directory", stage.directory().c_str(), nullptr);
  });
  fault::tracer trace(cleaner.id(), stage.scratch() + "/trace",
                      {"-e", "trace=unlinkat", "-e", "inject=unlinkat:delay_enter=3000000:when=1"});
  speaker.stop();
  files::remove(file_of(stage, speaker, ".ledger"));
  cleaner.pipe().say(1);
  const std::string call = "/proc/" + std::to_string(cleaner.id()) + "/syscall";
  REQUIRE(fault::eventually(
      [&] { return fault::text_of(call).find(std::to_string(SYS_unlinkat) + ' ') == 0; }));
  speaker.go_on();
  REQUIRE(cleaner.wait() == 0);
  const std::string removed = trace.end();
  INFO(removed);
  REQUIRE(removed.find(bus::to_hex(speaker.record.epoch())) != std::string::npos);
  // Links files are replaced now and then, and drafts come and go.
  const auto whole = [&] {
    const auto now = fault::left_in(stage.directory());
    return std::all_of(before.begin(), before.end(), [&](const std::string& name) {
      return now.contains(name) || name.find("schemas/") == 0;
    });
  };
  REQUIRE(fault::eventually(whole));
  // And whoever comes now finds its way to it.
  auto& late = stage.listen();
  late.has(100);
  stage.finish();
}

TEST_CASE("case 17: what a subscriber holds of a dead publisher stays valid, whatever is cleaned") {
  fault::stage stage;
  child holder([&](fault::channel& parent) { hold(parent, stage.directory(), 100); });
  REQUIRE(holder.pipe().hear(fault::long_patience) == 1);
  auto& speaker = stage.speak();
  REQUIRE(holder.pipe().hear(fault::long_patience) == 100);
  speaker.kill();
  REQUIRE(fault::run({fault::bus_command(), "gc", "--directory", stage.directory()}) == 0);
  REQUIRE_FALSE(files::exists(file_of(stage, speaker, ".ledger")));
  REQUIRE(says_yes(holder));
  // The next publisher writes into memory of its own.
  stage.speak().has(1000);
  REQUIRE(says_yes(holder));
  end(holder);
  stage.finish();
}

TEST_CASE("case 18: rm -rf of the directory under load costs no message, and newcomers find all") {
  fault::stage stage;
  auto& listener = stage.listen();
  auto& speaker = stage.speak();
  for (int round = 0; round < 3; ++round) {
    listener.has_more(100);
    REQUIRE(fault::eventually([&] {
      std::error_code busy;  // somebody was quicker to put something back
      files::remove_all(stage.directory(), busy);
      return !busy;
    }));
    REQUIRE(fault::eventually([&] {
      return files::exists(file_of(stage, speaker, ".card")) &&
             files::exists(file_of(stage, listener, ".card"));
    }));
  }
  auto& late = stage.listen();
  late.has(100);
  stage.finish();
  CHECK(listener.record.read().lost_in_all() == 0);
}

TEST_CASE("case 19: a dead node's files, corrupted at every line, crash and hang nobody") {
  fault::stage stage;
  auto& listener = stage.listen();
  auto& doomed = stage.speak();
  doomed.has(100);
  doomed.kill();
  auto& speaker = stage.speak();
  for (const char* const suffix : {".ledger", ".card", ".topics", ".links"}) {
    const std::string path = file_of(stage, doomed, suffix);
    const std::string bytes = fault::text_of(path);
    REQUIRE(bytes.size() >= 16);
    // In a child: a crash is to be a failure of this case alone.
    child reader([&](fault::channel&) {
      corrupt_each_line(bytes, [&](const std::string& wrong) {
        // By rename, as cards come, so that live nodes look at each.
        write_file(path + ".new", wrong);
        files::rename(path + ".new", path);
        const auto place = bus::rendezvous::visit(stage.directory());
        must(place.has_value(), "the directory");
        must(!bus::to_text(bus::explain(bus::take_census(*place), "numbers")).empty(), "no words");
        static_cast<void>(bus::read_ledger(place->directory(), {doomed.record.epoch()}));
      });
    });
    REQUIRE(reader.wait() == 0);
    write_file(path, bytes);
  }
  listener.has_more(100);
  speaker.has_more(100);
  stage.finish();
}

namespace {

using namespace transports::shared;

struct listening final : bus::sink {
  void accept(bus::sample&& arrived) noexcept override { bytes += arrived.payload().size(); }
  void left(bus::node_id, std::error_code) noexcept override {}
  std::uint64_t bytes = 0;
};

// A lane and an arena that a dead sender left, both in `memory`: four messages of 256 bytes.
constexpr std::uint32_t stale_depth = 8;
constexpr std::uint64_t stale_arena = 4096;

std::string stale_segment() {
  std::string memory(lane_bytes(stale_depth) + stale_arena, '\0');
  const lane_layout head{
      lane_layout::magic_value, layout_version, stale_depth, sizeof(entry_layout), {}};
  std::memcpy(memory.data(), &head, sizeof head);
  for (std::uint32_t i = 0; i < 4; ++i) {
    const std::uint64_t offset = i * 512ULL;
    const std::uint64_t entry[2] = {offset, make_mark(1, i)};
    std::memcpy(memory.data() + lane_layout::entries_at + i * sizeof entry, entry, sizeof entry);
    bus::frame frame;
    frame.sequence = i + 1;
    frame.bytes = 256;
    std::memcpy(memory.data() + lane_bytes(stale_depth) + offset, &frame, sizeof frame);
  }
  return memory;
}

bus::fd sealed_with(const char* name, const char* bytes, std::uint64_t count, bool grows) {
  bus::fd made = fault::got(make_memory(name, count));
  must(::pwrite(made.get(), bytes, count, 0) == static_cast<ssize_t>(count), "pwrite");
  must(seal(made.get(), grows).has_value(), "seal");
  return made;
}

// Reads such a segment to its end; the bytes that came of it.
std::uint64_t read_stale(const std::string& memory) {
  const auto bell = fault::got(bus::bell::make());
  auto lane = lane_in::make(
      {.sender = {7},
       .depth = stale_depth,
       .arena_bytes = stale_arena,
       .arena = sealed_with("arena", memory.data() + lane_bytes(stale_depth), stale_arena, true),
       .lane = sealed_with("lane", memory.data(), lane_bytes(stale_depth), false),
       .bell = fault::got(bell->keys())});
  if (!lane) return 0;
  listening heard;
  static_cast<void>((*lane)->poll(depth_max, heard));
  return heard.bytes;
}

}  // namespace

TEST_CASE("case 19: a dead sender's segment, corrupted at every line, crashes and hangs nobody") {
  const std::string memory = stale_segment();
  REQUIRE(read_stale(memory) == 4 * 256ULL);
  child reader([&](fault::channel&) {
    corrupt_each_line(memory, [](const std::string& wrong) {
      // A frame may claim other sizes, but never more than the arena has.
      must(read_stale(wrong) <= stale_depth * stale_arena, "more than there is");
    });
  });
  REQUIRE(reader.wait() == 0);
}

TEST_CASE("case 20: no peer can truncate what another has mapped, so nobody dies of SIGBUS") {
  fault::stage stage;
  child holder([&](fault::channel& parent) { hold(parent, stage.directory(), 100); });
  REQUIRE(holder.pipe().hear(fault::long_patience) == 1);
  auto& listener = stage.listen();
  stage.speak({.client = {.at_work = [](bus::node&) { require_no_truncation(); }}, .links = 2});
  // The subscriber tried the same, while it held a hundred.
  REQUIRE(holder.pipe().hear(fault::long_patience) == 100);
  REQUIRE(says_yes(holder));
  listener.has_more(100);
  end(holder);
  stage.finish();
}

TEST_CASE("case 20: who reads a ledger that is truncated meanwhile gets less, and no SIGBUS") {
  fault::stage stage;
  auto& listener = stage.listen();
  auto& doomed = stage.speak();
  doomed.has(100);
  doomed.kill();
  const std::string path = file_of(stage, doomed, ".ledger");
  child truncating([&](fault::channel&) {
    for (off_t bytes = 0;; bytes = (bytes + 4001) % 20'000) {
      must(::truncate(path.c_str(), bytes) == 0, "truncate");
    }
  });
  child reader([&](fault::channel&) {
    const auto place = bus::rendezvous::visit(stage.directory());
    must(place.has_value(), "the directory");
    for (int i = 0; i < 2000; ++i) {
      static_cast<void>(bus::read_ledger(place->directory(), {doomed.record.epoch()}));
    }
  });
  REQUIRE(reader.wait() == 0);
  truncating.kill();
  REQUIRE(truncating.wait() == -SIGKILL);
  stage.speak();
  listener.has_more(100);
  stage.finish();
}

TEST_CASE("case 22: in a group's directory, another user's leftovers keep nobody out") {
  if (!is_root()) return;
  constexpr gid_t group = 60'000;
  const auto become = [](uid_t user) {
    return [user] {
      must(::setgroups(0, nullptr) == 0 && ::setresgid(group, group, group) == 0, "setresgid");
      must(::setresuid(user, user, user) == 0, "setresuid");
    };
  };
  fault::stage stage;
  files::permissions(stage.scratch(), files::perms::others_exec, files::perm_options::add);
  REQUIRE(::chown(stage.directory().c_str(), static_cast<uid_t>(-1), group) == 0);
  REQUIRE(::chmod(stage.directory().c_str(), 02770) == 0);
  auto& first = stage.listen({.client = {.before = become(60'001)}});
  auto& second = stage.speak({.client = {.before = become(60'001)}});
  first.has(100);
  first.kill();
  second.kill();
  // Both left all that they had: card, ledger, socket.
  REQUIRE(fault::left_in(stage.directory()).size() >= 6);
  auto& heard = stage.listen({.client = {.before = become(60'002)}});
  stage.speak({.client = {.before = become(60'002)}});
  heard.has(100);
  // Even the cleaner may be somebody else, if only of the group.
  child cleaner([&](fault::channel&) {
    const bus::fd command(::open(fault::bus_command(), O_PATH));
    become(60'002)();
    ::execl(("/proc/self/fd/" + std::to_string(command.get())).c_str(), "bus", "gc", "--directory",
            stage.directory().c_str(), nullptr);
  });
  REQUIRE(cleaner.wait() == 0);
  REQUIRE_FALSE(files::exists(file_of(stage, first, ".ledger")));
  REQUIRE_FALSE(files::exists(file_of(stage, second, ".card")));
  stage.finish();
}

TEST_CASE("case 24: a node's death is proved although a child that it forked lives on") {
  fault::stage stage;
  auto& listener = stage.listen();
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  bus::fd linger(ends[0]);
  bus::fd release(ends[1]);
  auto& doomed = stage.speak({.client = {.at_work = [&](bus::node&) {
                                release.reset();
                                if (::fork() != 0) return;
                                char last = 0;
                                static_cast<void>(!::read(linger.get(), &last, 1));
                                ::_exit(0);
                              }}});
  listener.has(100);
  doomed.kill();
  // By the lock, for those who look into the directory, and by the listener's books.
  const auto place = bus::rendezvous::visit(stage.directory());
  REQUIRE(place);
  CHECK_FALSE(bus::is_alive(place->directory(), {doomed.record.epoch()}));
  stage.finish();
  release.reset();
}

TEST_CASE("case 24: a forked child that drops its copy of a node takes nothing from its parent") {
  fault::stage stage;
  auto& listener = stage.listen();
  child parent([&](fault::channel& test) {
    auto node = std::make_unique<bus::node>(
        fault::make_client({.name = "parent", .directory = stage.directory()}));
    auto numbers = std::make_unique<bus::publisher<fault::message>>(
        node->advertise<fault::message>("numbers"));
    must(numbers->wait_matched(1, fault::long_patience), "nobody listens");
    child heir([&](fault::channel&) {
      numbers.reset();
      node.reset();
    });
    must(heir.wait() == 0, "the forked child did not end well");
    must(numbers->matched() == 1, "the parent lost its link");
    test.say(node->id().value);
    static_cast<void>(test.hear(1h));
  });
  const std::string name = bus::to_hex(parent.pipe().hear(fault::long_patience));
  const auto left = fault::left_in(stage.directory());
  for (const char* const suffix : {".card", ".ledger", ".sock"}) {
    CHECK(left.contains(name + suffix));
  }
  parent.pipe().say(1);
  REQUIRE(parent.wait() == 0);
  stage.speak().has(100);
  listener.has(100);
  stage.finish();
}

TEST_CASE("case 25: a program that a node starts inherits none of the bus's descriptors") {
  fault::stage stage;
  const std::string listing = stage.scratch() + "/listing";
  auto& listener = stage.listen();
  stage.speak({.client = {.at_work = [&](bus::node&) {
                 must(memory_files().size() >= 3, "there is nothing to inherit");
                 must(fault::run({"ls", "-l", "/proc/self/fd"}, listing) == 0, "ls");
               }}});
  listener.has(100);
  stage.finish();
  const std::string seen = fault::text_of(listing);
  INFO(seen);
  REQUIRE(fault::occurrences(seen, " -> ") >= 3);
  for (const char* const ours : {"memfd:", "socket:", "anon_inode", "/bus", "ledger"}) {
    CHECK(fault::occurrences(seen, ours) == 0);
  }
}

TEST_CASE("case 26: a publisher that restarts under its name before its death was noticed is new") {
  fault::stage stage;
  auto& listener = stage.listen();
  auto& old = stage.speak({.client = {.name = "sensor"}});
  listener.has(100);
  listener.stop();
  old.has_more(100);
  old.kill();
  auto& again = stage.start(fault::speaker_options{.client = {.name = "sensor"}});
  listener.go_on();
  fault::stage::wait_for(again);
  again.has(500);
  // All of the old one's, and none of it after its end: the checker knows the epochs apart.
  stage.finish();
  CHECK(listener.record.read().detached.contains(old.record.epoch()));
}

TEST_CASE("case 26: a subscriber that restarts before its death was noticed takes nobody's place") {
  fault::stage stage;
  auto& old = stage.listen({.client = {.name = "display"}});
  auto& speaker =
      stage.speak({.client = {.name = "sensor"}, .waits_for_room = false, .link_depth = 256});
  old.has(100);
  speaker.stop();
  old.kill();
  auto& again = stage.listen({.client = {.name = "display"}});
  speaker.go_on();
  again.has(500);
  stage.finish();
}
