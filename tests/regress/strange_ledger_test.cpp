// A named pipe in the place of a ledger: whoever asked whether its node lives waited for ever. And
// a ledger of a terabyte, all of it a hole: whoever buried its node had no memory left.
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <filesystem>
#include <fstream>

#include <sys/stat.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

constexpr bus::node_id stranger{0x0123456789abcdefULL};

std::string path_of(const std::string& directory, const std::string& suffix) {
  return directory + "/" + bus::to_hex(stranger.value) + suffix;
}

}  // namespace

TEST_CASE("a pipe, a device, a link or a directory for a ledger is a dead node, at once") {
  const tests::scratch_directory scratch;
  const std::string ledger = path_of(scratch.path(), ".ledger");
  const bus::fd directory(::open(scratch.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  fault::child asker([&](fault::channel& parent) {
    while (parent.hear() != 0) {
      parent.say(bus::is_alive(directory.get(), stranger) ? 1 : 0);
      parent.say(bus::read_ledger(directory.get(), stranger) ? 1 : 0);
    }
  });
  const auto require_dead = [&] {
    asker.pipe().say(1);
    CHECK(asker.pipe().hear() == 0);
    CHECK(asker.pipe().hear() == 0);
    std::filesystem::remove_all(ledger);
  };
  REQUIRE(::mkfifo(ledger.c_str(), 0600) == 0);
  require_dead();
  std::filesystem::create_directory(ledger);
  require_dead();
  std::filesystem::create_symlink("/dev/zero", ledger);
  require_dead();
  asker.pipe().say(0);
  CHECK(asker.wait() == 0);
}

TEST_CASE("a ledger of a terabyte of nothing costs no memory") {
  const tests::scratch_directory scratch;
  const std::string path = path_of(scratch.path(), ".ledger");
  bus::ledger_header header{};
  header.magic = bus::ledger_header::magic_value;
  header.version = bus::ledger_header::current_version;
  header.rows.store(UINT32_MAX);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(&header), sizeof header);
  std::filesystem::resize_file(path, 1ULL << 40);
  const bus::fd directory(::open(scratch.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto books = bus::read_ledger(directory.get(), stranger);
  // More rows than a ledger can have: not a ledger.
  REQUIRE_FALSE(books);
  REQUIRE(books.error() == bus::errc::corrupt);
}
