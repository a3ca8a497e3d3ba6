// What this machine can do at all, measured beside every benchmark in the same run: two processes
// that exchange the least that could be exchanged. No bus can be faster; the ratio to these figures
// is what a benchmark says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bus::tool {

// Round trips between this process and a child of it, in nanoseconds, one per trip. Each call
// forks, measures and reaps; an empty result means that the child could not be made.
[[nodiscard]] std::vector<std::int64_t> cache_line_trips(std::size_t count);
[[nodiscard]] std::vector<std::int64_t> semaphore_trips(std::size_t count);
[[nodiscard]] std::vector<std::int64_t> signalfd_trips(std::size_t count);
[[nodiscard]] std::vector<std::int64_t> tcp_trips(std::size_t count, std::size_t bytes);

// Messages per second through a single-producer single-consumer ring in shared memory, each written
// by us and read by a child, for messages of `bytes`.
[[nodiscard]] double ring_rate(std::size_t count, std::size_t bytes);
// Messages per second over a loopback TCP connection.
[[nodiscard]] double tcp_rate(std::size_t count, std::size_t bytes);

}  // namespace bus::tool
