// The receiving side of the handshake: who comes, who may, and who has left.
#include "bus/base/step.hpp"
#include "transports/shm/hub.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include <sys/epoll.h>
#include <sys/socket.h>

namespace transports::shared {
namespace {

using bus::errc;
using bus::last_system_error;
using bus::refusal;
using bus::unexpected;
using namespace std::chrono_literals;

// A guess, generous against a busy machine: silence for so long is no handshake.
constexpr auto hello_within = 5s;
// Samples that a peer may deliver before the next has its turn: half a default batch. Another
// user's links have it together, so that nobody gets more by coming more often.
constexpr std::size_t usual_share = 32;

// A lane holds so many samples at the most, and somebody's turn comes at each look: what is not
// empty then is still being written, by somebody who said that he is gone.
constexpr std::uint64_t drained_within = depth_max;

errc code_of(std::error_code error) noexcept {
  return error.category() == bus::category() ? static_cast<errc>(error.value()) : errc::refused;
}

// Under which cause the node counts a handshake that failed.
refusal cause_of(std::error_code why) noexcept {
  if (why == errc::stranger) return refusal::stranger;
  if (why == errc::incompatible) return refusal::incompatible;
  if (why == errc::exists) return refusal::taken;
  if (why == errc::corrupt) return refusal::malformed;
  return refusal::no_room;
}

}  // namespace

void hub::refuse(const bus::fd& socket, uid_t user, std::error_code why, refusal cause) noexcept {
  static_cast<void>(send_farewell(socket, id_, code_of(why)));
  unwatch(socket.get());
  refusals_.count(user, cause);
}

void hub::accept_newcomers() noexcept {
  // Bounded: the rest is reported again.
  for (int i = 0; i < 16; ++i) {
    bus::fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
      // No descriptor, no memory: looking again at once would find the same.
      unwatch(listener_.get());
      listener_paused_ = true;
      return;
    }
    const auto who = doorway_.admit(socket);
    if (!who) {
      const auto stranger = peer_of(socket);
      refuse(socket, stranger ? stranger->uid : static_cast<uid_t>(-1), who.error(),
             cause_of(who.error()));
    } else if (!quota_->may_begin(who->uid, bus::steady_ns())) {
      refuse(socket, who->uid, errc::quota, refusal::haste);
    } else if (const auto cause = seat(std::move(socket), *who)) {
      refusals_.count(who->uid, *cause);
    }
  }
}

// Gives a newcomer its place, until it says hello; or tells it that there is none, and returns why.
std::optional<refusal> hub::seat(bus::fd&& socket, const credentials& who) {
  constexpr demand one_connection{.connections = 1, .descriptors = 1};
  auto place = quota_->ask(who.uid, one_connection);
  if (place.refused && make_place(who.uid, *place.refused)) {
    place = quota_->ask(who.uid, one_connection);
  }
  if (place.refused) {
    static_cast<void>(send_farewell(socket, id_, errc::quota));
    return place.refused;
  }
  const std::uint64_t number = ++numbers_;
  if (!watch(socket.get(), watched::newcomer, number, EPOLLIN | EPOLLRDHUP)) {
    static_cast<void>(send_farewell(socket, id_, errc::refused));
    return refusal::no_room;
  }
  newcomers_.push_back({number, std::move(socket), bus::deadline::after(hello_within), who,
                        std::move(place.granted)});
  return std::nullopt;
}

// The oldest of a user's own connections that have not said hello makes room.
bool hub::make_place(uid_t user, refusal limit) {
  const auto oldest = std::find_if(newcomers_.begin(), newcomers_.end(),
                                   [&](const newcomer& one) { return one.who.uid == user; });
  if (oldest == newcomers_.end()) return false;
  refuse(oldest->socket, user, errc::quota, limit);
  newcomers_.erase(oldest);
  return true;
}

void hub::greet(std::uint64_t number, bus::sink& into) noexcept {
  const auto found = std::find_if(newcomers_.begin(), newcomers_.end(),
                                  [&](const newcomer& one) { return one.number == number; });
  if (found == newcomers_.end()) return;
  auto hello = receive_note(found->socket);
  if (!hello && hello.error() == errc::timed_out) return;
  newcomer guest = std::move(*found);
  newcomers_.erase(found);
  auto adopted = hello ? adopt(guest, *hello, into) : bus::result<void>(unexpected(hello.error()));
  if (adopted || !guest.socket) return;
  if (adopted.error() == errc::gone) return unwatch(guest.socket.get());  // it changed its mind
  refuse(guest.socket, guest.who.uid, adopted.error(), cause_of(adopted.error()));
}

bus::result<void> hub::adopt(newcomer& guest, note& hello, bus::sink& into) {
  if (hello.head.kind != static_cast<std::uint16_t>(note_kind::hello) || hello.count < 3 ||
      hello.head.node == 0) {
    return unexpected(errc::corrupt);
  }
  auto link = std::make_unique<incoming>();
  link->number = guest.number;
  link->sender = {hello.head.node};
  link->who = guest.who;
  if (!doorway_.may_be(link->sender, link->who)) return unexpected(errc::stranger);
  fence(link->sender, link->who, into);
  const bool is_taken = std::any_of(incoming_.begin(), incoming_.end(), [&](const auto& other) {
    return other->sender == link->sender;
  });
  if (is_taken) return unexpected(errc::exists);

  // Checked before it is multiplied; the lane checks the same again.
  if (hello.head.depth > depth_max || hello.head.arena_bytes > arena_bytes_max) {
    return unexpected(errc::corrupt);
  }
  auto price =
      quota_->ask(link->who.uid, lane_in::price_of(hello.head.depth, hello.head.arena_bytes));
  if (price.refused) {
    refuse(guest.socket, link->who.uid, errc::quota, *price.refused);
    guest.socket.reset();
    return unexpected(errc::quota);
  }
  bus::step("link.adopt");
  auto lane = take_lane(guest, hello);
  if (!lane) return unexpected(lane.error());
  link->lane = std::move(*lane);

  note welcome = make_note(note_kind::welcome, id_);
  auto answers = link->lane->hand_out();
  if (!answers) return unexpected(answers.error());
  auto own = keys_for(link->who, *doorbell_);
  if (!own) return unexpected(own.error());
  welcome.add(std::move(*answers));
  welcome.add(std::move(*own));
  link->process = process_of(guest.socket);
  if (!watch(guest.socket.get(), watched::incoming, link->number, EPOLLIN | EPOLLRDHUP, true) ||
      (link->process && !watch(link->process.get(), watched::in_process, link->number, EPOLLIN))) {
    return unexpected(last_system_error());
  }
  if (auto sent = send_note(guest.socket, welcome); !sent) {
    unwatch(link->process.get());
    return sent;
  }
  bus::step("link.reading");
  link->lane->keep(std::move(guest.socket), std::move(price.granted));
  incoming_.push_back(std::move(link));
  share_turns(incoming_.back()->who.uid);
  return {};
}

bus::result<lane_in::owner> hub::take_lane(newcomer& guest, note& hello) {
  auto keys = vet(hello.keys(2), guest.who, guest.socket);
  if (!keys) return unexpected(keys.error());
  return lane_in::make({.sender = {hello.head.node},
                        .depth = hello.head.depth,
                        .arena_bytes = hello.head.arena_bytes,
                        .arena = std::move(hello.descriptors[0]),
                        .lane = std::move(hello.descriptors[1]),
                        .bell = std::move(*keys),
                        .doorbell = doorbell_});
}

void hub::share_turns(uid_t user) noexcept {
  const auto is_theirs = [&](const auto& link) { return link->who.uid == user; };
  const auto links = std::count_if(incoming_.begin(), incoming_.end(), is_theirs);
  const auto together = user == ::geteuid() ? 1 : static_cast<std::size_t>(links);
  for (auto& link : incoming_) {
    if (is_theirs(link)) link->share = std::max<std::size_t>(1, usual_share / together);
  }
}

// After its hello a sender has nothing to say, it may only knock: whatever else comes is the end.
void hub::hear_sender(incoming& link) noexcept {
  // Bounded: what is left is reported again.
  for (int i = 0; i < 16; ++i) {
    const auto heard = receive_note(link.lane->socket());
    if (!heard && heard.error() == errc::timed_out) return;
    if (heard && heard->head.kind == static_cast<std::uint16_t>(note_kind::knock)) continue;
    return end_incoming(link, errc::gone);
  }
}

void hub::reconsider() {
  for (auto& link : incoming_) {
    if (link->ended || doorway_.admit(link->lane->socket())) continue;
    link->lane->cut();
    end_incoming(*link, errc::stranger);
  }
  // Whatever is lent from the arena until the last of them is gone may be read by them: it is left
  // to those samples, and what is lent next lies in another.
  const auto is_revoked = [&](const outgoing* link) {
    return !link->dead && link->socket && !doorway_.admit(link->socket);
  };
  if (std::none_of(outgoing_.begin(), outgoing_.end(), is_revoked)) return;
  is_outdated_ = true;
  for (outgoing* link : outgoing_) {
    if (link->dead) continue;
    const bool revoked = is_revoked(link);
    end(*link, revoked ? errc::stranger : errc::gone, revoked);
  }
  // A failure is told to whoever lends or connects next.
  static_cast<void>(have_arena());
}

// A node has one way into us. If the same process comes again, the old way is at its end, even if
// that has not been noticed yet: it is read to the end first. Anybody else is not that node.
void hub::fence(bus::node_id sender, const credentials& who, bus::sink& into) noexcept {
  for (auto& link : incoming_) {
    if (link->sender != sender) continue;
    if (link->who.uid != who.uid || link->who.pid != who.pid) continue;
    bus::step("link.fence");
    // At the most what the lane holds: what the old way still sends does not count.
    static_cast<void>(link->lane->poll(depth_max, into));
    end_incoming(*link, errc::gone);
  }
  std::erase_if(incoming_, [&](std::unique_ptr<incoming>& link) {
    if (link->sender != sender || !link->ended) return false;
    into.left(sender, link->ended);
    return true;
  });
}

void hub::end_incoming(incoming& link, std::error_code why) noexcept {
  if (link.ended) return;
  link.ended = why;
  any_ended_ = true;
  unwatch(link.lane->socket().get());
  unwatch(link.process.get());
}

// Says goodbye for those whose last sample was delivered.
void hub::finish_ended(bus::sink& into) noexcept {
  any_ended_ = false;
  for (std::size_t i = 0; i < incoming_.size();) {
    if (incoming_[i]->ended && !incoming_[i]->lane->empty() &&
        ++incoming_[i]->looks > drained_within * incoming_.size()) {
      incoming_[i]->lane->cut();
    }
    if (!incoming_[i]->ended || !incoming_[i]->lane->drained()) {
      any_ended_ = any_ended_ || incoming_[i]->ended;
      ++i;
      continue;
    }
    const auto done = std::move(incoming_[i]);
    incoming_.erase(incoming_.begin() + static_cast<std::ptrdiff_t>(i));
    if (done->ended == errc::stranger) {
      refuse(done->lane->socket(), done->who.uid, errc::stranger, refusal::stranger);
    } else if (done->lane->broken()) {
      done->ended = errc::corrupt;
      refuse(done->lane->socket(), done->who.uid, errc::corrupt, refusal::broken);
    }
    into.left(done->sender, done->ended);
    share_turns(done->who.uid);
  }
}

}  // namespace transports::shared
