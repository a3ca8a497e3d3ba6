#include "transports/pipe/hub.hpp"

#include "bus/base/clock.hpp"

#include <algorithm>
#include <array>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace transports::pipes {
namespace {

// What one cable hands out before the next one's turn.
constexpr std::size_t turn_max = 8;
// What links may hold here in all: the credits of each are the real limit. A guess at more pairs
// than a process has; doubled, since the pool rounds up.
constexpr std::uint64_t cables_usual = 64;
constexpr std::uint64_t believable_bytes = 1ULL << 40;
// A peer that reads rings nobody, so who waits for that looks again this often.
constexpr int look_every_ms = 5;
// So many cables are rather read in turn than asked for one by one; and even then, the kernel is
// asked each so many times, whatever they say.
constexpr std::size_t few_cables = 2;
constexpr unsigned ask_every = 8;

}  // namespace

hub::hub(const bus::transport_setup& setup) : process_id_(::getpid()), setup_(setup) {
  memory_ = bus::pool::make(2 * cables_usual * std::min(setup.link_bytes_max, believable_bytes));
}

hub::~hub() = default;

bool hub::is_forked() const noexcept { return ::getpid() != process_id_; }

std::uint64_t hub::bytes_max() const noexcept {
  return std::min(setup_.link_bytes_max, setup_.memory_bytes_max);
}

// ---------------------------------------------------------------- cables

bus::result<void> hub::open_epoll() noexcept {
  if (epoll_) return {};
  epoll_ = bus::fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return bus::unexpected(bus::last_system_error());
  return {};
}

bus::result<void> hub::prepare() noexcept {
  if (homes_) return {};
  auto opened = open_epoll();
  if (!opened) return opened;
  auto homes = bus::homecoming::make();
  if (!homes) return bus::unexpected(homes.error());
  auto watched = watch((*homes)->descriptor(), homes_point_, EPOLLIN);
  if (watched) homes_ = std::move(*homes);
  return watched;
}

bus::result<std::shared_ptr<cable>> hub::plug(bus::node_id peer, const pair_name& name) {
  const std::pair numbers{name.in.descriptor, name.out.descriptor};
  const bool is_used = std::find(used_.begin(), used_.end(), numbers) != used_.end();
  if (is_used && (name.in.pipe == 0 || name.out.pipe == 0)) return bus::unexpected(bus::errc::gone);
  auto prepared = prepare();
  if (!prepared) return bus::unexpected(prepared.error());
  const auto known = ends::examine(name);
  if (!known) return bus::unexpected(known.error());
  // The kernel's lock tells processes apart, and not the cables of one.
  const bool taken = std::any_of(cables_.begin(), cables_.end(), [&](const auto& one) {
    return one->state() != bus::link_state::gone && one->pipes().shares_a_pipe_with(*known);
  });
  if (taken) return bus::unexpected(bus::errc::exists);
  auto adopted = ends::adopt(*known);
  if (!adopted) return bus::unexpected(adopted.error());
  auto made = std::make_shared<cable>(*this, std::move(*adopted), ++last_number_, peer);
  auto opened = made->open();
  if (!opened) return bus::unexpected(opened.error());
  if (!is_used) used_.push_back(numbers);
  cables_.push_back(made);
  return made;
}

std::shared_ptr<cable> hub::find(bus::node_id peer) const noexcept {
  const auto found = std::find_if(cables_.begin(), cables_.end(), [&](const auto& one) {
    return one->peer() == peer && one->state() != bus::link_state::gone;
  });
  return found == cables_.end() || peer == bus::node_id{} ? nullptr : *found;
}

bool hub::has_another_to(bus::node_id peer, const cable& than) const noexcept {
  return std::any_of(cables_.begin(), cables_.end(), [&](const auto& one) {
    return one.get() != &than && one->peer() == peer && one->state() == bus::link_state::open;
  });
}

void hub::close() noexcept {
  if (is_forked()) {
    for (const auto& one : cables_) one->disown();
    cables_.clear();
    courier_.disown();
    return;
  }
  turn();
  const std::int64_t until_ns = bus::steady_ns() + goodbye_ns;
  const auto is_owing = [](const auto& one) { return one->is_owing(); };
  while (std::any_of(cables_.begin(), cables_.end(), is_owing) && bus::steady_ns() < until_ns) {
    pollfd readable{epoll_.get(), POLLIN, 0};
    ::poll(&readable, 1, look_every_ms);
    hear();
  }
  for (const auto& one : cables_) one->end(bus::errc::closed);
  cables_.clear();
}

// ---------------------------------------------------------------- the node's calls

std::size_t hub::poll(std::size_t budget, bus::sink& into) noexcept {
  if (cables_.empty()) return 0;
  turn();
  collect();
  for (const auto& one : cables_) {
    // Looking costs a system call, and what waits here came first.
    if (!one->has_arrivals()) one->glance();
  }
  const std::size_t handed = hand_out(budget, into);
  see_off(into);
  report();
  return handed;
}

void hub::attend(bus::sink& into) noexcept {
  turn();
  // Mostly the peer has said something: then nobody need ask who called. Who else did calls again.
  bool is_known = false;
  if (cables_.size() <= few_cables && ++attended_ % ask_every != 0) {
    for (const auto& one : cables_) is_known = one->receive() || is_known;
  }
  if (!is_known) hear();
  collect();
  see_off(into);
  report();
}

int hub::wait_handle() noexcept { return epoll_.get(); }

bool hub::arm() noexcept {
  if (!homes_) return true;
  turn();
  collect();
  report();
  for (const auto& one : cables_) {
    if (one->has_arrivals() || one->has_more()) return false;
  }
  return ended_ == 0 && homes_->arm();
}

void hub::disarm() noexcept {
  if (homes_) homes_->disarm();
}

// ---------------------------------------------------------------- what it does for them

// Nothing is held any longer.
void hub::turn() noexcept {
  for (const auto& one : cables_) one->turn();
}

void hub::hear() noexcept {
  if (!epoll_) return;
  // What does not fit stays readable, and the kernel takes turns among it.
  std::array<epoll_event, 64> ready;
  const int count = ::epoll_wait(epoll_.get(), ready.data(), static_cast<int>(ready.size()), 0);
  for (int i = 0; i < count; ++i) {
    const epoll_event& one = ready[static_cast<std::size_t>(i)];
    const auto* const point = static_cast<const watch_point*>(one.data.ptr);
    if (point->what == source::homes) {
      homes_->drain();
    } else if (point->what == source::timer) {
      expire();
    } else {
      // A cable that ended before its turn is still there, and knows.
      point->whom->stir(point->what, one.events);
    }
  }
}

void hub::expire() noexcept {
  std::uint64_t count = 0;
  if (::read(timer_.get(), &count, sizeof count) < 0) return;
  timer_at_ns_ = INT64_MAX;
  const std::int64_t now_ns = bus::steady_ns();
  for (const auto& one : cables_) schedule(one->check(now_ns));
}

void hub::collect() noexcept {
  if (!homes_) return;
  bus::homecoming::cell* home = homes_->collect();
  const std::int64_t now_ns = home ? bus::steady_ns() : 0;
  while (home) {
    bus::homecoming::cell* const next = home->next;
    const auto at = std::lower_bound(
        cables_.begin(), cables_.end(), home->link,
        [](const auto& one, std::uint32_t number) { return one->number() < number; });
    if (at != cables_.end() && (*at)->number() == home->link) {
      (*at)->let_go(home->credit, home->bytes, now_ns);
      owing_ = true;
    }
    homes_->recycle(*home);
    home = next;
  }
}

void hub::report() noexcept {
  if (!std::exchange(owing_, false)) return;
  const std::int64_t now_ns = bus::steady_ns();
  std::int64_t next_ns = INT64_MAX;
  for (const auto& one : cables_) next_ns = std::min(next_ns, one->report(now_ns));
  owing_ = next_ns != INT64_MAX;
  schedule(next_ns);
}

// Whether an older cable to the same peer has still something to hand out.
bool hub::has_to_wait(const cable& one) const noexcept {
  for (const auto& other : cables_) {
    if (other.get() == &one) return false;
    if (other->peer() == one.peer()) return true;
  }
  return false;
}

std::size_t hub::hand_out(std::size_t budget, bus::sink& into) noexcept {
  std::size_t handed = 0;
  std::size_t idle = 0;
  while (handed < budget && idle < cables_.size()) {
    cable& from = *cables_[turn_++ % cables_.size()];
    const bool may = ended_ == 0 || !has_to_wait(from);
    const std::size_t got =
        may && from.has_arrivals() ? from.hand_out(std::min(turn_max, budget - handed), into) : 0;
    if (may) from.tell_leaving(into);
    idle = got == 0 ? idle + 1 : 0;
    handed += got;
  }
  return handed;
}

// Tells of those who left, once all that they sent is handed out.
void hub::see_off(bus::sink& into) noexcept {
  if (ended_ == 0) return;
  for (std::size_t i = 0; i < cables_.size();) {
    cable& one = *cables_[i];
    if (one.state() == bus::link_state::gone && !has_to_wait(one)) one.tell_leaving(into);
    if (one.state() != bus::link_state::gone || one.has_arrivals()) {
      ++i;
      continue;
    }
    cables_.erase(cables_.begin() + static_cast<std::ptrdiff_t>(i));
    --ended_;
  }
}

bus::result<void> hub::watch(int descriptor, watch_point& point, std::uint32_t events) noexcept {
  epoll_event event{};
  event.events = events;
  event.data.ptr = &point;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor, &event) != 0) {
    return bus::unexpected(bus::last_system_error());
  }
  return {};
}

void hub::watch_again(int descriptor, watch_point& point, std::uint32_t events) noexcept {
  epoll_event event{};
  event.events = events;
  event.data.ptr = &point;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, descriptor, &event);
}

void hub::forget(int descriptor) noexcept {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, descriptor, nullptr);
}

void hub::schedule(std::int64_t at_ns) noexcept {
  if (at_ns >= timer_at_ns_) return;
  if (!timer_) {
    timer_ = bus::fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!timer_ || !watch(timer_.get(), timer_point_, EPOLLIN)) return;
  }
  timer_at_ns_ = at_ns;
  itimerspec when{};
  when.it_value = {at_ns / 1'000'000'000, at_ns % 1'000'000'000};
  BUS_CHECK(::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr) == 0);
}

void hub::note_refusal(const cable& over, std::error_code why) noexcept {
  const auto cause = [&] {
    if (over.state() == bus::link_state::open) return bus::refusal::broken;
    if (why == bus::errc::incompatible) return bus::refusal::incompatible;
    if (why == bus::errc::exists) return bus::refusal::taken;
    if (why == bus::errc::not_found) return bus::refusal::stranger;
    return why == bus::errc::bad_message ? bus::refusal::malformed : bus::refusal::no_room;
  };
  struct stat pipe {};
  const bool is_known = ::fstat(over.pipes().in(), &pipe) == 0;
  refusals_.count(is_known ? pipe.st_uid : bus::refusal_book::others, cause());
}

void hub::ring() noexcept {
  if (setup_.doorbell) setup_.doorbell->ring();
}

}  // namespace transports::pipes
