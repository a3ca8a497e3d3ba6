// A node among bad input and without resources: each shortage is a named error that says what to
// do, nothing hangs, nothing is left behind; and killing anybody hurts nobody else.
#include "tests/fault/shm_stage.hpp"
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using Catch::Contains;

namespace {

namespace files = std::filesystem;

bus::node make_node(const std::string& directory, std::uint64_t memory_bytes_max = 64 << 20) {
  return bus::node({.name = "n",
                    .transports = {transports::shm()},
                    .directory = directory,
                    .memory_bytes_max = memory_bytes_max});
}

// Runs the body in a process of its own; its exit status.
int in_child(const std::function<void()>& body) {
  fault::child one([&](fault::channel&) { body(); });
  return one.wait();
}

// The sentence of the bus::error with which a node refuses to be; throws if it does not.
std::string refusal(const std::string& directory) {
  try {
    const bus::node unwanted = make_node(directory);
  } catch (const bus::error& refused) {
    return refused.what();
  }
  throw std::runtime_error("a node that should be refused came up in " + directory);
}

void require_says(const std::string& sentence, std::initializer_list<const char*> words) {
  for (const char* const word : words) {
    crew::must(sentence.find(word) != std::string::npos, "'" + sentence + "' lacks '" + word + "'");
  }
}

// All that lies in a bus directory but the rooms that every bus has; the pipes of those who got no
// inotify instance count, wherever they lie.
std::set<std::string> left_in(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& entry : files::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name == "waiting") {
      names.merge(left_in(entry.path().string()));
    } else if (name != "schemas") {
      names.insert(name);
    }
  }
  return names;
}

// A mount namespace of our own with a small file system at `at`. Root only.
void mount_small(const std::string& at, const char* options) {
  crew::must(::unshare(CLONE_NEWNS) == 0, "unshare");
  crew::must(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private mounts");
  crew::must(::mount("tmpfs", at.c_str(), "tmpfs", 0, options) == 0, "mount");
}

void fill(const std::string& directory) {
  std::ofstream file(directory + "/filling", std::ios::binary);
  const std::string page(4096, 'x');
  while (file.write(page.data(), static_cast<std::streamsize>(page.size())).flush()) {
  }
}

bool is_root() {
  if (::geteuid() == 0) return true;
  WARN("not shown here: only root may mount and become somebody else");
  return false;
}

std::string hex(std::uint64_t value) { return bus::to_hex(value); }

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// The card of a node that wants "numbers", and says that it is reached by shm.
std::string card_of(std::uint64_t node, std::uint32_t version) {
  bus::wire::Card card;
  card.set_version(version);
  card.set_node(node);
  card.set_name("stranger");
  card.set_revision(1);
  card.add_addresses("shm:" + hex(node));
  card.add_interests()->set_pattern("numbers");
  card.mutable_interests(0)->set_subscription(1);
  return card.SerializeAsString();
}

// Puts one of each kind of rubbish into `directory`, under numbers from `first` on.
void litter(const std::string& directory, std::uint64_t first) {
  std::mt19937_64 random(first);
  std::string noise(5000, '\0');
  for (char& byte : noise) byte = static_cast<char>(random());
  auto path = [&, number = first](const std::string& suffix) mutable {
    return directory + "/" + hex(number++) + suffix;
  };
  for (const char* const suffix : {".card", ".topics", ".ledger", ".links", ".sock"}) {
    write_file(path(suffix), noise);
    write_file(path(suffix), "");
    files::create_symlink("/dev/zero", path(suffix));
    files::create_directory(path(suffix));
    crew::must(::mkfifo(path(suffix).c_str(), 0600) == 0, "mkfifo");
    const std::string large = path(suffix);
    write_file(large, "");
    files::resize_file(large, 1ULL << 34);
  }
  write_file(directory + "/not-a-number.card", noise);
  write_file(directory + "/" + hex(first + 100) + ".card", card_of(first + 101, 1));
  const std::string whole = card_of(first + 102, 1);
  write_file(directory + "/" + hex(first + 102) + ".card", whole.substr(0, whole.size() / 2));
  // A whole card each: of nobody, of one with a free lock, and of one with a pipe for a ledger.
  write_file(directory + "/" + hex(first + 103) + ".card", card_of(first + 103, 1));
  write_file(directory + "/" + hex(first + 104) + ".card", card_of(first + 104, 1));
  write_file(directory + "/" + hex(first + 104) + ".ledger", noise);
  write_file(directory + "/" + hex(first + 105) + ".card", card_of(first + 105, 1));
  const std::string pipe = directory + "/" + hex(first + 105) + ".ledger";
  crew::must(::mkfifo(pipe.c_str(), 0600) == 0, "mkfifo");
}

// A writer and a reader in `directory` exchange ten numbers; `meanwhile` runs once they met.
void converse(
    const std::string& directory, const std::function<void()>& meanwhile = [] {}) {
  bus::node writer = make_node(directory);
  bus::node reader = make_node(directory);
  auto numbers = writer.advertise<crew::numbered>("numbers");
  auto heard = reader.subscribe<crew::numbered>("numbers");
  const auto turn = [&] {
    reader.run_for(1ms);
    writer.run_for(1ms);
  };
  const auto match = [&] {
    turn();
    return heard.matched() == 1 && numbers.matched() == 1;
  };
  crew::must(crew::eventually(match, 10s), "they did not match");
  meanwhile();
  for (int i = 0; i < 50; ++i) turn();
  for (std::uint64_t i = 1; i <= 10; ++i) {
    crew::must(numbers.publish(crew::make(i, 1)).taken == 1, "not taken");
    const auto got = heard.take(10s);
    crew::must(got.has_value(), "not heard");
    crew::must(crew::check(**got, 1, i - 1) == i, "another one");
  }
  crew::must(heard.accounts().balanced(), "the books do not balance");
}

}  // namespace

TEST_CASE("case 44: a full disk refuses a node by name and keeps nothing of it") {
  if (!is_root()) return;
  const tests::scratch_directory scratch;
  CHECK(in_child([&] {
          mount_small(scratch.path(), "size=64k,mode=0700");
          fill(scratch.path());
          require_says(refusal(scratch.path()), {scratch.path().c_str(), "free some space"});
          crew::must(left_in(scratch.path()) == std::set<std::string>{"filling"}, "left behind");
          files::remove(scratch.path() + "/filling");
          static_cast<void>(make_node(scratch.path()));
          crew::must(left_in(scratch.path()).empty(), "left behind after recovery");
        }) == 0);
}

TEST_CASE(
    "case 44: a disk that fills under a live node stops no link, and its card comes when there is "
    "room") {
  if (!is_root()) return;
  const tests::scratch_directory scratch;
  CHECK(in_child([&] {
          const std::string& directory = scratch.path();
          mount_small(directory, "size=256k,mode=0700");
          bus::node node = make_node(directory);
          converse(directory, [&] { fill(directory); });
          const auto late = node.advertise<crew::numbered>("late/one");
          files::remove(directory + "/filling");
          const auto shown = [&] {
            node.run_for(2ms);
            const auto card = node.inside().meeting_place().read_whole_card(node.id());
            return card && card->advertisements_size() == 1;
          };
          crew::must(crew::eventually(shown, 10s), "the card was not written again");
        }) == 0);
}

TEST_CASE("a directory that everybody may write to is refused") {
  const tests::scratch_directory scratch;
  files::permissions(scratch.path(), files::perms::all);
  CHECK(in_child([&] {
          require_says(refusal(scratch.path()), {scratch.path().c_str(), "0700", "OMNIBUS_DIR"});
          crew::must(left_in(scratch.path()).empty(), "left behind");
        }) == 0);
}

TEST_CASE("another user is kept out of our directory, and we out of theirs") {
  if (!is_root()) return;
  const tests::scratch_directory scratch;
  constexpr uid_t nobody = 65534;
  files::permissions(scratch.path(), files::perms::owner_all | files::perms::others_exec |
                                         files::perms::others_read);
  const std::string ours = scratch.path() + "/ours";
  CHECK(in_child([&] { static_cast<void>(make_node(ours)); }) == 0);
  CHECK((files::status(ours).permissions() & files::perms::mask) == files::perms::owner_all);
  for (const std::string& directory : {ours, scratch.path()}) {
    CHECK(in_child([&] {
            crew::must(::setresgid(nobody, nobody, nobody) == 0, "setresgid");
            crew::must(::setresuid(nobody, nobody, nobody) == 0, "setresuid");
            require_says(refusal(directory), {directory.c_str(), "OMNIBUS_DIR"});
          }) == 0);
  }
}

TEST_CASE("case 23: a node of another version is not linked, and both versions are named") {
  const tests::scratch_directory scratch;
  constexpr bus::node_id stranger{0x77};
  const bus::fd opened(::open(scratch.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto alive = bus::ledger_file::create(opened.get(), stranger);
  REQUIRE(alive);
  write_file(scratch.path() + "/" + hex(stranger.value) + ".card", card_of(stranger.value, 2));
  bus::node writer = make_node(scratch.path());
  const auto numbers = writer.advertise<crew::numbered>("numbers");
  std::string troubles;
  REQUIRE(crew::eventually(
      [&] {
        writer.run_for(1ms);
        const auto links = writer.inside().meeting_place().read_links(writer.id());
        if (!links) return false;
        // It may stand beside others, when the machine is short of something.
        for (const std::string& one : links->troubles()) troubles = one;
        return troubles.find("version") != std::string::npos;
      },
      10s));
  CHECK_THAT(troubles, Contains("version 2") && Contains("we speak 1") && Contains("stranger"));
  CHECK(numbers.matched() == 0);
}

TEST_CASE("rubbish in the directory hurts nobody, whether it was there before or comes later") {
  const tests::scratch_directory scratch;
  litter(scratch.path(), 0x1000);
  const auto began = bus::steady_ns();
  CHECK(in_child([&] {
          converse(scratch.path(), [&] {
            // By rename, as cards come, so that live nodes look at each.
            const std::string aside = scratch.path() + "/aside";
            files::create_directory(aside);
            litter(aside, 0x2000);
            for (const auto& one : files::directory_iterator(aside)) {
              files::rename(one.path(), scratch.path() / one.path().filename());
            }
          });
        }) == 0);
  CHECK(bus::steady_ns() - began < 20'000'000'000);
}

TEST_CASE("case 38: a node without descriptors says so, and leaves neither files nor descriptors") {
  const tests::scratch_directory scratch;
  CHECK(in_child([&] {
          static_cast<void>(make_node(scratch.path()));
          // Before UBSan believes in a vtable it reads it through a pipe, once; without descriptors
          // it would believe in none. So it is shown the errors and their categories now.
          for (const std::error_category* one :
               {&std::generic_category(), &std::system_category(), &bus::category()}) {
            const bus::error shown(std::error_code(EMFILE, *one), "shown");
            static_cast<void>(shown.code() == std::errc::too_many_files_open);
          }
          const auto before = fault::open_descriptors();
          int refused = 0;
          int made = 0;
          for (rlim_t limit = 3; limit < 64; ++limit) {
            rlimit few{};
            crew::must(::getrlimit(RLIMIT_NOFILE, &few) == 0, "getrlimit");
            const rlim_t usual = std::exchange(few.rlim_cur, limit);
            crew::must(::setrlimit(RLIMIT_NOFILE, &few) == 0, "setrlimit");
            std::string sentence;
            try {
              static_cast<void>(make_node(scratch.path()));
              ++made;
            } catch (const bus::error& failed) {
              sentence = failed.what();
              ++refused;
            }
            few.rlim_cur = usual;
            crew::must(::setrlimit(RLIMIT_NOFILE, &few) == 0, "setrlimit");
            if (!sentence.empty()) require_says(sentence, {"ulimit -n"});
            crew::must(left_in(scratch.path()).empty(),
                       "files left at " + std::to_string(limit) + " descriptors: " + sentence);
            crew::must(fault::open_descriptors() == before, "descriptors left: " + sentence);
          }
          crew::must(refused > 0 && made > 0, "the limits tested nothing");
        }) == 0);
}

TEST_CASE("a publisher whose memory is all held says no_memory, and recovers") {
  const tests::scratch_directory scratch;
  bus::node writer = make_node(scratch.path(), 2 << 20);
  bus::node reader = make_node(scratch.path());
  auto blocks = writer.advertise<bus::raw>("blocks");
  auto heard = reader.subscribe<bus::raw>("blocks");
  REQUIRE(crew::eventually(
      [&] {
        reader.run_for(1ms);
        writer.run_for(1ms);
        return blocks.matched() == 1;
      },
      10s));
  std::vector<bus::received<bus::raw>> held;
  const std::string block(100'000, 'x');
  const auto bytes = std::as_bytes(std::span(block));
  bus::published outcome;
  for (int i = 0; i < 1000 && !outcome.error; ++i) {
    outcome = blocks.publish(bytes);
    while (auto got = heard.try_take()) held.push_back(std::move(*got));
  }
  REQUIRE(outcome.error == bus::errc::no_memory);
  REQUIRE(held.size() > 5);
  const std::uint64_t numbered = blocks.sequence();
  REQUIRE(numbered == held.size());
  held.clear();
  REQUIRE(blocks.publish(bytes).taken == 1);
  REQUIRE(heard.take(10s));
  REQUIRE(heard.accounts().balanced());
  REQUIRE(heard.accounts().lost_in_all() == 0);
}
