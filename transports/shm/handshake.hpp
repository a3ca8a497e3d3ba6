// How two nodes meet: through a listening socket in the bus directory, over which descriptors
// change hands. A descriptor is the proof that both are on one host; the kernel's word
// (SO_PEERCRED) says who the other is; the end of the socket, or of the process behind it, is the
// end of the link.
//
//   sender                                    receiver
//   connect                                   accept; who is it? else farewell(denied)
//   hello + arena, lane, bell        ----->   check, map; else farewell(why)
//   check, map; open                 <-----   welcome + answers, bell
//   shutdown: nothing more will come ----->   drain, then left()
//   state gone, await the last bits  <-----   farewell: send no more
//   reclaim everything               <-----   end of socket, or of process
//
// The receiver's socket ends when nobody there reads our memory any more, and not before.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/ids.hpp"
#include "bus/base/result.hpp"
#include "bus/link/bell.hpp"
#include "transports/shm/layout.hpp"

#include <array>
#include <cstdint>
#include <string>

#include <sys/socket.h>
#include <sys/types.h>

namespace transports::shared {

// Who is at the other end of a socket, as the kernel says. A pid of 0 is in a namespace that we
// cannot see.
struct credentials {
  pid_t pid = 0;
  uid_t uid = static_cast<uid_t>(-1);
  gid_t gid = static_cast<gid_t>(-1);
};
[[nodiscard]] bus::result<credentials> peer_of(const bus::fd& socket) noexcept;
// Readable when the process at the other end has died, even if a forked child of it keeps the
// socket open. Empty before Linux 6.5.
[[nodiscard]] bus::fd process_of(const bus::fd& socket) noexcept;

// The bus directory, held open: nobody can move it away under us.
class doorway {
 public:
  // Errors: the kernel's.
  [[nodiscard]] static bus::result<doorway> open(const std::string& directory);
  // Binds and listens as `<id>.sock`: mode 0600, or 0660 if the directory is a group's. Errors:
  // exists, or the kernel's.
  [[nodiscard]] bus::result<bus::fd> listen(bus::node_id id) const;
  void remove(bus::node_id id) const noexcept;
  // Connects without waiting; an empty descriptor means that the other's queue is full: try later.
  // Errors: not_found (nobody listens), denied, or the kernel's.
  [[nodiscard]] bus::result<bus::fd> connect(bus::node_id id) const;
  // Who is at the other end, if it may talk to us: our own user, root, or a member of the group
  // that the directory was opened to. The kernel has asked the same of the directory, unless
  // somebody opened that by hand. Errors: stranger, or the kernel's.
  [[nodiscard]] bus::result<credentials> admit(const bus::fd& socket) const noexcept;
  // The same, and it is the user whose socket stands there under the name of `id`, if there is one:
  // nobody else may come as that node, nor wait in its place.
  [[nodiscard]] bus::result<credentials> admit(const bus::fd& socket, bus::node_id id) const;
  [[nodiscard]] bool may_be(bus::node_id id, const credentials& who) const;

 private:
  bus::fd directory_;
  std::string path_;
};

// A note and the descriptors that come with it, closed if nobody takes them.
struct note {
  static constexpr std::size_t descriptors_max = 5;
  note_layout head{};
  std::array<bus::fd, descriptors_max> descriptors;
  std::size_t count = 0;

  void add(bus::fd&& one) noexcept { descriptors[count++] = std::move(one); }
  // Moves the bell's keys in, page and event first; and the same out again, from place `first` on.
  void add(bus::bell_keys&& keys) noexcept;
  [[nodiscard]] bus::bell_keys keys(std::size_t first) noexcept;
};

[[nodiscard]] note make_note(note_kind kind, bus::node_id from) noexcept;
// Errors: gone, or the kernel's.
[[nodiscard]] bus::result<void> send_note(const bus::fd& socket, const note& message) noexcept;
[[nodiscard]] inline bus::result<void> send_farewell(const bus::fd& socket, bus::node_id from,
                                                     bus::errc why) noexcept {
  note last = make_note(note_kind::farewell, from);
  last.head.code = static_cast<std::uint32_t>(why);
  return send_note(socket, last);
}

// A knock is a note of that kind, and nothing else in it holds. Errors: timed_out (nothing there
// yet), gone (the other end closed), corrupt (not a note, or descriptors lost on the way),
// incompatible (a note of another version), or the kernel's. A farewell is a note of any version.
[[nodiscard]] bus::result<note> receive_note(const bus::fd& socket) noexcept;

// The keys that a peer is handed, and what we make of those that it handed us. Another user's
// process is given no more than a look at our bell, and nothing of its own is trusted but the page:
// no eventfd, which it could make us wait at, and no thread to signal (we may have the right to
// signal somebody who did not ask for it). Its socket takes their place. Errors: corrupt (not a
// bell's keys), or the kernel's.
[[nodiscard]] bus::result<bus::bell_keys> keys_for(const credentials& peer, const bus::bell& own);
[[nodiscard]] bus::result<bus::bell_keys> vet(bus::bell_keys&& keys, const credentials& peer,
                                              const bus::fd& socket) noexcept;

}  // namespace transports::shared
