// What a transport says of itself. Selection ranks by these figures and by nothing else; they are
// measured (docs/performance.md), not wished for.
#pragma once

#include <cstdint>
#include <string_view>

namespace bus {

// How far a transport carries: the nearer, the cheaper.
enum class reach : std::uint8_t { process, host, network };

struct traits {
  std::string_view scheme;  // the word before the colon of its addresses: "shm"
  bus::reach reach = reach::process;
  bool shares_memory = false;          // a payload is read where it was written
  bool needs_directory = false;        // its addresses are places in a bus directory that both have
  bool invites = false;                // it can make a way to a process that we start
  bool survives_crash = false;         // what was taken is delivered although the sender died
  std::uint64_t bytes_max = 0;         // largest payload
  std::uint64_t latency_ns = 0;        // one way, small message, receiver asleep
  std::uint64_t bytes_per_second = 0;  // of one link, large messages
};

// The estimated time of one message: latency + bytes / bandwidth, in nanoseconds.
[[nodiscard]] constexpr std::uint64_t cost_ns(const traits& about, std::uint64_t bytes) noexcept {
  const double transfer =
      about.bytes_per_second == 0
          ? 0.0
          : 1e9 * static_cast<double>(bytes) / static_cast<double>(about.bytes_per_second);
  return about.latency_ns + static_cast<std::uint64_t>(transfer);
}

}  // namespace bus
