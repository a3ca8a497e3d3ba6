#include "transports/shm/handshake.hpp"

#include "bus/base/step.hpp"
#include "transports/shm/memory.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace transports::shared {
namespace {

using bus::errc;
using bus::last_system_error;
using bus::unexpected;

constexpr int so_peerpidfd = 77;          // Linux 6.5; not in Debian 12's headers
constexpr int connections_waiting = 128;  // the kernel's queue of those not yet accepted

std::string name_of(bus::node_id id) { return bus::to_hex(id.value) + ".sock"; }

// A path of any length fits: through the open directory, or as it is where there is no /proc.
bus::result<sockaddr_un> address_of(const bus::fd& directory, const std::string& path,
                                    bus::node_id id) {
  std::string place = path_of(directory.get());
  if (::access(place.c_str(), F_OK) != 0) place = path;
  (place += '/') += name_of(id);
  sockaddr_un address{};
  if (place.size() >= sizeof address.sun_path) return unexpected(errc::bad_address);
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, place.c_str(), place.size() + 1);
  return address;
}

bus::result<bus::fd> make_socket() noexcept {
  bus::fd made(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made) return unexpected(last_system_error());
  return made;
}

// In a user namespace, all ids that it does not know look like this one: two of them may be
// anybody. Where every id is known, it is an id like any other.
bool is_known(std::uint32_t id) noexcept {
  constexpr std::uint32_t overflow_id = 65534;
  static const bool all_known = [] {
    std::ifstream map("/proc/self/uid_map");
    std::uint64_t inside = 1;
    std::uint64_t outside = 1;
    std::uint64_t count = 0;
    map >> inside >> outside >> count;
    return inside == 0 && outside == 0 && count == UINT32_MAX;
  }();
  return id != overflow_id || all_known;
}

bool belongs_to(const bus::fd& socket, gid_t group) noexcept {
  std::array<gid_t, 256> groups;  // more than anybody has; beyond it, the peer is not admitted
  socklen_t bytes = sizeof groups;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERGROUPS, groups.data(), &bytes) != 0) {
    return false;
  }
  const auto end = groups.begin() + static_cast<std::ptrdiff_t>(bytes / sizeof(gid_t));
  return std::find(groups.begin(), end, group) != end;
}

// Where there is no /proc to say what it is, a descriptor of our own user is believed.
bool is_eventfd(const bus::fd& event) noexcept {
  std::array<char, 64> target;
  const ssize_t length = ::readlink(path_of(event.get()).c_str(), target.data(), target.size());
  if (length < 0 && errno == ENOENT) return true;
  return length > 0 && std::string_view(target.data(), static_cast<std::size_t>(length)) ==
                           "anon_inode:[eventfd]";
}

// Takes all descriptors out of the control data, so that none can leak.
bool collect_descriptors(msghdr& message, note& into) noexcept {
  bool whole = (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) == 0;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(part) + i * sizeof(int), sizeof number);
      bus::fd owned(number);
      if (into.count < note::descriptors_max) {
        into.add(std::move(owned));
      } else {
        whole = false;
      }
    }
  }
  return whole;
}

}  // namespace

bus::result<credentials> peer_of(const bus::fd& socket) noexcept {
  ucred found{};
  socklen_t bytes = sizeof found;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &found, &bytes) != 0) {
    return unexpected(last_system_error());
  }
  return credentials{found.pid, found.uid, found.gid};
}

bus::fd process_of(const bus::fd& socket) noexcept {
  int number = -1;
  socklen_t bytes = sizeof number;
  if (::getsockopt(socket.get(), SOL_SOCKET, so_peerpidfd, &number, &bytes) != 0) return {};
  return bus::fd(number);
}

bus::result<doorway> doorway::open(const std::string& directory) {
  doorway made;
  made.directory_ = bus::fd(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!made.directory_) return unexpected(last_system_error());
  made.path_ = directory;
  return made;
}

bus::result<bus::fd> doorway::listen(bus::node_id id) const {
  struct stat about {};
  if (::fstat(directory_.get(), &about) != 0) return unexpected(last_system_error());
  auto made = make_socket();
  if (!made) return made;
  auto address = address_of(directory_, path_, id);
  if (!address) return unexpected(address.error());
  // A bound socket has this mode less the umask: never more, and corrected before anyone can
  // connect, which takes listen().
  const mode_t mode = (about.st_mode & S_IWGRP) != 0 ? 0660 : 0600;
  if (::fchmod(made->get(), mode) != 0) return unexpected(last_system_error());
  bus::step("socket.bind");
  if (::bind(made->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    if (errno == EADDRINUSE) return unexpected(errc::exists);
    return unexpected(last_system_error());
  }
  bus::step("socket.listen");
  if (::fchmodat(directory_.get(), name_of(id).c_str(), mode, 0) != 0 ||
      ::listen(made->get(), connections_waiting) != 0) {
    const auto error = last_system_error();
    remove(id);
    return unexpected(error);
  }
  return made;
}

void doorway::remove(bus::node_id id) const noexcept {
  bus::step("socket.remove");
  static_cast<void>(::unlinkat(directory_.get(), name_of(id).c_str(), 0));
}

bus::result<bus::fd> doorway::connect(bus::node_id id) const {
  auto made = make_socket();
  if (!made) return made;
  auto address = address_of(directory_, path_, id);
  if (!address) return unexpected(address.error());
  bus::step("socket.connect");
  if (::connect(made->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0) {
    return made;
  }
  if (errno == EAGAIN || errno == EINTR) return bus::fd();
  if (errno == ENOENT || errno == ECONNREFUSED) return unexpected(errc::not_found);
  return unexpected(last_system_error());
}

bus::result<credentials> doorway::admit(const bus::fd& socket) const noexcept {
  const auto peer = peer_of(socket);
  if (!peer) return peer;
  struct stat about {};
  if (::fstat(directory_.get(), &about) != 0) return unexpected(last_system_error());
  if (peer->uid == 0 || (peer->uid == ::geteuid() && is_known(peer->uid))) return peer;
  // Whom our user namespace does not know is judged by the kernel alone: it let nobody through a
  // directory that is closed to others who had no right there.
  if (!is_known(peer->uid) || !is_known(about.st_gid)) {
    if ((about.st_mode & S_IRWXO) == 0) return peer;
    return unexpected(errc::stranger);
  }
  // Opened to all by hand is opened to nobody in particular.
  if ((about.st_mode & S_IWGRP) == 0 || (about.st_mode & S_IWOTH) != 0) {
    return unexpected(errc::stranger);
  }
  if (peer->gid == about.st_gid || belongs_to(socket, about.st_gid)) return peer;
  return unexpected(errc::stranger);
}

bus::result<credentials> doorway::admit(const bus::fd& socket, bus::node_id id) const {
  auto peer = admit(socket);
  if (peer && !may_be(id, *peer)) return unexpected(errc::stranger);
  return peer;
}

bool doorway::may_be(bus::node_id id, const credentials& who) const {
  struct stat about {};
  if (::fstatat(directory_.get(), name_of(id).c_str(), &about, AT_SYMLINK_NOFOLLOW) != 0) {
    return true;
  }
  return about.st_uid == who.uid || who.uid == 0;
}

void note::add(bus::bell_keys&& keys) noexcept {
  add(std::move(keys.page));
  if (keys.event) add(std::move(keys.event));
  if (keys.thread) add(std::move(keys.thread));
}

bus::bell_keys note::keys(std::size_t first) noexcept {
  bus::bell_keys found;
  if (first < count) found.page = std::move(descriptors[first]);
  if (first + 1 < count) found.event = std::move(descriptors[first + 1]);
  if (first + 2 < count) found.thread = std::move(descriptors[first + 2]);
  return found;
}

note make_note(note_kind kind, bus::node_id from) noexcept {
  note made;
  made.head.magic = note_layout::magic_value;
  made.head.protocol = protocol_version;
  made.head.layout = layout_version;
  made.head.kind = static_cast<std::uint16_t>(kind);
  made.head.node = from.value;
  return made;
}

bus::result<void> send_note(const bus::fd& socket, const note& message) noexcept {
  note_layout head = message.head;
  head.descriptors = static_cast<std::uint16_t>(message.count);
  iovec part{&head, sizeof head};
  msghdr envelope{};
  envelope.msg_iov = &part;
  envelope.msg_iovlen = 1;
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(note::descriptors_max * sizeof(int))> control{};
  if (message.count > 0) {
    envelope.msg_control = control.data();
    envelope.msg_controllen = CMSG_SPACE(message.count * sizeof(int));
    cmsghdr* const rights = CMSG_FIRSTHDR(&envelope);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(message.count * sizeof(int));
    for (std::size_t i = 0; i < message.count; ++i) {
      const int number = message.descriptors[i].get();
      std::memcpy(CMSG_DATA(rights) + i * sizeof(int), &number, sizeof number);
    }
  }
  bus::step("note.send");
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(socket.get(), &envelope, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return {};
  if (errno == EPIPE || errno == ECONNRESET) return unexpected(errc::gone);
  return unexpected(last_system_error());
}

bus::result<note> receive_note(const bus::fd& socket) noexcept {
  note received;
  iovec part{&received.head, sizeof received.head};
  // Room for more than is ever sent, so that a surplus is seen, and closed.
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(16 * sizeof(int))> control{};
  msghdr envelope{};
  envelope.msg_iov = &part;
  envelope.msg_iovlen = 1;
  envelope.msg_control = control.data();
  envelope.msg_controllen = control.size();
  // Who closes without having read our hello resets the connection, and the kernel says so before
  // it gives us the farewell that was sent; it says so once.
  bool was_reset = false;
  bus::step("note.receive");
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket.get(), &envelope, MSG_CMSG_CLOEXEC);
  } while (got < 0 && (errno == EINTR || (errno == ECONNRESET && !std::exchange(was_reset, true))));
  if (got < 0) {
    if (errno == EAGAIN) return unexpected(errc::timed_out);
    if (errno == ECONNRESET) return unexpected(errc::gone);
    return unexpected(last_system_error());
  }
  const bool whole = collect_descriptors(envelope, received);
  if (got == 0) return unexpected(errc::gone);
  if (got == knock_bytes && whole && received.count == 0) {
    received.head.kind = static_cast<std::uint16_t>(note_kind::knock);
    return received;
  }
  const note_layout& head = received.head;
  // Fewer than were sent, and there was room for them: this process has no descriptors left.
  if ((envelope.msg_flags & MSG_CTRUNC) != 0 && received.count < head.descriptors &&
      head.descriptors <= note::descriptors_max) {
    return unexpected(bus::system_error_of(EMFILE));
  }
  if (!whole || got != sizeof head || head.magic != note_layout::magic_value ||
      head.descriptors != received.count) {
    return unexpected(errc::corrupt);
  }
  // A refusal must be understood across versions: it is why there are two.
  if (head.kind == static_cast<std::uint16_t>(note_kind::farewell)) return received;
  if (head.protocol != protocol_version || head.layout != layout_version) {
    return unexpected(errc::incompatible);
  }
  return received;
}

bus::result<bus::bell_keys> keys_for(const credentials& peer, const bus::bell& own) {
  return peer.uid == ::geteuid() ? own.keys() : own.keys_for_stranger();
}

bus::result<bus::bell_keys> vet(bus::bell_keys&& keys, const credentials& peer,
                                const bus::fd& socket) noexcept {
  if (!keys.page) return unexpected(errc::corrupt);
  if (peer.uid == ::geteuid() && keys.event) {
    if (!is_eventfd(keys.event)) return unexpected(errc::corrupt);
    return std::move(keys);
  }
  auto way_back = socket.duplicate();
  if (!way_back) return unexpected(way_back.error());
  bus::bell_keys trusted;
  trusted.page = std::move(keys.page);
  trusted.socket = std::move(*way_back);
  return trusted;
}

}  // namespace transports::shared
