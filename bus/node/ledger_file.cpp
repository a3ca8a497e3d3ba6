#include "bus/node/ledger_file.hpp"

#include "bus/base/check.hpp"
#include "bus/base/clock.hpp"
#include "bus/base/step.hpp"
#include "bus/node/modes.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <mutex>
#include <new>

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bus {
namespace {

// 2^24 rows: a million publishers and as many subscriptions, with their links and sources.
constexpr std::size_t rows_max = std::size_t{1} << 24U;
constexpr std::size_t range_bytes = ledger_header_bytes + rows_max * sizeof(ledger_row);
constexpr std::uint32_t first_capacity = 96;  // with the header 16 KiB: four pages

std::string file_name(node_id node) { return to_hex(node.value) + ".ledger"; }

std::size_t bytes_for(std::uint32_t rows) noexcept {
  return ledger_header_bytes + std::size_t{rows} * sizeof(ledger_row);
}

int reserve(int file, std::size_t bytes) noexcept {
  step("ledger.reserve");
  int failed = 0;
  do {
    failed = ::posix_fallocate(file, 0, static_cast<off_t>(bytes));
  } while (failed == EINTR);
  return failed;
}

// Somebody's ledger, or whatever stands in its place: a pipe is not waited for.
fd open_ledger(int directory, node_id node) noexcept {
  constexpr int how = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  return fd(::openat(directory, file_name(node).c_str(), how));
}

bool is_regular(int file) noexcept {
  struct stat about {};
  return ::fstat(file, &about) == 0 && S_ISREG(about.st_mode);
}

// How many bytes there were, at most `bytes`.
std::size_t read_at(int file, std::byte* into, std::size_t bytes, std::size_t offset) noexcept {
  std::size_t have = 0;
  while (have < bytes) {
    const ssize_t got = ::pread(file, into + have, bytes - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    have += static_cast<std::size_t>(got);
  }
  return have;
}

ledger_entry copy_of(const ledger_row& row) noexcept {
  ledger_entry entry{.kind = row.kind.load(std::memory_order_relaxed),
                     .number = row.number,
                     .peer = node_id{row.peer},
                     .other = row.other,
                     .counts = {}};
  for (std::size_t c = 0; c < entry.counts.size(); ++c) entry.counts[c] = row.get(c);
  return entry;
}

// Locked, and with its room, before it has a name: whoever finds it, finds it locked, unless its
// node is dead. Empty where the file system, or a machine without /proc, knows no nameless files.
fd make_nameless(int directory, const std::string& name, std::uint32_t rows) noexcept {
  const auto wanted = modes_in(directory);
  step("ledger.create");
  fd file(::openat(directory, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
  // The umask has had its say: the mode is set, not asked for.
  if (!wanted || !file || ::fchmod(file.get(), wanted->file) != 0) return {};
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) return {};
  if (reserve(file.get(), bytes_for(rows)) != 0) return {};
  step("ledger.name");
  const std::string itself = "/proc/self/fd/" + std::to_string(file.get());
  if (::linkat(AT_FDCWD, itself.c_str(), directory, name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    return {};
  }
  return file;
}

// A forked child shares our open files, and with them the lock that proves our life: it would go on
// proving it after our death. So a child closes its copies before fork() returns there. There is
// one list for all nodes of a process, because a fork is the whole process's.
struct held_locks {
  std::mutex guard;
  std::vector<fd*> all;
};

// A mapping holds its file open like a descriptor, and a child must not write into our books.
void keep_from_children(void* map) noexcept {
  static_cast<void>(::madvise(map, range_bytes, MADV_DONTFORK));
}

held_locks& locks() {
  // Never destroyed: a process may fork while it ends.
  static held_locks& held = *new held_locks;
  static const int hooked =
      ::pthread_atfork([] { locks().guard.lock(); }, [] { locks().guard.unlock(); },
                       [] {
                         for (fd* const one : locks().all) one->reset();
                         locks().all.clear();
                         locks().guard.unlock();
                       });
  BUS_CHECK(hooked == 0);
  return held;
}

// A ledger's file, locked and with room for so many rows, all zero.
result<fd> make_locked(int directory, node_id node, std::uint32_t rows) noexcept {
  const std::string name = file_name(node);
  if (fd nameless = make_nameless(directory, name, rows)) return nameless;
  auto made = create_file(directory, name.c_str());
  if (!made) return made;
  fd file = std::move(*made);
  // Locked before it has a byte, so that nobody can take a ledger with content for a dead one's.
  std::error_code failed;
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    failed = last_system_error();
  } else if (const int full = reserve(file.get(), bytes_for(rows))) {
    failed = system_error_of(full);
  }
  if (!failed) return file;
  ::unlinkat(directory, name.c_str(), 0);
  return unexpected(failed);
}

// Whether the name still leads to this file.
bool is_there(int directory, node_id node, int file) noexcept {
  struct stat ours {};
  struct stat found {};
  return ::fstat(file, &ours) == 0 &&
         ::fstatat(directory, file_name(node).c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0 &&
         ours.st_dev == found.st_dev && ours.st_ino == found.st_ino;
}

}  // namespace

result<std::unique_ptr<ledger_file>> ledger_file::create(int directory, node_id node) {
  if (directory < 0) {
    auto books = make_books();
    if (!books) return unexpected(books.error());
    return keep_in(std::move(*books), node);
  }
  std::unique_ptr<ledger_file> made(new ledger_file);
  const std::scoped_lock no_fork(locks().guard);
  auto locked = make_locked(directory, node, first_capacity);
  if (!locked) return unexpected(locked.error());
  made->file_ = std::move(*locked);
  locks().all.push_back(&made->file_);
  if (const std::error_code failed = made->begin(node)) {
    ::unlinkat(directory, file_name(node).c_str(), 0);
    return unexpected(failed);
  }
  return made;
}

result<std::unique_ptr<ledger_file>> ledger_file::keep_in(fd&& books, node_id node) {
  std::unique_ptr<ledger_file> made(new ledger_file);
  made->file_ = std::move(books);
  if (const int full = reserve(made->file_.get(), bytes_for(first_capacity))) {
    return unexpected(system_error_of(full));
  }
  if (const std::error_code failed = made->begin(node)) return unexpected(failed);
  return made;
}

std::error_code ledger_file::begin(node_id node) {
  void* const at = ::mmap(nullptr, range_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                          file_.get(), 0);
  if (at == MAP_FAILED) return last_system_error();
  map_ = static_cast<std::byte*>(at);
  keep_from_children(at);
  capacity_ = first_capacity;
  auto* const header = new (map_) ledger_header{};
  header->node = node.value;
  header->born_ns = wall_ns();
  step("ledger.header");
  header->version = ledger_header::current_version;
  header->magic = ledger_header::magic_value;
  return {};
}

result<fd> make_books() noexcept {
  fd file(::memfd_create("omnibus-ledger", MFD_CLOEXEC));
  if (!file) return unexpected(last_system_error());
  return file;
}

ledger_file::~ledger_file() {
  {
    const std::scoped_lock no_fork(locks().guard);
    std::erase(locks().all, &file_);
  }
  if (map_) ::munmap(map_, range_bytes);
}

result<void> ledger_file::move_to(int directory) {
  if (is_there(directory, node(), file_.get())) return {};
  const std::scoped_lock no_fork(locks().guard);
  auto locked = make_locked(directory, node(), capacity_);
  if (!locked) return unexpected(locked.error());
  const auto abandon = [&](std::error_code why) {
    ::unlinkat(directory, file_name(node()).c_str(), 0);
    return unexpected(why);
  };
  const std::size_t used = bytes_for(capacity_);
  for (std::size_t written = 0; written < used;) {
    const ssize_t put =
        ::pwrite(locked->get(), map_ + written, used - written, static_cast<off_t>(written));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return abandon(last_system_error());
    written += static_cast<std::size_t>(put);
  }
  // In the place of the old one, at once: everybody counts on in the same rows.
  if (::mmap(map_, range_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
             locked->get(), 0) == MAP_FAILED) {
    return abandon(last_system_error());
  }
  keep_from_children(map_);
  file_ = std::move(*locked);
  return {};
}

node_id ledger_file::node() const noexcept {
  return node_id{reinterpret_cast<const ledger_header*>(map_)->node};
}

ledger_row* ledger_file::rows() const noexcept {
  return reinterpret_cast<ledger_row*>(map_ + ledger_header_bytes);
}

bool ledger_file::grow() noexcept {
  const std::uint32_t wanted = capacity_ * 2;
  if (wanted > rows_max || reserve(file_.get(), bytes_for(wanted)) != 0) return false;
  capacity_ = wanted;
  return true;
}

ledger_row& ledger_file::take(row_kind kind, std::uint32_t number, node_id peer,
                              std::uint64_t other) {
  auto* const header = reinterpret_cast<ledger_header*>(map_);
  ledger_row* row = nullptr;
  if (!free_.empty()) {
    row = free_.back();
    free_.pop_back();
  } else if (const std::uint32_t used = header->rows.load(std::memory_order_relaxed);
             used < capacity_ || grow()) {
    row = rows() + used;
    // Release pairs with: read_ledger, acquire. The row is zero until its kind is stored.
    header->rows.store(used + 1, std::memory_order_release);
  } else {
    private_rows_.push_back(std::make_unique<ledger_row>());
    row = private_rows_.back().get();
  }
  row->number = number;
  row->peer = peer.value;
  row->other = other;
  for (auto& count : row->counts) count.store(0, std::memory_order_relaxed);
  step("ledger.row");
  // Release pairs with: read_ledger, acquire of kind. Initialise, then publish.
  row->kind.store(kind, std::memory_order_release);
  return *row;
}

void ledger_file::release(ledger_row& row) noexcept {
  row.kind.store(row_kind::unused, std::memory_order_release);
  if (number_of(row) != 0) free_.push_back(&row);
}

std::uint32_t ledger_file::number_of(const ledger_row& row) const noexcept {
  const ledger_row* const first = rows();
  if (&row < first || &row >= first + capacity_) return 0;
  return static_cast<std::uint32_t>(&row - first) + 1;
}

result<ledger_reading> read_ledger(int directory, node_id node) {
  const fd file = open_ledger(directory, node);
  if (!file)
    return unexpected(errno == ENOENT ? make_error_code(errc::not_found) : last_system_error());
  return read_ledger(file);
}

result<ledger_reading> read_ledger(const fd& books) {
  if (!is_regular(books.get())) return unexpected(errc::corrupt);
  alignas(ledger_header) std::array<std::byte, sizeof(ledger_header)> head;
  if (read_at(books.get(), head.data(), head.size(), 0) != head.size())
    return unexpected(errc::corrupt);
  const auto* const header = reinterpret_cast<const ledger_header*>(head.data());
  if (header->magic != ledger_header::magic_value) return unexpected(errc::corrupt);
  if (header->version != ledger_header::current_version) return unexpected(errc::incompatible);
  const std::uint32_t used = header->rows.load(std::memory_order_acquire);
  if (used > rows_max) return unexpected(errc::corrupt);
  ledger_reading reading{.node = node_id{header->node}, .born_ns = header->born_ns, .entries = {}};
  // Read, not mapped: if somebody truncates the file meanwhile, a read comes back short and a
  // mapping would kill us. In pieces, since a file may say that it is larger than our memory.
  constexpr std::size_t rows_at_once = 64;
  alignas(ledger_row) std::array<std::byte, rows_at_once * sizeof(ledger_row)> piece;
  for (std::size_t first = 0; first < used; first += rows_at_once) {
    const std::size_t wanted = std::min(rows_at_once, used - first);
    const std::size_t got = read_at(books.get(), piece.data(), wanted * sizeof(ledger_row),
                                    ledger_header_bytes + first * sizeof(ledger_row));
    const auto* const rows = reinterpret_cast<const ledger_row*>(piece.data());
    for (std::size_t i = 0; i < got / sizeof(ledger_row); ++i) {
      if (rows[i].kind.load(std::memory_order_acquire) != row_kind::unused)
        reading.entries.push_back(copy_of(rows[i]));
    }
    if (got < wanted * sizeof(ledger_row)) break;
  }
  return reading;
}

bool is_alive(int directory, node_id node) noexcept {
  const fd file = open_ledger(directory, node);
  if (!file || !is_regular(file.get())) return false;
  // The shared lock is dropped with the descriptor. EWOULDBLOCK: the owner lives.
  return ::flock(file.get(), LOCK_SH | LOCK_NB) != 0;
}

}  // namespace bus
