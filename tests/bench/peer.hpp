// What the workloads of bench_peers know of a library: how one party of it sends and receives. Each
// library has a file of its own, which ends with the function that introduces it; main lists them
// all. CMake leaves out the file of a library that it does not find, and builds in its place one
// that only says which packages to install (peer_absent.cpp.in).
#pragma once

#include "bus/base/clock.hpp"

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace peers {

// How long anything is waited for: far more than it takes on a busy machine.
inline constexpr int patience_ms = 20'000;
// The first 8 bytes of each message, as in bus/tool/bench.cpp: a number, or one of these.
inline constexpr std::uint64_t round_ends = 0;
inline constexpr std::uint64_t all_ends = UINT64_MAX;

struct settings {
  std::string workload;
  std::string peer = "zmq-ipc";
  std::string wait = "sleep";
  std::uint64_t size = 64;
  std::uint64_t count = 0;  // messages per round; 0: what fits a second
  std::uint64_t rounds = 5;
  std::uint64_t subscribers = 4;
  std::uint64_t queue = 0;  // messages on the way, if the library lets us say; 0: what is fastest
  bool untouched = false;
  bool json = false;
};

enum class part { pair, source, sink };

// A benchmark that cannot be run here, unlike one that went wrong: something is to be installed.
class not_installed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error(what); }

// Requires: run.size bytes at `to`.
inline void write_payload(void* to, const settings& run, std::uint64_t word) {
  if (!run.untouched) std::memset(to, static_cast<int>(word & 0xff), run.size);
  std::memcpy(to, &word, sizeof word);
}

// Requires: run.size bytes at `from`.
inline std::uint64_t read_payload(const void* from, const settings& run) {
  static std::vector<char> into(run.size);
  if (!run.untouched) {
    std::memcpy(into.data(), from, run.size);
    asm volatile("" : : "r"(into.data()) : "memory");
  }
  std::uint64_t word = 0;
  std::memcpy(&word, from, sizeof word);
  return word;
}

// For --wait spin: looks until it is there; false when patience ends first.
template <class Look>
[[nodiscard]] bool spin_until(Look is_there) {
  const auto until = bus::deadline::after(std::chrono::milliseconds(patience_ms));
  for (unsigned turns = 1; !is_there(); ++turns) {
    if (turns % 256 == 0 && until.passed()) return false;
  }
  return true;
}

// One party's way to the others, over some library. send and receive wait, patience_ms at most.
class party {
 public:
  party() = default;
  virtual ~party() = default;
  party(const party&) = delete;
  party& operator=(const party&) = delete;

  // Where the others shall connect to, after binding: one address for each of them, or one for all.
  [[nodiscard]] virtual std::vector<std::string> bind(const std::string& folder) = 0;
  virtual void connect(const std::string& address) = 0;
  // Returns once all others are there, as far as the library can tell.
  virtual void gather() = 0;
  [[nodiscard]] virtual bool send(std::uint64_t word) = 0;
  [[nodiscard]] virtual std::optional<std::uint64_t> receive() = 0;
};

struct library {
  std::vector<std::string> names;                                             // for --peer
  std::unique_ptr<party> (*make)(part plays, const settings& run) = nullptr;  // null: not built
  std::string packages = {};  // of Debian, that are missing then
};

library zmq();
library nng();
library redis();
library nats();
library cyclone();

}  // namespace peers
