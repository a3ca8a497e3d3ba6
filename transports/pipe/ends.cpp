#include "transports/pipe/ends.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace transports::pipes {
namespace {

// RWF_NOSIGNAL, which the C library does not name yet.
constexpr int without_signal = 0x100;
// What a pipe has unless somebody decided otherwise; the kernel decides so for a user who has many.
constexpr int usual_pages = 16;
// What we ask for in its place: docs/design/0015. More of copies than half a processor's cache
// makes them slower. A user may have 64 MiB of such in all.
constexpr int wanted_for_copies = 256 << 10;
constexpr int wanted_for_pages = 1 << 20;

// SIGPIPE does not reach this thread while one of these lives.
class hush {
 public:
  hush() noexcept {
    ::sigemptyset(&only_);
    ::sigaddset(&only_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &only_, &before_);
    // One that waits already, which only a blocked one can, belongs to somebody else.
    sigset_t pending;
    was_pending_ = ::sigismember(&before_, SIGPIPE) == 1 && ::sigpending(&pending) == 0 &&
                   ::sigismember(&pending, SIGPIPE) == 1;
  }
  ~hush() {
    const int kept = errno;
    if (kept == EPIPE && !was_pending_) {
      const timespec at_once{};
      while (::sigtimedwait(&only_, nullptr, &at_once) < 0 && errno == EINTR) {
      }
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    errno = kept;
  }
  hush(const hush&) = delete;
  hush& operator=(const hush&) = delete;

 private:
  sigset_t only_{};
  sigset_t before_{};
  bool was_pending_ = false;
};

bus::result<std::size_t> moved(ssize_t bytes) noexcept {
  if (bytes >= 0) return static_cast<std::size_t>(bytes);
  if (errno == EAGAIN || errno == EINTR) return std::size_t{0};
  if (errno == EPIPE) return bus::unexpected(bus::errc::gone);
  return bus::unexpected(bus::last_system_error());
}

// This end with the number of its pipe, if it is such an end of the pipe that was named.
bus::result<end_name> examine_end(const end_name& named, int access) {
  struct stat about {};
  const int flags = ::fcntl(named.descriptor, F_GETFL);
  if (flags < 0 || ::fstat(named.descriptor, &about) != 0 || !S_ISFIFO(about.st_mode) ||
      (flags & O_ACCMODE) != access) {
    return bus::unexpected(bus::errc::bad_address);
  }
  if (named.pipe != 0 && named.pipe != about.st_ino) return bus::unexpected(bus::errc::gone);
  return end_name{.descriptor = named.descriptor, .pipe = about.st_ino};
}

struct flock first_byte(short kind) noexcept {
  struct flock made {};
  made.l_type = kind;
  made.l_whence = SEEK_SET;
  made.l_len = 1;
  return made;
}

// Whether another process writes there.
bool is_written(int out) noexcept {
  struct flock asked = first_byte(F_WRLCK);
  return ::fcntl(out, F_GETLK, &asked) == 0 && asked.l_type != F_UNLCK;
}

// Says to the kernel that this process is the one that writes there.
bus::result<void> lock(int out) {
  const struct flock wanted = first_byte(F_WRLCK);
  if (::fcntl(out, F_SETLK, &wanted) == 0) return {};
  if (errno == EAGAIN || errno == EACCES) return bus::unexpected(bus::errc::exists);
  return {};  // a kernel or a sandbox without such locks: README.md says what is lost then
}

// A descriptor of the same open file, close-on-exec.
bus::result<bus::fd> copy_of(int descriptor) {
  bus::fd made(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
  if (!made) return bus::unexpected(bus::last_system_error());
  return made;
}

bus::result<void> be_quick(int descriptor) {
  const int flags = ::fcntl(descriptor, F_GETFL);
  if (flags < 0 || ::fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0) {
    return bus::unexpected(bus::last_system_error());
  }
  return {};
}

// A pipe of another than the usual size is meant to be so, by its maker or by the kernel's limits.
void enlarge(int out, bool lends_pages) noexcept {
  const long page_bytes = ::sysconf(_SC_PAGESIZE);
  if (::fcntl(out, F_GETPIPE_SZ) != usual_pages * page_bytes) return;
  static_cast<void>(::fcntl(out, F_SETPIPE_SZ, lends_pages ? wanted_for_pages : wanted_for_copies));
}

}  // namespace

bus::result<pair_name> ends::examine(const pair_name& name) {
  const auto in = examine_end(name.in, O_RDONLY);
  if (!in) return bus::unexpected(in.error());
  const auto out = examine_end(name.out, O_WRONLY);
  if (!out) return bus::unexpected(out.error());
  if (in->pipe == out->pipe) return bus::unexpected(bus::errc::bad_address);
  return pair_name{.in = *in, .out = *out, .lends_pages = name.lends_pages};
}

bus::result<ends> ends::adopt(const pair_name& name) {
  if (is_written(name.out.descriptor)) return bus::unexpected(bus::errc::exists);
  auto in = copy_of(name.in.descriptor);
  if (!in) return bus::unexpected(in.error());
  auto out = copy_of(name.out.descriptor);
  if (!out) return bus::unexpected(out.error());
  auto ready = be_quick(in->get());
  if (ready) ready = be_quick(out->get());
  if (!ready) return bus::unexpected(ready.error());
  // Whoever closes them has them. Before the lock, which any closing takes away.
  if (::close(name.in.descriptor) != 0 || ::close(name.out.descriptor) != 0) {
    return bus::unexpected(bus::errc::gone);
  }
  if (auto ours = lock(out->get()); !ours) return bus::unexpected(ours.error());
  enlarge(out->get(), name.lends_pages);
  ends made;
  made.name_ = name;
  made.in_ = std::move(*in);
  made.out_ = std::move(*out);
  return made;
}

bool ends::shares_a_pipe_with(const pair_name& other) const noexcept {
  return name_.in.pipe == other.in.pipe || name_.out.pipe == other.out.pipe;
}

bus::result<std::size_t> ends::read(std::span<const iovec> into) noexcept {
  // One place is most of what small messages need, and cheaper.
  const ssize_t bytes = into.size() == 1
                            ? ::read(in_.get(), into[0].iov_base, into[0].iov_len)
                            : ::readv(in_.get(), into.data(), static_cast<int>(into.size()));
  if (bytes == 0) return bus::unexpected(bus::errc::gone);
  return moved(bytes);
}

bus::result<std::size_t> ends::write(std::span<const iovec> from) noexcept {
  const int count = static_cast<int>(from.size());
  if (can_be_quiet_) {
    const ssize_t bytes = ::pwritev2(out_.get(), from.data(), count, -1, without_signal);
    if (bytes >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS)) return moved(bytes);
    can_be_quiet_ = false;
  }
  const hush quiet;
  return moved(::writev(out_.get(), from.data(), count));
}

bus::result<std::size_t> ends::lend(std::span<const iovec> from) noexcept {
  const hush quiet;
  return moved(::vmsplice(out_.get(), from.data(), from.size(), SPLICE_F_NONBLOCK));
}

void ends::close() noexcept {
  in_.reset();
  out_.reset();
}

std::size_t ends::unread() const noexcept {
  int bytes = 0;
  return ::ioctl(out_.get(), FIONREAD, &bytes) == 0 ? static_cast<std::size_t>(bytes) : 0;
}

bool ends::take_back_unread() noexcept {
  const std::string place = "/proc/self/fd/" + std::to_string(out_.get());
  const bus::fd reader(::open(place.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!reader) return false;
  std::array<std::byte, 4096> rubbish;
  while (::read(reader.get(), rubbish.data(), rubbish.size()) > 0) {
  }
  return unread() == 0;
}

}  // namespace transports::pipes
