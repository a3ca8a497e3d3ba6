#include "bus/base/visible_files.hpp"

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bus {
namespace {

constexpr int links_max = 40;  // as the kernel

// What is not there is left out. Nothing here differs between users or tells of other processes.
constexpr std::array system_files = {
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
    // The loader, and libc: names of users, of services, and of other names; time and language.
    "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf",
    "/etc/localtime", "/etc/timezone", "/etc/locale.alias", "/etc/services", "/etc/protocols",
    "/etc/hosts", "/etc/os-release", "/etc/alternatives", "/etc/ssl/openssl.cnf",
    // How large the machine is.
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/uptime", "/proc/version",
    "/proc/filesystems", "/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu"};
constexpr std::array devices = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random",
                                "/dev/urandom"};

std::error_code last_error() { return {errno, std::generic_category()}; }

std::string absolute(const std::string& path) {
  std::error_code failed;
  const std::filesystem::path whole = std::filesystem::absolute(path, failed);
  return failed ? path : whole.string();
}

// The names of a path, the last one first.
std::vector<std::string> names_of(const std::string& path) {
  std::vector<std::string> names;
  for (std::size_t end = path.size(); end > 0;) {
    const std::size_t before = path.rfind('/', end - 1);
    const std::size_t begin = before == std::string::npos ? 0 : before + 1;
    if (begin < end) names.push_back(path.substr(begin, end - begin));
    end = before == std::string::npos ? 0 : before;
  }
  return names;
}

result<std::string> target_of(const std::string& link) {
  std::array<char, PATH_MAX> target{};
  const ssize_t size = ::readlink(link.c_str(), target.data(), target.size());
  if (size < 0) return unexpected(last_error());
  return std::string(target.data(), static_cast<std::size_t>(size));
}

// As execvp(3) looks for it.
result<std::string> found_in_path(const std::string& name) {
  const char* const given = std::getenv("PATH");
  std::string_view rest = given ? given : "/bin:/usr/bin";
  int error = ENOENT;
  for (;;) {
    const std::size_t end = rest.find(':');
    std::string candidate(rest.substr(0, end));
    candidate += candidate.empty() ? "./" : "/";
    candidate += name;
    struct stat about {};
    if (::stat(candidate.c_str(), &about) == 0) {
      const bool runs =
          S_ISREG(about.st_mode) && ::faccessat(AT_FDCWD, candidate.c_str(), X_OK, AT_EACCESS) == 0;
      if (runs) return candidate;
      error = EACCES;
    } else if (errno == EACCES) {
      error = EACCES;
    }
    if (end == std::string_view::npos) return unexpected(system_error_of(error));
    rest.remove_prefix(end + 1);
  }
}

}  // namespace

result<std::string> visible_files::follow(const std::string& path) {
  std::string real;
  std::vector<std::string> ahead = names_of(path);
  int followed = 0;
  while (!ahead.empty()) {
    const std::string name = std::exchange(ahead.back(), {});
    ahead.pop_back();
    if (name == ".") continue;
    if (name == "..") {
      real.erase(real.empty() ? 0 : real.rfind('/'));
      continue;
    }
    std::string next = real;
    next.append("/").append(name);
    struct stat about {};
    if (::lstat(next.c_str(), &about) != 0) return unexpected(last_error());
    if (!S_ISLNK(about.st_mode)) {
      real = next;
      continue;
    }
    auto target = target_of(next);
    if (!target) return target;
    if (++followed > links_max) {
      return unexpected(std::make_error_code(std::errc::too_many_symbolic_link_levels));
    }
    links_.emplace(next, *target);
    if (target->starts_with('/')) real.clear();
    for (std::string& one : names_of(*target)) ahead.push_back(std::move(one));
  }
  return real.empty() ? "/" : real;
}

std::error_code visible_files::add(const std::string& path, reach how) {
  auto real = follow(absolute(path));
  if (!real) return real.error();
  if (*real == "/") return std::make_error_code(std::errc::invalid_argument);
  struct stat about {};
  if (::stat(real->c_str(), &about) != 0) return last_error();
  visible_file& one = files_[*real];
  // Whoever may change something may read it.
  if (one.how == reach::reads) one.how = how;
  one.is_directory = S_ISDIR(about.st_mode);
  return {};
}

bool visible_files::covers(std::string_view path) const noexcept {
  for (;;) {
    if (files_.contains(std::string(path))) return true;
    const std::size_t end = path.rfind('/');
    if (end == std::string_view::npos || end == 0) return false;
    path = path.substr(0, end);
  }
}

result<visible_files> visible_files::of(const confinement& allowed) {
  visible_files all;
  // A part of the system that is not there, or not for us, is not for the child.
  for (const char* path : system_files) static_cast<void>(all.add(path, reach::reads));
  for (const char* path : devices) static_cast<void>(all.add(path, reach::device));
  const std::array given = {std::pair(&allowed.reads, reach::reads),
                            std::pair(&allowed.writes, reach::writes)};
  for (const auto& [paths, how] : given) {
    for (const std::string& path : *paths) {
      const std::error_code failed = all.add(path, how);
      if (failed == std::errc::no_such_file_or_directory) return unexpected(errc::not_found);
      if (failed) return unexpected(failed);
    }
  }
  return all;
}

result<std::string> visible_files::add_program(const std::string& name) {
  if (name.empty()) return unexpected(system_error_of(ENOENT));
  auto path = name.find('/') == std::string::npos ? found_in_path(name) : absolute(name);
  if (!path) return path;
  // What /proc shows of us, it would not show of the child.
  if (path->starts_with("/proc/")) {
    std::error_code failed;
    path = std::filesystem::canonical(*path, failed).string();
    if (failed) return unexpected(failed);
  }
  if (const auto failed = add(*path, reach::reads))
    return unexpected(system_error_of(failed.value()));
  return path;
}

}  // namespace bus
