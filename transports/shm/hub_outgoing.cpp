// The sending side of the handshake: our ways into others, from the first call until nobody there
// reads our memory any more.
#include "bus/base/step.hpp"
#include "transports/shm/hub.hpp"

#include <chrono>
#include <utility>

#include <sys/epoll.h>
#include <sys/socket.h>

namespace transports::shared {
namespace {

using bus::errc;
using bus::last_system_error;
using bus::link_state;
using bus::unexpected;
using namespace std::chrono_literals;

// A guess, generous against a busy machine: silence for so long is no handshake.
constexpr auto welcome_within = 10s;

// What a stranger says about its reasons is a number from a list, or nothing.
errc checked_code(std::uint32_t code) noexcept {
  const bool is_known = code >= 1 && code <= static_cast<std::uint32_t>(errc::cgroup_full);
  return is_known ? static_cast<errc>(code) : errc::refused;
}

}  // namespace

bus::result<std::unique_ptr<outgoing>> hub::connect(bus::node_id peer) {
  if (closed_) return unexpected(errc::closed);
  if (auto ready = have_arena(); !ready) return unexpected(ready.error());
  auto lane = lane_out::make(depth_);
  if (!lane) return unexpected(lane.error());
  auto link = std::make_unique<outgoing>();
  link->number = ++numbers_;
  link->peer = peer;
  link->lane = std::move(*lane);
  link->until = bus::deadline::after(welcome_within);
  if (auto reached = reach(*link); !reached) return unexpected(reached.error());
  outgoing_.push_back(link.get());
  set_timer();
  return link;
}

bus::result<void> hub::reach(outgoing& link) {
  auto socket = doorway_.connect(link.peer);
  if (!socket) return unexpected(socket.error());
  if (!*socket) return {};  // the peer's queue is full; expire() tries again
  auto who = doorway_.admit(*socket, link.peer);
  if (!who) return unexpected(who.error());
  link.who = *who;
  link.process = process_of(*socket);
  link.socket = std::move(*socket);
  if (!watch(link.socket.get(), watched::out_socket, link.number, EPOLLIN | EPOLLRDHUP) ||
      (link.process && !watch(link.process.get(), watched::out_process, link.number, EPOLLIN))) {
    return unexpected(last_system_error());
  }
  auto said = say_hello(link);
  // It may have told us why before it closed: that is to be read first.
  if (!said && said.error() == errc::gone) return {};
  return said;
}

bus::result<void> hub::say_hello(outgoing& link) {
  note hello = make_note(note_kind::hello, id_);
  hello.head.arena_bytes = arena_->bytes_max();
  hello.head.depth = link.lane.depth();
  auto payloads = arena_->hand_out();
  if (!payloads) return unexpected(payloads.error());
  auto lane = link.lane.hand_out();
  if (!lane) return unexpected(lane.error());
  auto keys = keys_for(link.who, *doorbell_);
  if (!keys) return unexpected(keys.error());
  hello.add(std::move(*payloads));
  hello.add(std::move(*lane));
  hello.add(std::move(*keys));
  return send_note(link.socket, hello);
}

void hub::hear(outgoing& link, bool hung_up) noexcept {
  auto heard = receive_note(link.socket);
  if (!heard) {
    if (heard.error() != errc::timed_out) return end(link, heard.error(), hung_up);
    if (hung_up) end(link, errc::gone, true);
    return;
  }
  const auto kind = static_cast<note_kind>(heard->head.kind);
  if (kind == note_kind::knock && link.state == link_state::open) return;
  if (kind == note_kind::farewell) {
    return end(link, checked_code(heard->head.code), hung_up);
  }
  if (kind != note_kind::welcome || link.state != link_state::opening) {
    return end(link, errc::corrupt, hung_up);
  }
  if (auto opened = open(link, *heard); !opened) return end(link, opened.error(), hung_up);
  link.changed = true;
  if (std::exchange(link.armed, false)) static_cast<void>(doorbell_->ring());
}

bus::result<void> hub::open(outgoing& link, note& welcome) {
  if (welcome.count < 2 || welcome.count > 4) return unexpected(errc::corrupt);
  if (welcome.head.node != link.peer.value) return unexpected(errc::refused);
  const bus::fd answers = std::move(welcome.descriptors[0]);
  auto keys = vet(welcome.keys(1), link.who, link.socket);
  if (!keys) return unexpected(keys.error());
  if (auto opened = link.lane.open(answers); !opened) return opened;
  auto bell = bus::ringer::open(std::move(*keys));
  if (!bell) return unexpected(bell.error());
  link.bell.emplace(std::move(*bell));
  bus::step("link.open");
  link.state = link_state::open;
  return {};
}

// `dead`: nobody reads our memory any more. Else what the peer holds stays lent until it is home,
// or until the socket says that nobody is there.
void hub::end(outgoing& link, std::error_code why, bool dead) noexcept {
  const bool never_opened = link.state == link_state::opening;
  if (link.state != link_state::gone) {
    link.state = link_state::gone;
    link.reason = why;
    link.changed = true;
  }
  link.dead = link.dead || dead || never_opened;
  link.bell.reset();  // it may hold the socket, whose end the peer waits for
  if (link.dead) {
    unwatch(link.socket.get());
    unwatch(link.process.get());
    link.socket.reset();
    link.process.reset();
    const arena::returning here(*arena_);
    link.lane.reclaim();
    drop_copy();
  } else {
    bus::step("link.shutdown");
    static_cast<void>(::shutdown(link.socket.get(), SHUT_WR));
    // Only its end is of interest now, which epoll reports unasked.
    watch(link.socket.get(), watched::out_socket, link.number, 0, true);
  }
  if (std::exchange(link.armed, false)) static_cast<void>(doorbell_->ring());
}

void hub::leave(std::unique_ptr<outgoing> link) noexcept {
  std::erase(outgoing_, link.get());
  if (closed_) return;
  link->lane.ask(false);
  if (link->state == link_state::open && unsettled(*link) > 0) {
    end(*link, errc::closed, false);
  }
  if (!link->dead && link->lane.in_flight() > 0) {
    leaving_.push_back(std::move(link));
    return;
  }
  unwatch(link->socket.get());
  unwatch(link->process.get());
}

outgoing* hub::find_outgoing(std::uint64_t number) noexcept {
  for (outgoing* link : outgoing_) {
    if (link->number == number) return link;
  }
  for (auto& link : leaving_) {
    if (link->number == number) return link.get();
  }
  return nullptr;
}

}  // namespace transports::shared
