// How much memory this process may still take before somebody is killed for it. The kernel does not
// say no to fallocate at a cgroup's limit: it sends the OOM killer. So we ask before.
#pragma once

#include <cstdint>
#include <string>

namespace transports::shared {

// Bytes that the machine has, and that every memory cgroup above this process leaves, what the
// kernel can drop or swap out included. UINT64_MAX where nothing is known. An estimate: others take
// memory, too, between this and the taking. Reads about ten small files, 30 to 100 us.
struct headroom {
  std::uint64_t cgroup = UINT64_MAX;
  std::uint64_t machine = UINT64_MAX;
};
// `root` is where /proc and /sys are.
[[nodiscard]] headroom find_headroom(const std::string& root = {});

}  // namespace transports::shared
