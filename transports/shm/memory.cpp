#include "transports/shm/memory.hpp"

#include "bus/base/step.hpp"
#include "transports/shm/headroom.hpp"
#include "transports/shm/layout.hpp"

#include <cerrno>
#include <csignal>
#include <new>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace transports::shared {
namespace {

using bus::errc;
using bus::last_system_error;
using bus::unexpected;

constexpr unsigned memfd_noexec_seal = 8;  // Linux 6.3; not in Debian 12's headers
constexpr std::uint64_t foreseen_bytes_min = 1 << 20;
constexpr int required_seals = F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE;

// fallocate on tmpfs gives up with EINTR on any pending signal, and a signal at 1 kHz would make it
// give up for ever: none is let in meanwhile.
class signals_held {
 public:
  signals_held() noexcept {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~signals_held() {
    // Ours, if we asked for more than a file may have (ulimit -f); it would kill the process.
    sigset_t too_large;
    ::sigemptyset(&too_large);
    ::sigaddset(&too_large, SIGXFSZ);
    constexpr timespec at_once{};
    if (errno == EFBIG) static_cast<void>(::sigtimedwait(&too_large, nullptr, &at_once));
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  signals_held(const signals_held&) = delete;
  signals_held& operator=(const signals_held&) = delete;

 private:
  sigset_t before_;
};

// Whether so much can be taken without an OOM killer. Small amounts are not asked about: they cost
// less than the question, and a limit so close is met by anything.
bus::result<void> foresee(std::uint64_t bytes) noexcept {
  if (bytes < foreseen_bytes_min) return {};
  try {
    const headroom left = find_headroom();
    // Page tables here and in a reader, and what else is needed on the way: about 0.4 %.
    const std::uint64_t needed = bytes + bytes / 256 + foreseen_bytes_min;
    if (needed > left.cgroup) return unexpected(errc::cgroup_full);
    if (needed > left.machine) return unexpected(errc::no_memory);
    return {};
  } catch (const std::bad_alloc&) {
    return unexpected(errc::no_memory);
  }
}

}  // namespace

mapping::~mapping() {
  if (at_) ::munmap(at_, bytes_);
}

bus::result<mapping> mapping::make(int memory, std::uint64_t bytes, int access,
                                   int flags) noexcept {
  void* const at = ::mmap(nullptr, bytes, access, flags | MAP_NORESERVE, memory, 0);
  if (at == MAP_FAILED) return unexpected(last_system_error());
  mapping made;
  made.at_ = static_cast<std::byte*>(at);
  made.bytes_ = bytes;
  return made;
}

bus::result<mapping> mapping::readable(int memory, std::uint64_t bytes) noexcept {
  return make(memory, bytes, PROT_READ, MAP_SHARED);
}

bus::result<mapping> mapping::writable(int memory, std::uint64_t bytes) noexcept {
  return make(memory, bytes, PROT_READ | PROT_WRITE, MAP_SHARED);
}

bus::result<mapping> mapping::zeroes(std::uint64_t bytes) noexcept {
  return make(-1, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
}

void mapping::forget(std::uint64_t from) noexcept {
  const std::uint64_t kept = (from + page_bytes - 1) / page_bytes * page_bytes;
  if (kept < bytes_) static_cast<void>(::madvise(at_ + kept, bytes_ - kept, MADV_DONTNEED));
}

bus::result<bus::fd> make_memory(const char* label, std::uint64_t bytes) noexcept {
  bus::step("memory.create");
  bus::fd made(::memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING | memfd_noexec_seal));
  if (!made && errno == EINVAL)
    made = bus::fd(::memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  // Another user who is handed a read-only descriptor shall not open it again for writing.
  if (!made || ::fchmod(made.get(), 0400) != 0) return unexpected(last_system_error());
  if (bytes > 0) {
    if (auto reserved = extend(made.get(), 0, bytes); !reserved)
      return unexpected(reserved.error());
  }
  return made;
}

bus::result<void> extend(int memory, std::uint64_t end, std::uint64_t bytes) noexcept {
  if (auto there = foresee(bytes); !there) return there;
  bus::step("memory.reserve");
  const signals_held quiet;
  // A thread-directed SIGKILL cannot be held; everything else cannot interrupt us more often than
  // it was pending before.
  for (int attempt = 0; attempt < 8; ++attempt) {
    if (::fallocate(memory, 0, static_cast<off_t>(end), static_cast<off_t>(bytes)) == 0) return {};
    if (errno != EINTR) break;
  }
  // Whatever the kernel calls it, a memfd has run out of memory and not of a disk.
  if (errno == ENOSPC || errno == EFBIG) return unexpected(errc::no_memory);
  return unexpected(last_system_error());
}

bus::result<void> seal(int memory, bool grows) noexcept {
  bus::step("memory.seal");
  const int seals = required_seals | (grows ? 0 : F_SEAL_GROW) | F_SEAL_SEAL;
  if (::fcntl(memory, F_ADD_SEALS, seals) != 0) return unexpected(last_system_error());
  return {};
}

std::string path_of(int descriptor) {
  std::string path = "/proc/self/fd/";
  return path += std::to_string(descriptor);
}

bus::result<bus::fd> hand_out(int memory) noexcept {
  bus::step("memory.hand_out");
  bus::fd opened(::open(path_of(memory).c_str(), O_RDONLY | O_CLOEXEC));
  if (opened) return opened;
  // Without /proc: a duplicate. The seals forbid writing through it just the same.
  opened = bus::fd(::fcntl(memory, F_DUPFD_CLOEXEC, 0));
  if (!opened) return unexpected(last_system_error());
  return opened;
}

bus::result<std::uint64_t> inspect(int memory) noexcept {
  const int seals = ::fcntl(memory, F_GET_SEALS);
  struct stat about {};
  if (seals < 0 || ::fstat(memory, &about) != 0) return unexpected(errc::corrupt);
  if ((seals & required_seals) != required_seals || about.st_size < 0) {
    return unexpected(errc::corrupt);
  }
  // Huge pages can be sealed, too, and run out: then reading is SIGBUS.
  struct statfs where {};
  if (::fstatfs(memory, &where) != 0 || where.f_type != TMPFS_MAGIC) {
    return unexpected(errc::corrupt);
  }
  // A hole would be filled at our expense when we read it. (Blocks beyond the end can hide one: who
  // does that pays for as much as it makes us pay. To look for holes, SEEK_HOLE waits for a lock
  // that a hostile writer can hold for seconds, so it is not asked.)
  if (about.st_blocks * 512 < about.st_size) return unexpected(errc::corrupt);
  return static_cast<std::uint64_t>(about.st_size);
}

}  // namespace transports::shared
