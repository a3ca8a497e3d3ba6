// The receiving side of the handshake: who comes, who may, and who has left.
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
using bus::unexpected;
using namespace std::chrono_literals;

// A guess, generous against a busy machine: silence for so long is no handshake.
constexpr auto hello_within = 5s;
// Connections that have not said hello; beyond them, the oldest makes room.
constexpr std::size_t newcomers_max = 128;
// Links into one node: 64 KiB of address space and about 7 descriptors each.
constexpr std::size_t incoming_max = 4096;

errc code_of(std::error_code error) noexcept {
  return error.category() == bus::category() ? static_cast<errc>(error.value()) : errc::refused;
}

}  // namespace

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
    if (!doorway_.admits(socket)) {
      static_cast<void>(send_farewell(socket, id_, errc::denied));
      continue;
    }
    if (newcomers_.size() >= newcomers_max) {
      unwatch(newcomers_.front().socket.get());
      newcomers_.erase(newcomers_.begin());
    }
    const std::uint64_t number = ++numbers_;
    if (!watch(socket.get(), watched::newcomer, number, EPOLLIN | EPOLLRDHUP)) continue;
    newcomers_.push_back({number, std::move(socket), bus::deadline::after(hello_within)});
  }
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
  static_cast<void>(send_farewell(guest.socket, id_, code_of(adopted.error())));
  unwatch(guest.socket.get());
}

bus::result<void> hub::adopt(newcomer& guest, note& hello, bus::sink& into) {
  if (hello.head.kind != static_cast<std::uint16_t>(note_kind::hello) || hello.count < 4 ||
      hello.head.node == 0) {
    return unexpected(errc::corrupt);
  }
  auto who = peer_of(guest.socket);
  if (!who) return unexpected(who.error());
  auto link = std::make_unique<incoming>();
  link->number = guest.number;
  link->sender = {hello.head.node};
  link->who = *who;
  fence(link->sender, *who, into);
  const bool is_taken = std::any_of(incoming_.begin(), incoming_.end(), [&](const auto& other) {
    return other->sender == link->sender;
  });
  if (is_taken) return unexpected(errc::exists);
  if (incoming_.size() >= incoming_max) return unexpected(errc::no_memory);

  bus::bell_keys keys = hello.keys(2);
  if (!vet(keys, *who)) return unexpected(errc::corrupt);
  auto lane = lane_in::make({.sender = link->sender,
                             .depth = hello.head.depth,
                             .arena_bytes = hello.head.arena_bytes,
                             .arena = std::move(hello.descriptors[0]),
                             .lane = std::move(hello.descriptors[1]),
                             .bell = std::move(keys),
                             .doorbell = doorbell_});
  if (!lane) return unexpected(lane.error());
  link->lane = std::move(*lane);

  note welcome = make_note(note_kind::welcome, id_);
  auto answers = link->lane->hand_out();
  if (!answers) return unexpected(answers.error());
  auto own = doorbell_->keys();
  if (!own) return unexpected(own.error());
  welcome.add(std::move(*answers));
  welcome.add(std::move(*own));
  link->process = process_of(guest.socket);
  if (!watch(guest.socket.get(), watched::incoming, link->number, EPOLLIN | EPOLLRDHUP, true) ||
      (link->process && !watch(link->process.get(), watched::incoming, link->number, EPOLLIN))) {
    return unexpected(last_system_error());
  }
  if (auto sent = send_note(guest.socket, welcome); !sent) {
    unwatch(link->process.get());
    return sent;
  }
  link->lane->keep(std::move(guest.socket));
  incoming_.push_back(std::move(link));
  return {};
}

// A node has one way into us. If the same process comes again, the old way is at its end, even if
// that has not been noticed yet: it is read to the end first. Anybody else is not that node.
void hub::fence(bus::node_id sender, const credentials& who, bus::sink& into) noexcept {
  for (auto& link : incoming_) {
    if (link->sender != sender) continue;
    if (link->who.uid != who.uid || link->who.pid != who.pid) continue;
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
    if (!incoming_[i]->ended || !incoming_[i]->lane->drained()) {
      any_ended_ = any_ended_ || incoming_[i]->ended;
      ++i;
      continue;
    }
    const auto done = std::move(incoming_[i]);
    incoming_.erase(incoming_.begin() + static_cast<std::ptrdiff_t>(i));
    if (done->lane->broken()) {
      done->ended = errc::corrupt;
      static_cast<void>(send_farewell(done->lane->socket(), id_, errc::corrupt));
    }
    into.left(done->sender, done->ended);
  }
}

}  // namespace transports::shared
