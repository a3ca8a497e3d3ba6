#include "transports/shm/hub.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstring>
#include <utility>

#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace transports::shared {
namespace {

using bus::errc;
using bus::last_system_error;
using bus::link_state;
using bus::unexpected;
using namespace std::chrono_literals;

// A full queue of connections, or no descriptor left, is tried again after this.
constexpr auto retry_after = 20ms;
// A guess, long beside what it costs to get the pages again (0.1 ms for a full link).
constexpr std::int64_t trim_every_ns = 1'000'000'000;
constexpr unsigned kind_bits = 3;

}  // namespace

hub::hub(const bus::transport_setup& setup)
    : id_(setup.id),
      doorbell_(setup.doorbell),
      memory_bytes_max_(arena::whole_chunks(setup.memory_bytes_max)),
      depth_(std::bit_ceil(std::clamp(setup.link_depth, 1U, depth_max))),
      process_id_(::getpid()) {
  rlimit files{};
  // No answer: as few as the kernel gives by default.
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) files.rlim_cur = 1024;
  quota_ = std::make_shared<quota>(::geteuid(), quota::limits_for(files.rlim_cur));
}

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
  copied_ = {};
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
  if (arena_ && !is_outdated_) return {};
  auto made = arena::make(memory_bytes_max_);
  if (!made) return unexpected(made.error());
  copied_ = {};
  arena_ = std::move(*made);
  is_outdated_ = false;
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
  if (!arena_ || is_outdated_) {
    if (auto ready = have_arena(); !ready) return unexpected(ready.error());
  }
  auto given = slot(bytes);
  if (!given) return unexpected(given.error());
  return bus::loan(**given);
}

// Whether copied_ is this sample's copy. The block says that it is the same memory, and the frame
// that it was not used again since; control messages are not numbered.
bool hub::is_copied(const bus::sample& offered) const noexcept {
  return copied_.copy && copied_.of == &offered.memory() && offered.head().sequence != 0 &&
         std::memcmp(&copied_.head, &offered.head(), sizeof copied_.head) == 0;
}

// Not while the sample may still be offered to other links: one of them may have let go already.
void hub::drop_copy() noexcept {
  if (copied_.copy && copied_.copy.unique()) copied_ = {};
}

// Sends a sample that lies where the peer cannot see it: by one copy for all links that it is
// offered to. False: no memory just now.
bool hub::forward(outgoing& link, bus::sample&& offered) noexcept {
  if (!is_copied(offered) && !copy_foreign(link, offered)) return false;
  const std::uint64_t offset = arena_->offset_of(copied_.copy.memory());
  link.lane.push(std::move(offered), bus::sample(copied_.copy), offset);
  return true;
}

bool hub::copy_foreign(outgoing& link, const bus::sample& offered) noexcept {
  const auto payload = offered.payload();
  auto given = slot(payload.size());
  if (!given) return false;
  bus::loan lent(**given);
  // slot() may have scanned this link, but never takes its credits.
  if (!payload.empty()) std::memcpy(lent.bytes().data(), payload.data(), payload.size());
  copied_ = {&offered.memory(), offered.head(), std::move(lent).commit(offered.head())};
  ++link.figures.copied;
  return true;
}

bool hub::has_credit(outgoing& link) noexcept {
  if (!link.lane.has_credit()) static_cast<void>(settle(link));
  return link.lane.has_credit();
}

// Puts one sample into an open lane, and moves it if there was room. The peer is not rung yet.
bool hub::carry(outgoing& link, bus::sample&& offered) noexcept {
  if (!has_credit(link)) return false;
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

// The same for a sample that no other link wants: its frame goes along, in a cell if there is one.
bool hub::carry_alone(outgoing& link, bus::sample&& offered) noexcept {
  const std::uint64_t bytes = offered.head().bytes;
  const bool is_small = bytes <= cell_layout::payload_bytes_max;
  if (!(is_small || arena_->owns(offered.memory())) || !has_cell(link)) {
    return carry(link, std::move(offered));
  }
  if (is_small) {
    link.lane.push_by_value(offered);
    const arena::returning here(*arena_);
    offered = bus::sample();
  } else {
    if (!has_credit(link)) return false;
    const std::uint64_t offset = arena_->offset_of(offered.memory());
    link.lane.push_by_reference(std::move(offered), offset);
  }
  link.figures.bytes += bytes;
  return true;
}

bool hub::has_cell(outgoing& link) noexcept {
  if (!link.lane.has_cell()) link.changed = link.lane.scan_cells() > 0 || link.changed;
  return link.lane.has_cell();
}

bus::result<std::size_t> hub::send(outgoing& link, std::span<const bus::sample> batch) noexcept {
  if (link.state == link_state::gone) return unexpected(errc::gone);
  std::size_t taken = 0;
  if (link.state == link_state::open) {
    link.lane.ask(false);
    for (const bus::sample& offered : batch) {
      if (offered.head().bytes > payload_bytes_max()) {
        if (taken == 0) return unexpected(errc::too_big);
        break;
      }
      if (!carry(link, bus::sample(offered))) break;
      ++taken;
    }
    if (taken > 0) conclude(link);
  }
  link.figures.taken += taken;
  link.figures.full += batch.size() - taken;
  return taken;
}

bus::result<std::size_t> hub::give(outgoing& link, bus::sample&& one) noexcept {
  if (link.state != link_state::open) return send(link, {&one, 1});
  if (one.head().bytes > payload_bytes_max()) return unexpected(errc::too_big);
  link.lane.ask(false);
  if (!carry_alone(link, std::move(one))) {
    ++link.figures.full;
    return std::size_t{0};
  }
  ++link.figures.taken;
  conclude(link);
  return std::size_t{1};
}

std::byte* hub::claim(outgoing& link, std::uint64_t bytes) noexcept {
  if (bytes > cell_layout::payload_bytes_max || link.state != link_state::open) return nullptr;
  return has_cell(link) ? link.lane.claim() : nullptr;
}

void hub::commit(outgoing& link, const bus::frame& head) noexcept {
  link.lane.ask(false);
  link.lane.push_claimed(head);
  ++link.figures.taken;
  link.figures.bytes += head.bytes;
  conclude(link);
}

// Something was published: wakes the peer if it sleeps, and only then takes back what it has let go
// of, so that nobody waits for that: the next loan will find it at home.
void hub::conclude(outgoing& link) noexcept {
  if (link.bell->ring() != bus::rung::none) ++link.figures.wakeups;
  if (!link.lane.scan_due()) return;
  const arena::returning here(*arena_);
  link.changed = link.lane.scan_credits() > 0 || link.changed;
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
  drop_copy();
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
      const std::size_t got = link.lane->poll(std::min(link.share, budget - taken), into);
      taken += got;
      more = more || got >= link.share;
      if (link.lane->broken() && !link.ended) end_incoming(link, errc::corrupt);
    }
  }
  if (any_ended_) finish_ended(into);
  return taken;
}

bool hub::arm() noexcept {
  trim();
  return std::all_of(incoming_.begin(), incoming_.end(), [](const auto& link) {
    link->lane->report();
    return link->lane->empty() && !(link->ended && link->lane->drained());
  });
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
        if (link->number == number && !link->ended) hear_sender(*link);
      }
      return;
    case watched::in_process:
      for (auto& link : incoming_) {
        if (link->number == number) end_incoming(*link, errc::gone);
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

// Before the node sleeps, links give back what they used, since one that was full once would keep a
// hundred times what it needs. Once a second at the most, and then when the time has come.
void hub::trim() noexcept {
  const auto is_used = [](const auto& link) { return link->lane->is_used(); };
  if (std::none_of(incoming_.begin(), incoming_.end(), is_used)) return;
  const std::int64_t now_ns = bus::steady_ns();
  if (now_ns < trimmed_at_ns_ + trim_every_ns) {
    if (std::exchange(trim_is_due_, true)) return;
    return set_timer();
  }
  trimmed_at_ns_ = now_ns;
  trim_is_due_ = false;
  for (const auto& link : incoming_) {
    if (is_used(link)) link->lane->trim();
  }
}

// Whose time is up, and who may try again.
void hub::expire() noexcept {
  if (std::exchange(trim_is_due_, false)) trim();
  if (std::exchange(listener_paused_, false)) {
    watch(listener_.get(), watched::listener, 0, EPOLLIN);
  }
  std::erase_if(newcomers_, [&](const newcomer& one) {
    if (!one.until.passed()) return false;
    refuse(one.socket, one.who.uid, errc::timed_out, bus::refusal::silent);
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
  std::int64_t first_ns = trim_is_due_ ? trimmed_at_ns_ + trim_every_ns : INT64_MAX;
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
