// What a subscriber holds of a publisher, and the reverse: descriptors and mappings that can only
// be read, in memory that cannot be taken away.
#include "tests/fault/shm_liar.hpp"
#include "tests/security/users.hpp"

#include <array>
#include <functional>
#include <sstream>
#include <string_view>

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>

using namespace std::chrono_literals;
using namespace transports::shared;
using contract::must;
using contract::party;
using contract::pump_until;
using fault::channel;
using fault::child;
using fault::got;
using fault::liar;
using fault::refusal;
using world = fault::shm_world;

namespace {

// Tries everything that could change the file behind `number`; returns what succeeded.
std::string written_through(int number) {
  constexpr int both = PROT_READ | PROT_WRITE;
  if (void* const at = ::mmap(nullptr, 4096, both, MAP_SHARED, number, 0); at != MAP_FAILED) {
    ::munmap(at, 4096);
    return "mmap";
  }
  if (::write(number, "x", 1) > 0) return "write";
  if (::pwrite(number, "x", 1, 0) > 0) return "pwrite";
  if (::fallocate(number, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0) return "punch";
  if (::fallocate(number, FALLOC_FL_ZERO_RANGE, 0, 4096) == 0) return "zero";
  if (::fallocate(number, FALLOC_FL_COLLAPSE_RANGE, 0, 4096) == 0) return "collapse";
  if (::ftruncate(number, 0) == 0) return "ftruncate";
  if (::fcntl(number, F_ADD_SEALS, F_SEAL_WRITE) == 0) return "seal";
  if (::fchmod(number, 0666) == 0 && ::geteuid() != 0) return "fchmod";
  return {};
}

// All descriptors of memory that other processes write: how many there were. Throws if one of them
// can be written.
int try_descriptors() {
  int seen = 0;
  for (int number = 0; number < 256; ++number) {
    std::array<char, 256> target{};
    if (::readlink(path_of(number).c_str(), target.data(), target.size() - 1) < 0) continue;
    const std::string_view name(target.data());
    if (name.find("omnibus-arena") == name.npos && name.find("omnibus-lane") == name.npos) continue;
    ++seen;
    // Opened again, by every way to its name.
    const bus::fd again(::open(path_of(number).c_str(), O_RDWR | O_CLOEXEC));
    const std::string by_thread = "/proc/thread-self/fd/" + std::to_string(number);
    const bus::fd again_by_thread(::open(by_thread.c_str(), O_WRONLY | O_CLOEXEC));
    const bus::fd copy(::fcntl(number, F_DUPFD_CLOEXEC, 0));
    for (const int one : {number, again.get(), again_by_thread.get(), copy.get()}) {
      if (one < 0) continue;
      const std::string way = written_through(one);
      must(way.empty(), "changed by " + way + ": " + std::string(name));
    }
  }
  return seen;
}

// The mappings that are there cannot be made writable, nor moved or emptied. Returns how many.
int try_mappings() {
  std::ifstream maps("/proc/self/maps");
  int mapped = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("omnibus-arena") == line.npos && line.find("omnibus-lane") == line.npos) continue;
    std::uint64_t first = 0;
    std::istringstream(line) >> std::hex >> first;
    ++mapped;
    auto* const at = reinterpret_cast<void*>(first);
    must(::mprotect(at, 4096, PROT_READ | PROT_WRITE) != 0, "made writable: " + line);
    must(::madvise(at, 4096, MADV_REMOVE) != 0, "a hole was made: " + line);
  }
  return mapped;
}

// A subscriber that `turns_into` somebody, receives one payload, and tries to change it.
void require_unchanged(const std::function<void()>& turns_into) {
  world stage;
  if (::geteuid() == 0) security::give_to_group(stage.scratch());
  party& publisher = stage.add();
  child subscriber([&](channel& parent) {
    turns_into();
    const auto self = stage.make();
    parent.say(self->id.value);
    must(pump_until({self.get()}, [&] { return self->heard.samples.size() == 1; }), "nothing came");
    must(try_descriptors() > 0, "no descriptor of the arena was found");
    must(try_mappings() >= 2, "no mappings were found");
    must(self->heard.unproved == 0 && contract::proves(self->heard.samples[0]), "changed");
    parent.say(1);
  });
  const std::uint64_t id = subscriber.pipe().hear();
  bus::outbox& way = publisher.connect({id}, "shm:" + bus::to_hex(id));
  const auto kept = publisher.make(1, 4096);
  contract::send_all(stage.all(), way, {kept});
  REQUIRE(subscriber.pipe().hear() == 1);
  REQUIRE(subscriber.wait() == 0);
  REQUIRE(contract::proves(kept));
}

struct wrong {
  const char* what;
  std::function<bus::fd()> make;  // empty where this machine has none
};

bus::fd sealed(bus::fd&& file, int seals) {
  must(::fcntl(file.get(), F_ADD_SEALS, seals) == 0, "seals");
  return std::move(file);
}

bus::fd memory(std::uint64_t bytes, unsigned flags = 0) {
  bus::fd made(::memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags));
  if (made) must(::ftruncate(made.get(), static_cast<off_t>(bytes)) == 0, "ftruncate");
  return made;
}

bus::fd reserved(std::uint64_t bytes) {
  bus::fd made = memory(bytes);
  must(::fallocate(made.get(), 0, 0, static_cast<off_t>(bytes)) == 0, "fallocate");
  return made;
}

constexpr int good_seals = F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE | F_SEAL_GROW;

// Everything that a hello could bring in place of memory that cannot be taken away.
std::vector<wrong> wrong_memories(const std::string& folder, std::uint64_t bytes) {
  const auto file_in = [bytes](const std::string& place) {
    bus::fd made(::open(place.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    must(::ftruncate(made.get(), static_cast<off_t>(bytes)) == 0, "ftruncate");
    return made;
  };
  return {
      {"unsealed", [=] { return reserved(bytes); }},
      {"may shrink", [=] { return sealed(reserved(bytes), F_SEAL_FUTURE_WRITE); }},
      {"may be punched", [=] { return sealed(reserved(bytes), F_SEAL_SHRINK | F_SEAL_GROW); }},
      {"sparse", [=] { return sealed(memory(bytes), good_seals); }},
      {"huge and sparse", [] { return sealed(memory(1ULL << 39), good_seals); }},
      {"one page short",
       [=] { return bytes > 4096 ? sealed(reserved(bytes - 4096), good_seals) : bus::fd(); }},
      {"empty", [] { return sealed(memory(0), good_seals); }},
      {"a file on a disk", [=] { return file_in(folder + "/file"); }},
      {"a file on a tmpfs", [=] { return file_in("/dev/shm/omnibus-hostile"); }},
      {"huge pages",
       [] {
         bus::fd made(::memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB));
         if (!made || ::ftruncate(made.get(), 2 << 20) != 0) return bus::fd();
         return sealed(std::move(made), good_seals);
       }},
      {"secret memory",
       [] { return bus::fd(static_cast<int>(::syscall(447 /* memfd_secret */, O_CLOEXEC))); }},
      {"a device", [] { return bus::fd(::open("/dev/zero", O_RDWR | O_CLOEXEC)); }},
      {"a directory", [=] { return bus::fd(::open(folder.c_str(), O_RDONLY | O_CLOEXEC)); }},
      {"a path", [=] { return bus::fd(::open(folder.c_str(), O_PATH | O_CLOEXEC)); }},
      {"a socket", [] { return bus::fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }},
      {"an eventfd", [] { return bus::fd(::eventfd(0, EFD_CLOEXEC)); }},
      {"a process",
       [] { return bus::fd(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0))); }},
  };
}

}  // namespace

TEST_CASE("statement 7: a subscriber cannot change a payload by any descriptor or mapping") {
  SECTION("of the same user, with all rights there are") {
    require_unchanged([] {});
  }
  SECTION("another member of the group") {
    if (!security::is_root()) return;
    require_unchanged([] { security::become(security::bob); });
  }
  SECTION("root of a user namespace") {
    if (!security::is_root() || !security::has_user_namespaces()) return;
    require_unchanged([] {
      security::become(security::bob);
      security::become_root_inside();
    });
  }
}

TEST_CASE("statements 8 and 13: memory that could be taken away is not accepted in any place") {
  world stage;
  party& victim = stage.add();
  liar enemy(stage.scratch());
  enemy.seal_all();
  static_cast<void>(victim.step());
  const std::size_t before = fault::open_descriptors();
  int tried = 0;
  for (const std::size_t place : {0UL, 1UL, 2UL}) {
    for (const wrong& one : wrong_memories(stage.scratch(), place == 0   ? liar::arena_bytes / 2
                                                            : place == 1 ? lane_bytes(liar::depth)
                                                                         : 4096)) {
      // The bell's page is written by others, so its seals are fewer; reading it costs one page.
      const std::string_view what = one.what;
      if (place == 2 && (what == "may be punched" || what == "sparse")) continue;
      // A short arena is one that has not grown yet.
      if (place == 0 && what == "one page short") continue;
      INFO(what << " in place " << place);
      note first = enemy.hello();
      first.descriptors[place] = one.make();
      if (!first.descriptors[place]) continue;
      ++tried;
      const auto answer = enemy.meet(victim, first);
      if (place == 0 && what == "empty") {
        // Nothing is in it, so nothing can be read: as good as an arena that was never used.
        REQUIRE(answer.head.kind == static_cast<std::uint16_t>(note_kind::welcome));
      } else {
        const auto why = refusal(answer);
        REQUIRE(
            (why == bus::errc::corrupt || why == bus::errc::denied || why == bus::errc::refused));
      }
      enemy.socket.reset();
      REQUIRE(stage.pump_until([&] { return victim.inbox().arm(); }));
    }
  }
  static_cast<void>(::unlink("/dev/shm/omnibus-hostile"));
  REQUIRE(tried >= 40);
  REQUIRE(
      stage.pump_until([&] { return fault::open_descriptors() <= before; }, {.look_every = 5ms}));
}

TEST_CASE("statement 8: a publisher cannot take away what it has handed out") {
  liar enemy(std::filesystem::temp_directory_path());
  enemy.seal_all();
  for (const bus::fd* const file : {&enemy.arena_file, &enemy.lane_file}) {
    const int number = file->get();
    REQUIRE(::ftruncate(number, 2048) != 0);
    REQUIRE(::ftruncate(number, 0) != 0);
    REQUIRE(::fallocate(number, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) != 0);
  }
  // Not even through the mapping that may write.
  REQUIRE(::madvise(enemy.arena.at(), 4096, MADV_REMOVE) != 0);
  REQUIRE(::madvise(enemy.lane.at(), 4096, MADV_REMOVE) != 0);
}

TEST_CASE("statement 8: an arena that grows by a hole gets its sender cut, and nobody dies") {
  world stage;
  party& victim = stage.add();
  liar enemy(stage.scratch());
  enemy.seal_all();
  REQUIRE(enemy.meet(victim, enemy.hello()).head.kind ==
          static_cast<std::uint16_t>(note_kind::welcome));
  REQUIRE(::ftruncate(enemy.arena_file.get(), liar::arena_bytes) == 0);
  enemy.write(0, liar::arena_bytes / 2 + 4096, 0);
  REQUIRE(
      stage.pump_until([&] { return victim.heard.departures.size() == 1; }, {.look_every = 5ms}));
  REQUIRE(victim.heard.departures[0].reason == bus::errc::corrupt);
  REQUIRE(victim.heard.accepted == 0);
}

TEST_CASE("statement 8: a full file system is an error where memory is made, and never SIGBUS") {
  if (!security::is_root()) return;
  // What a publisher on a full tmpfs would do: a mapping of a file there, which it cannot fill.
  child poor([](channel&) {
    must(::unshare(CLONE_NEWNS) == 0, "unshare");
    must(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private");
    must(::mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=64k") == 0, "mount");
    const auto made = make_memory("omnibus-arena", 1 << 20);  // has no file system to fill
    must(made.has_value(), "no memory: " + made.error().message());
    const auto mapped = got(mapping::writable(made->get(), 1 << 20));
    for (std::uint64_t at = 0; at < mapped.bytes(); at += 4096) mapped.at()[at] = std::byte{1};
  });
  REQUIRE(poor.wait() == 0);
}
