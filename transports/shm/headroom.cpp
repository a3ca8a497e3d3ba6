#include "transports/shm/headroom.hpp"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>

namespace transports::shared {
namespace {

// What the two versions of cgroups call the same things.
struct names {
  const char* mount;
  const char* limit;
  const char* used;
  std::string_view inactive;
  std::string_view active;
};
constexpr names second{"/sys/fs/cgroup", "/memory.max", "/memory.current", "inactive_file",
                       "active_file"};
constexpr names first{"/sys/fs/cgroup/memory", "/memory.limit_in_bytes", "/memory.usage_in_bytes",
                      "total_inactive_file", "total_active_file"};

// The number in a file of one; nothing for "max", and for what is not there.
std::optional<std::uint64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  if (!(file >> number)) return std::nullopt;
  return number;
}

// Of a file of lines "NAME NUMBER".
std::uint64_t number_of(const std::string& path, std::string_view name) {
  std::ifstream file(path);
  std::string word;
  std::uint64_t number = 0;
  while (file >> word >> number) {
    if (word == name) return number;
  }
  return 0;
}

// Of /proc/meminfo, whose lines are "NAME: NUMBER kB".
std::optional<std::uint64_t> bytes_of(const std::string& root, std::string_view name) {
  std::ifstream file(root + "/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    std::uint64_t kilobytes = 0;
    if (words >> word >> kilobytes && word == name) return kilobytes * 1024;
  }
  return std::nullopt;
}

// The path of our cgroup, by the line of /proc/self/cgroup that is about memory.
std::optional<std::string> path_of_ours(const std::string& root, bool is_second) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.find(':');
    const auto next = line.find(':', colon + 1);
    if (colon == std::string::npos || next == std::string::npos) continue;
    const std::string controllers = "," + line.substr(colon + 1, next - colon - 1) + ",";
    const bool is_it =
        is_second ? controllers == ",," : controllers.find(",memory,") != std::string::npos;
    if (is_it) return line.substr(next + 1);
  }
  return std::nullopt;
}

// What one cgroup leaves.
std::uint64_t left_in(const std::string& place, const names& words) {
  const auto limit = number_in(place + words.limit);
  const auto used = number_in(place + words.used);
  if (!limit || !used) return UINT64_MAX;
  const std::string stat = place + "/memory.stat";
  const std::uint64_t can_go =
      std::min(*used, number_of(stat, words.inactive) + number_of(stat, words.active));
  const std::uint64_t stays = *used - can_go;
  return *limit > stays ? *limit - stays : 0;
}

// The least that ours and those above it leave.
std::uint64_t left_in_all(const std::string& root, const names& words, std::string path) {
  std::uint64_t least = UINT64_MAX;
  // In a container the path may be the host's, and what is mounted is ours: then only that is
  // there.
  while (!path.empty() && path != "/") {
    least = std::min(least, left_in(std::string(root).append(words.mount).append(path), words));
    path.resize(path.rfind('/'));
  }
  return std::min(least, left_in(root + words.mount, words));
}

}  // namespace

headroom find_headroom(const std::string& root) {
  headroom found;
  for (const names* const words : {&second, &first}) {
    const auto path = path_of_ours(root, words == &second);
    if (path) found.cgroup = std::min(found.cgroup, left_in_all(root, *words, *path));
  }
  const std::uint64_t swap = bytes_of(root, "SwapFree:").value_or(0);
  if (found.cgroup != UINT64_MAX) found.cgroup += swap;
  if (const auto available = bytes_of(root, "MemAvailable:")) found.machine = *available + swap;
  return found;
}

}  // namespace transports::shared
