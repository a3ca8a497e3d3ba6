#include "bus/base/landlock.hpp"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bus {
namespace {

// The headers of Debian 12 know ABI 2 (Linux 5.19). Later rights, by the ABI that brought them:
constexpr std::uint64_t access_truncate = 1ULL << 14;     // 3, Linux 6.2
constexpr std::uint64_t net_bind_tcp = 1ULL << 0;         // 4, Linux 6.7
constexpr std::uint64_t net_connect_tcp = 1ULL << 1;      // 4
constexpr std::uint64_t access_ioctl_dev = 1ULL << 15;    // 5, Linux 6.10
constexpr std::uint64_t scope_abstract_unix = 1ULL << 0;  // 6, Linux 6.12
constexpr std::uint64_t scope_signal = 1ULL << 1;         // 6

// What the kernel takes since ABI 6; an older one takes the beginning.
struct ruleset_attributes {
  std::uint64_t access_fs;
  std::uint64_t access_net;  // ABI 4
  std::uint64_t scoped;      // ABI 6
};

constexpr std::size_t bytes_of_attributes(int abi) noexcept {
  return sizeof(std::uint64_t) * (abi >= 6 ? 3 : abi >= 4 ? 2 : 1);
}

constexpr std::uint64_t reading = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE;

constexpr std::uint64_t all_rights(int abi) noexcept {
  constexpr std::uint64_t first = LANDLOCK_ACCESS_FS_MAKE_SYM * 2 - 1;
  return first | (abi >= 2 ? LANDLOCK_ACCESS_FS_REFER : 0) | (abi >= 3 ? access_truncate : 0) |
         (abi >= 5 ? access_ioctl_dev : 0);
}

constexpr std::uint64_t rights_of(reach how) noexcept {
  switch (how) {
    case reach::lists:
      return LANDLOCK_ACCESS_FS_READ_DIR;
    case reach::reads:
      return reading | LANDLOCK_ACCESS_FS_READ_DIR;
    case reach::writes:
      return ~0ULL;
    case reach::device:
      return LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | access_truncate |
             access_ioctl_dev;
  }
  return 0;
}

// Those that mean something for a file that is no directory; the kernel refuses the others.
constexpr std::uint64_t rights_of_files =
    reading | LANDLOCK_ACCESS_FS_WRITE_FILE | access_truncate | access_ioctl_dev;

}  // namespace

result<landlock_rules> landlock_rules::make() {
  const long abi =
      ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 0) return unexpected(std::error_code(errno, std::generic_category()));
  const ruleset_attributes wanted{
      .access_fs = all_rights(static_cast<int>(abi)),
      .access_net = net_bind_tcp | net_connect_tcp,
      .scoped = scope_abstract_unix | scope_signal,
  };
  fd rules(static_cast<int>(::syscall(SYS_landlock_create_ruleset, &wanted,
                                      bytes_of_attributes(static_cast<int>(abi)), 0)));
  if (!rules) return unexpected(std::error_code(errno, std::generic_category()));
  return landlock_rules(std::move(rules), static_cast<int>(abi));
}

int landlock_rules::allow(const char* path, reach how) noexcept {
  // Not open(3) and close(3): libc lets other threads cancel these.
  const int place = static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, O_PATH | O_CLOEXEC));
  if (place < 0) return errno;
  int failed = 0;
  struct stat about {};
  if (::fstat(place, &about) == 0) {
    landlock_path_beneath_attr beneath{};
    beneath.allowed_access = rights_of(how) & all_rights(abi_);
    if (!S_ISDIR(about.st_mode)) beneath.allowed_access &= rights_of_files;
    beneath.parent_fd = place;
    if (::syscall(SYS_landlock_add_rule, rules_.get(), LANDLOCK_RULE_PATH_BENEATH, &beneath, 0)) {
      failed = errno;
    }
  } else {
    failed = errno;
  }
  ::syscall(SYS_close, place);
  return failed;
}

int landlock_rules::apply() noexcept {
  return ::syscall(SYS_landlock_restrict_self, rules_.get(), 0) == 0 ? 0 : errno;
}

}  // namespace bus
