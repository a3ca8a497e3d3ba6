#include "bus/node/rendezvous.hpp"

#include "bus/base/step.hpp"
#include "bus/node/ledger_file.hpp"
#include "bus/node/modes.hpp"
#include "bus/node/qos.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string_view>

#include <dirent.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <google/protobuf/io/coded_stream.h>

namespace bus {
namespace {

// A million topics with long names: 64 MiB would be 67 bytes each. A schema is refused above 1 MiB,
// which is more than the largest public ones.
constexpr off_t file_bytes_max = 256 << 20;
constexpr std::string_view card_suffix = ".card";
constexpr const char* waiting = "waiting";
constexpr const char* schemas = "schemas";
// In the order in which they are removed: the ledger is the proof of the death of all others.
constexpr std::array<const char*, 5> suffixes = {".card", ".topics", ".links", ".sock", ".ledger"};

std::string schema_name(std::uint64_t hash) {
  return std::string(schemas) + "/" + to_hex(hash) + ".fds";
}

std::string topics_name(node_id node) { return to_hex(node.value) + ".topics"; }

std::string pipe_name(node_id node) { return std::string(waiting) + "/" + to_hex(node.value); }

// The node whose card this file name is.
std::optional<node_id> card_of(std::string_view name) noexcept {
  if (!name.ends_with(card_suffix)) return std::nullopt;
  const auto value = from_hex(name.substr(0, name.size() - card_suffix.size()));
  if (!value || *value == 0) return std::nullopt;
  return node_id{*value};
}

// mkdir -p, each new part 0700.
result<void> make_directories(const std::string& path) {
  for (std::size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) return unexpected(last_system_error());
    if (slash == std::string::npos) return {};
  }
}

// Ours, or a group's that we are in (setgid 2770); never writable by everybody.
result<void> check_owner(int directory) {
  struct stat about {};
  if (::fstat(directory, &about) != 0) return unexpected(last_system_error());
  if ((about.st_mode & S_IWOTH) != 0) return unexpected(errc::denied);
  const bool ours = about.st_uid == ::geteuid() || ::geteuid() == 0;
  const bool shared = (about.st_mode & S_ISGID) != 0 && (about.st_mode & S_IWGRP) != 0;
  if (!ours && !shared) return unexpected(errc::denied);
  return {};
}

result<void> write_all(int file, const std::string& bytes) {
  std::size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t put = ::write(file, bytes.data() + written, bytes.size() - written);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return unexpected(last_system_error());
    written += static_cast<std::size_t>(put);
  }
  return {};
}

}  // namespace

std::string default_directory() {
  const char* const chosen = std::getenv("OMNIBUS_DIR");
  if (chosen && *chosen) return chosen;
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime && *runtime) return std::string(runtime) + "/omnibus";
  return "/tmp/omnibus-" + std::to_string(::geteuid());
}

result<rendezvous> rendezvous::open(const std::string& path, node_id self) {
  rendezvous opened;
  opened.path_ = path;
  opened.self_ = self;
  if (auto made = make_directories(path); !made) return unexpected(made.error());
  opened.directory_ = fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened.directory_) return unexpected(last_system_error());
  if (auto allowed = check_owner(opened.directory()); !allowed) return unexpected(allowed.error());
  if (auto made = have_directory(opened.directory(), schemas); !made) {
    return unexpected(made.error());
  }
  return opened;
}

rendezvous rendezvous::nowhere(node_id self) {
  rendezvous made;
  made.path_ = no_directory;
  made.self_ = self;
  return made;
}

result<void> rendezvous::begin_watching() {
  if (!directory_) return {};
  auto watched = watch();
  // EMFILE is also what a process without descriptors gets; then the pipe fails in the same way.
  if (!watched && watched.error().value() == EMFILE) watched = wait_at_pipe();
  return watched;
}

result<rendezvous> rendezvous::visit(const std::string& path) {
  rendezvous opened;
  opened.path_ = path;
  opened.directory_ = fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (opened.directory_) return opened;
  return unexpected(errno == ENOENT ? make_error_code(errc::not_found) : last_system_error());
}

result<void> rendezvous::watch() noexcept {
  watch_ = fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!watch_) return unexpected(last_system_error());
  // Through the descriptor, so that it is the same directory whatever happened to its name.
  const std::string itself = "/proc/self/fd/" + std::to_string(directory());
  // Not IN_MOVED_FROM: each file that is replaced would call twice.
  constexpr std::uint32_t events =
      IN_MOVED_TO | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
  if (::inotify_add_watch(watch_.get(), itself.c_str(), events) < 0) {
    return unexpected(last_system_error());
  }
  return {};
}

result<void> rendezvous::wait_at_pipe() {
  if (auto made = have_directory(directory(), waiting); !made) return made;
  const std::string name = pipe_name(self_);
  auto pipe = create_pipe(directory(), name.c_str());
  if (!pipe) return unexpected(pipe.error());
  watch_ = std::move(*pipe);
  const int bytes = ::fcntl(watch_.get(), F_GETPIPE_SZ);
  if (bytes <= 0) {
    const std::error_code failed = last_system_error();
    ::unlinkat(directory(), name.c_str(), 0);
    return unexpected(failed);
  }
  pipe_bytes_ = static_cast<std::size_t>(bytes);
  return {};
}

// Writes the number of a node whose card changed to all who wait at a pipe. Never waits: a pipe
// that is full makes its reader look at everything.
void rendezvous::call_those_who_wait(node_id changed) const noexcept {
  step("card.call");
  const int room = ::openat(directory(), waiting, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (room < 0) return;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(room), ::closedir);
  if (!stream) {
    ::close(room);
    return;
  }
  while (const dirent* const entry = ::readdir(stream.get())) {
    if (!from_hex(entry->d_name)) continue;
    // Open for both, so that a reader's death is no SIGPIPE.
    const fd pipe(::openat(room, entry->d_name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW));
    struct stat about {};
    if (!pipe || ::fstat(pipe.get(), &about) != 0 || !S_ISFIFO(about.st_mode)) continue;
    static_cast<void>(!::write(pipe.get(), &changed.value, sizeof changed.value));
  }
}

void rendezvous::read_watch(std::vector<node_id>& touched) {
  alignas(inotify_event) std::array<char, 64UL * 1024> buffer;
  for (;;) {
    const ssize_t got = ::read(watch_.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    for (const char* at = buffer.data(); at < buffer.data() + got;) {
      const auto* const event = reinterpret_cast<const inotify_event*>(at);
      at += sizeof(inotify_event) + event->len;
      if ((event->mask & IN_Q_OVERFLOW) != 0) scan_due_ = true;
      if ((event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)) != 0) {
        disturbed_ = true;
      }
      if (event->len == 0) {
        policy_changed_ = policy_changed_ || (event->mask & IN_ATTRIB) != 0;
        continue;
      }
      if ((event->mask & IN_ATTRIB) != 0) continue;
      if ((event->mask & IN_DELETE) != 0 && is_own(event->name)) disturbed_ = true;
      if (const auto node = card_of(event->name)) touched.push_back(*node);
    }
  }
}

void rendezvous::read_pipe(std::vector<node_id>& touched) {
  std::array<node_id, 512> numbers;
  std::size_t all = 0;
  for (;;) {
    const ssize_t got = ::read(watch_.get(), numbers.data(), sizeof numbers);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    all += static_cast<std::size_t>(got);
    const auto count = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(got) / sizeof(node_id));
    touched.insert(touched.end(), numbers.begin(), numbers.begin() + count);
    // It was full, so some may have found no room.
    if (all + PIPE_BUF >= pipe_bytes_) scan_due_ = true;
    // Somebody writes as fast as we read: the rest is for the next turn.
    if (all >= pipe_bytes_) break;
  }
}

std::vector<card_change> rendezvous::changes() {
  std::vector<node_id> touched;
  if (waits_at_pipe()) {
    read_pipe(touched);
  } else {
    read_watch(touched);
  }
  const bool first = scan_due_;
  if (std::exchange(scan_due_, false)) {
    for (const node_id node : nodes()) touched.push_back(node);
  }
  std::sort(touched.begin(), touched.end());
  touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
  std::vector<card_change> changed;
  for (const node_id node : touched) {
    auto card = read_card(node);
    if (card && (!first || is_alive(directory(), node))) {
      changed.push_back({node, std::move(*card)});
    } else if (!card && card.error() == errc::not_found) {
      changed.push_back({node, std::nullopt});
    }
  }
  return changed;
}

// The path leads to the directory that we hold.
bool rendezvous::is_where_it_was() const noexcept {
  struct stat held {};
  struct stat found {};
  return ::fstat(directory(), &held) == 0 && ::stat(path_.c_str(), &found) == 0 &&
         held.st_dev == found.st_dev && held.st_ino == found.st_ino;
}

bool rendezvous::is_own(std::string_view name) const noexcept {
  if (name == schemas) return true;
  const std::string own = to_hex(self_.value);
  return name.starts_with(own) && std::any_of(suffixes.begin(), suffixes.end(), [&](auto suffix) {
           return name.substr(own.size()) == suffix;
         });
}

bool rendezvous::is_disturbed() const noexcept {
  if (!waits_at_pipe()) return disturbed_;
  return !is_where_it_was() || ::faccessat(directory(), pipe_name(self_).c_str(), F_OK, 0) != 0;
}

bool rendezvous::is_open_to_others() const noexcept {
  struct stat about {};
  return ::fstat(directory(), &about) != 0 || about.st_uid != ::geteuid() ||
         (about.st_mode & (S_IRWXG | S_IRWXO)) != 0;
}

result<bool> rendezvous::renew() {
  if (!waits_at_pipe() && is_where_it_was()) {
    if (auto made = have_directory(directory(), schemas); !made) return unexpected(made.error());
    disturbed_ = false;
    return false;
  }
  auto again = open(path_, self_);
  if (!again) return unexpected(again.error());
  if (auto watched = again->begin_watching(); !watched) return unexpected(watched.error());
  // In a directory that only moved, our files would show a node that lives there.
  if (!is_where_it_was()) remove(self_);
  *this = std::move(*again);
  return true;
}

result<void> rendezvous::replace(const std::string& name, const std::string& bytes) {
  if (!directory_) return {};
  if (bytes.size() > static_cast<std::size_t>(file_bytes_max)) return unexpected(errc::too_big);
  step("card.draft");
  // A name of our own in the same directory; rename makes it whole at once for every reader.
  const std::string draft = name + ".tmp" + to_hex(node_id::random().value);
  const auto file = create_file(directory(), draft.c_str());
  if (!file) return unexpected(file.error());
  step("card.write");
  auto written = write_all(file->get(), bytes);
  step("card.rename");
  if (written && ::renameat(directory(), draft.c_str(), directory(), name.c_str()) != 0) {
    written = unexpected(last_system_error());
  }
  if (!written) ::unlinkat(directory(), draft.c_str(), 0);
  return written;
}

result<std::string> rendezvous::read(const std::string& name) const {
  const fd file(
      ::openat(directory(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file)
    return unexpected(errno == ENOENT ? make_error_code(errc::not_found) : last_system_error());
  struct stat about {};
  if (::fstat(file.get(), &about) != 0) return unexpected(last_system_error());
  if (!S_ISREG(about.st_mode) || about.st_size > file_bytes_max) return unexpected(errc::corrupt);
  std::string bytes(static_cast<std::size_t>(about.st_size), '\0');
  std::size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got = ::read(file.get(), bytes.data() + have, bytes.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    have += static_cast<std::size_t>(got);
  }
  bytes.resize(have);
  return bytes;
}

result<void> rendezvous::write_card(const wire::Card& card) {
  auto written = replace(to_hex(card.node()) + ".card", card.SerializeAsString());
  if (written) call_those_who_wait(node_id{card.node()});
  return written;
}

result<void> rendezvous::write_links(const wire::Links& links) {
  return replace(to_hex(links.node()) + ".links", links.SerializeAsString());
}

result<void> rendezvous::write_topics(const std::string& records) {
  return replace(topics_name(self_), records);
}

result<void> rendezvous::append_topics(const std::string& records) {
  if (!directory_) return {};
  const std::string name = topics_name(self_);
  fd file(::openat(directory(), name.c_str(),
                   O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) {
    step("topics.create");
    auto made = create_file(directory(), name.c_str());
    if (!made) return unexpected(made.error());
    file = std::move(*made);
  }
  struct stat about {};
  if (::fstat(file.get(), &about) != 0) return unexpected(last_system_error());
  // Whoever may write to the directory may have put something else there.
  if (!S_ISREG(about.st_mode) || about.st_uid != ::geteuid() || about.st_nlink != 1) {
    return unexpected(errc::corrupt);
  }
  if (about.st_size + static_cast<off_t>(records.size()) > file_bytes_max) {
    return unexpected(errc::too_big);
  }
  step("topics.append");
  return write_all(file.get(), records);
}

result<void> rendezvous::write_schema(std::uint64_t hash, const std::string& schema) {
  const std::string name = schema_name(hash);
  // Touched, so that `bus gc` does not take it for unused before our card names it.
  if (::utimensat(directory(), name.c_str(), nullptr, 0) == 0 || errno != ENOENT) return {};
  return replace(name, schema);
}

result<std::string> rendezvous::read_schema(std::uint64_t hash) const {
  return read(schema_name(hash));
}

result<wire::Card> rendezvous::read_card(node_id node) const {
  auto bytes = read(to_hex(node.value) + ".card");
  if (!bytes) return unexpected(bytes.error());
  wire::Card card;
  if (!card.ParseFromString(*bytes) || card.node() != node.value)
    return unexpected(errc::bad_message);
  return card;
}

result<void> rendezvous::add_topics(wire::Card& to) const {
  const auto bytes = read(topics_name(node_id{to.node()}));
  if (!bytes) {
    if (bytes.error() == errc::not_found) return {};
    return unexpected(bytes.error());
  }
  std::map<std::uint32_t, wire::Advertisement> all;
  std::string_view left = *bytes;
  for (wire::TopicChange change;;) {
    google::protobuf::io::CodedInputStream head(reinterpret_cast<const std::uint8_t*>(left.data()),
                                                static_cast<int>(left.size()));
    std::uint32_t size = 0;
    if (!head.ReadVarint32(&size)) break;
    left.remove_prefix(static_cast<std::size_t>(head.CurrentPosition()));
    if (size > left.size()) break;
    if (!change.ParseFromArray(left.data(), static_cast<int>(size))) {
      return unexpected(errc::bad_message);
    }
    left.remove_prefix(size);
    if (change.has_came()) all[change.came().publisher()] = std::move(*change.mutable_came());
    if (change.has_went()) all.erase(change.went());
  }
  for (auto& [publisher, words] : all) *to.add_advertisements() = std::move(words);
  return {};
}

result<wire::Card> rendezvous::read_whole_card(node_id node) const {
  auto card = read_card(node);
  if (!card) return card;
  if (const auto added = add_topics(*card); !added) return unexpected(added.error());
  return card;
}

result<wire::Links> rendezvous::read_links(node_id node) const {
  auto bytes = read(to_hex(node.value) + ".links");
  if (!bytes) return unexpected(bytes.error());
  wire::Links links;
  if (!links.ParseFromString(*bytes)) return unexpected(errc::bad_message);
  return links;
}

std::vector<node_id> rendezvous::nodes() const {
  std::vector<node_id> found;
  // A descriptor of its own, since the position in a directory belongs to the open file.
  const int again = ::openat(directory(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (again < 0) return found;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(again), ::closedir);
  if (!stream) {
    ::close(again);
    return found;
  }
  while (const dirent* const entry = ::readdir(stream.get())) {
    if (const auto node = card_of(entry->d_name)) found.push_back(*node);
  }
  return found;
}

void rendezvous::remove(node_id node) noexcept {
  step("card.remove");
  ::unlinkat(directory(), pipe_name(node).c_str(), 0);
  for (const char* const suffix : suffixes) {
    ::unlinkat(directory(), (to_hex(node.value) + suffix).c_str(), 0);
  }
  call_those_who_wait(node);
}

}  // namespace bus
