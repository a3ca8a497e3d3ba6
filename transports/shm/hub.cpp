#include "transports/shm/hub.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace transports::shared {
namespace {

using bus::errc;
using bus::last_system_error;
using bus::link_state;
using bus::unexpected;
using namespace std::chrono_literals;

// Guesses, generous against a busy machine: silence for so long is no handshake.
constexpr auto hello_within = 5s;
constexpr auto welcome_within = 10s;
// A full queue of connections, or no descriptor left, is tried again after this.
constexpr auto retry_after = 20ms;
// Connections that have not said hello; beyond them, the oldest makes room.
constexpr std::size_t newcomers_max = 128;
// Links into one node: 64 KiB of address space and about 7 descriptors each.
constexpr std::size_t incoming_max = 4096;
// Samples that one peer may deliver before the next has its turn: half a default batch.
constexpr std::size_t share = 32;
constexpr unsigned kind_bits = 3;

errc code_of(std::error_code error) noexcept {
  return error.category() == bus::category() ? static_cast<errc>(error.value()) : errc::refused;
}

// What a stranger says about its reasons is a number from a list, or nothing.
errc checked_code(std::uint32_t code) noexcept {
  const bool is_known = code >= 1 && code <= static_cast<std::uint32_t>(errc::corrupt);
  return is_known ? static_cast<errc>(code) : errc::refused;
}

}  // namespace

hub::hub(const bus::transport_setup& setup)
    : id_(setup.id),
      doorbell_(setup.doorbell),
      memory_bytes_max_(arena::whole_chunks(setup.memory_bytes_max)),
      depth_(std::bit_ceil(std::clamp(setup.link_depth, 1U, depth_max))),
      process_id_(::getpid()) {}

bus::result<std::shared_ptr<hub>> hub::make(const bus::transport_setup& setup) {
  if (setup.directory.empty()) return unexpected(errc::unsupported);
  BUS_CHECK(setup.doorbell != nullptr && setup.id.value != 0);
  std::shared_ptr<hub> made(new hub(setup));
  auto entrance = doorway::open(setup.directory);
  if (!entrance) return unexpected(entrance.error());
  made->doorway_ = std::move(*entrance);
  made->watch_ = bus::fd(::epoll_create1(EPOLL_CLOEXEC));
  made->timer_ = bus::fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!made->watch_ || !made->timer_) return unexpected(last_system_error());
  auto listener = made->doorway_.listen(setup.id);
  if (!listener) return unexpected(listener.error());
  made->listener_ = std::move(*listener);
  if (!made->watch(made->listener_.get(), watched::listener, 0, EPOLLIN) ||
      !made->watch(made->timer_.get(), watched::timer, 0, EPOLLIN)) {
    const auto error = last_system_error();
    made->close();
    return unexpected(error);
  }
  return made;
}

bus::result<void> hub::move_to(const std::string& directory) {
  auto entrance = doorway::open(directory);
  if (!entrance) return unexpected(entrance.error());
  auto listener = entrance->listen(id_);
  if (!listener && listener.error() == errc::exists) return {};
  if (!listener) return unexpected(listener.error());
  if (!watch(listener->get(), watched::listener, 0, EPOLLIN)) {
    const auto error = last_system_error();
    entrance->remove(id_);
    return unexpected(error);
  }
  // Who had called before the old one went is not sent away.
  accept_newcomers();
  unwatch(listener_.get());
  listener_ = std::move(*listener);
  listener_paused_ = false;
  doorway_ = std::move(*entrance);
  return {};
}

bool hub::is_forked() const noexcept { return ::getpid() != process_id_; }

void hub::close() noexcept {
  closed_ = true;
  doorway_.remove(id_);
  for (outgoing* link : outgoing_) end(*link, errc::closed, true);
  outgoing_.clear();
  leaving_.clear();
  newcomers_.clear();
  for (auto& link : incoming_) {
    // Send no more. That nobody reads its memory any more, the sender hears from the socket's end,
    // which comes with the last sample. (A shutdown would not do: together with the sender's own it
    // would look like that end.)
    static_cast<void>(send_farewell(link->lane->socket(), id_, errc::gone));
    unwatch(link->lane->socket().get());
    unwatch(link->process.get());
  }
  incoming_.clear();
  listener_.reset();
}

std::uint64_t hub::payload_bytes_max() const noexcept {
  return memory_bytes_max_ - sizeof(bus::frame);
}

// --- data

bus::result<void> hub::have_arena() {
  if (arena_) return {};
  auto made = arena::make(memory_bytes_max_);
  if (!made) return unexpected(made.error());
  arena_ = std::move(*made);
  return {};
}

void hub::collect() noexcept {
  for (outgoing* link : outgoing_) static_cast<void>(settle(*link));
  const arena::returning here(*arena_);
  settle_leaving();
}

// Takes back what the peer let go of. Whoever looks, arm() must not overlook it.
std::size_t hub::settle(outgoing& link) noexcept {
  const arena::returning here(*arena_);
  const std::size_t home = link.lane.scan();
  link.changed = link.changed || home > 0;
  return home;
}

void hub::settle_leaving() noexcept {
  std::erase_if(leaving_, [this](const std::unique_ptr<outgoing>& link) {
    link->lane.scan();
    if (link->lane.in_flight() > 0) return false;
    unwatch(link->socket.get());
    unwatch(link->process.get());
    return true;
  });
}

bus::result<bus::block*> hub::slot(std::uint64_t bytes) noexcept {
  if (bytes > payload_bytes_max()) return unexpected(errc::too_big);
  const unsigned size_class = arena::class_for(bytes);
  if (bus::block* const given = arena_->reuse(size_class)) return given;
  // Look whether peers let go of something before taking more memory.
  collect();
  if (bus::block* const given = arena_->reuse(size_class)) return given;
  return arena_->carve(size_class);
}

bus::result<bus::loan> hub::lend(std::uint64_t bytes) noexcept {
  if (!arena_) {
    if (auto ready = have_arena(); !ready) return unexpected(ready.error());
  }
  auto given = slot(bytes);
  if (!given) return unexpected(given.error());
  return bus::loan(**given);
}

// Copies a sample that lies where the peer cannot see it. False: no memory just now.
bool hub::forward(outgoing& link, bus::sample&& offered) noexcept {
  const auto payload = offered.payload();
  auto given = slot(payload.size());
  if (!given) return false;
  bus::loan lent(**given);
  // slot() may have scanned this link, but never takes its credits.
  if (!payload.empty()) std::memcpy(lent.bytes().data(), payload.data(), payload.size());
  const std::uint64_t offset = arena_->offset_of(**given);
  bus::sample copied = std::move(lent).commit(offered.head());
  link.lane.push(std::move(offered), std::move(copied), offset);
  ++link.figures.copied;
  return true;
}

// Puts one sample into an open lane, and moves it if there was room. The peer is not rung yet.
bool hub::carry(outgoing& link, bus::sample&& offered) noexcept {
  if (!link.lane.has_credit() && settle(link) == 0) return false;
  const std::uint64_t bytes = offered.head().bytes;
  if (arena_->owns(offered.memory())) {
    const std::uint64_t offset = arena_->offset_of(offered.memory());
    link.lane.push(std::move(offered), {}, offset);
  } else if (!forward(link, std::move(offered))) {
    return false;
  }
  link.figures.bytes += bytes;
  return true;
}

bus::result<std::size_t> hub::send(outgoing& link, std::span<const bus::sample> batch) noexcept {
  if (link.state == link_state::gone) return unexpected(errc::gone);
  std::size_t taken = 0;
  if (link.state == link_state::open) {
    prepare(link);
    for (const bus::sample& offered : batch) {
      if (offered.head().bytes > payload_bytes_max()) {
        if (taken == 0) return unexpected(errc::too_big);
        break;
      }
      if (!carry(link, bus::sample(offered))) break;
      ++taken;
    }
    if (taken > 0 && link.bell->ring() != bus::rung::none) ++link.figures.wakeups;
  }
  link.figures.taken += taken;
  link.figures.full += batch.size() - taken;
  return taken;
}

bus::result<std::size_t> hub::give(outgoing& link, bus::sample&& one) noexcept {
  if (link.state != link_state::open) return send(link, {&one, 1});
  if (one.head().bytes > payload_bytes_max()) return unexpected(errc::too_big);
  prepare(link);
  if (!carry(link, std::move(one))) {
    ++link.figures.full;
    return std::size_t{0};
  }
  ++link.figures.taken;
  if (link.bell->ring() != bus::rung::none) ++link.figures.wakeups;
  return std::size_t{1};
}

void hub::prepare(outgoing& link) noexcept {
  link.lane.ask(false);
  if (link.lane.scan_due()) static_cast<void>(settle(link));
}

bool hub::arm(outgoing& link) noexcept {
  if (std::exchange(link.changed, false)) return false;
  link.armed = true;
  if (link.state == link_state::opening || link.dead) return true;
  link.lane.ask(true);
  if (settle(link) == 0) return true;
  link.changed = false;
  link.lane.ask(false);
  link.armed = false;
  return false;
}

std::size_t hub::unsettled(outgoing& link) noexcept {
  if (link.lane.in_flight() > 0) static_cast<void>(settle(link));
  return link.lane.in_flight();
}

std::size_t hub::poll(std::size_t budget, bus::sink& into) noexcept {
  if (!leaving_.empty()) settle_leaving();
  std::size_t taken = 0;
  for (bool more = true; more && taken < budget;) {
    more = false;
    for (std::size_t i = 0; i < incoming_.size() && taken < budget; ++i) {
      if (turn_ >= incoming_.size()) turn_ = 0;
      incoming& link = *incoming_[turn_++];
      const std::size_t got = link.lane->poll(std::min(share, budget - taken), into);
      taken += got;
      more = more || got == share;
      if (link.lane->broken() && !link.ended) end_incoming(link, errc::corrupt);
    }
  }
  if (any_ended_) finish_ended(into);
  return taken;
}

bool hub::arm() noexcept {
  return !any_ended_ && std::all_of(incoming_.begin(), incoming_.end(),
                                    [](const auto& link) { return link->lane->empty(); });
}

// --- the sending side of the handshake

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
  if (!doorway_.admits(*socket)) return unexpected(errc::denied);
  auto who = peer_of(*socket);
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
  auto keys = doorbell_->keys();
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
  if (welcome.count < 3 || welcome.count > 4) return unexpected(errc::corrupt);
  if (welcome.head.node != link.peer.value) return unexpected(errc::refused);
  const bus::fd answers = std::move(welcome.descriptors[0]);
  bus::bell_keys keys = welcome.keys(1);
  if (!vet(keys, link.who)) return unexpected(errc::corrupt);
  if (auto opened = link.lane.open(answers); !opened) return opened;
  auto bell = bus::ringer::open(std::move(keys));
  if (!bell) return unexpected(bell.error());
  link.bell.emplace(std::move(*bell));
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
  if (link.dead) {
    unwatch(link.socket.get());
    unwatch(link.process.get());
    link.socket.reset();
    link.process.reset();
    const arena::returning here(*arena_);
    link.lane.reclaim();
  } else {
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

// --- the receiving side

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
                             .bell = std::move(keys)});
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
    if (!incoming_[i]->ended || !incoming_[i]->lane->empty()) {
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

// --- both

void hub::attend(bus::sink& into) noexcept {
  std::array<epoll_event, 32> events;
  const int count = ::epoll_wait(watch_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) {
    const epoll_event& one = events[static_cast<std::size_t>(i)];
    dispatch(one.data.u64, one.events, into);
  }
  if (!leaving_.empty()) collect();
  if (any_ended_) finish_ended(into);
  if (timer_set_ || !newcomers_.empty() || listener_paused_) {
    expire();
    set_timer();
  }
}

void hub::dispatch(std::uint64_t key, std::uint32_t events, bus::sink& into) noexcept {
  const std::uint64_t number = key >> kind_bits;
  const bool hung_up = (events & (EPOLLHUP | EPOLLERR)) != 0;
  switch (static_cast<watched>(key & ((1U << kind_bits) - 1))) {
    case watched::listener:
      return accept_newcomers();
    case watched::timer: {
      std::uint64_t count = 0;
      static_cast<void>(!::read(timer_.get(), &count, sizeof count));
      return;
    }
    case watched::newcomer:
      return greet(number, into);
    case watched::incoming:
      for (auto& link : incoming_) {
        if (link->number != number || link->ended) continue;
        // After its hello a sender has nothing to say: whatever comes is the end.
        end_incoming(*link, errc::gone);
      }
      return;
    case watched::out_socket:
      if (outgoing* link = find_outgoing(number); link && !link->dead) hear(*link, hung_up);
      return;
    case watched::out_process:
      if (outgoing* link = find_outgoing(number); link && !link->dead) {
        end(*link, errc::gone, true);
      }
      return;
  }
}

// Whose time is up, and who may try again.
void hub::expire() noexcept {
  if (std::exchange(listener_paused_, false)) {
    watch(listener_.get(), watched::listener, 0, EPOLLIN);
  }
  std::erase_if(newcomers_, [&](const newcomer& one) {
    if (!one.until.passed()) return false;
    static_cast<void>(send_farewell(one.socket, id_, errc::timed_out));
    unwatch(one.socket.get());
    return true;
  });
  for (outgoing* link : outgoing_) {
    if (link->state != link_state::opening) continue;
    if (link->until.passed()) {
      end(*link, errc::timed_out, true);
    } else if (!link->socket) {
      if (auto reached = reach(*link); !reached) end(*link, reached.error(), true);
    }
  }
}

void hub::set_timer() noexcept {
  std::int64_t first_ns = INT64_MAX;
  const std::int64_t retry_ns = bus::deadline::after(retry_after).at_ns();
  if (listener_paused_) first_ns = retry_ns;
  for (const newcomer& one : newcomers_) first_ns = std::min(first_ns, one.until.at_ns());
  for (const outgoing* link : outgoing_) {
    if (link->state != link_state::opening) continue;
    first_ns = std::min(first_ns, link->socket ? link->until.at_ns() : retry_ns);
  }
  itimerspec when{};
  timer_set_ = first_ns != INT64_MAX;
  if (timer_set_) {
    when.it_value.tv_sec = first_ns / 1'000'000'000;
    when.it_value.tv_nsec = first_ns % 1'000'000'000;
  }
  static_cast<void>(::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr));
}

bool hub::watch(int descriptor, watched kind, std::uint64_t number, std::uint32_t events,
                bool again) noexcept {
  epoll_event wanted{};
  wanted.events = events;
  wanted.data.u64 = number << kind_bits | static_cast<std::uint64_t>(kind);
  return ::epoll_ctl(watch_.get(), again ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, descriptor, &wanted) == 0;
}

void hub::unwatch(int descriptor) noexcept {
  if (descriptor >= 0) {
    static_cast<void>(::epoll_ctl(watch_.get(), EPOLL_CTL_DEL, descriptor, nullptr));
  }
}

}  // namespace transports::shared
