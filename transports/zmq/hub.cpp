#include "transports/zmq/hub.hpp"

#include "bus/base/check.hpp"
#include "bus/base/clock.hpp"
#include "transports/zmq/farewell.hpp"
#include "transports/zmq/wire.hpp"

#include <algorithm>
#include <array>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace transports::zeromq {
namespace {

// An inbox and each outbox have two sockets, a monitored one and its reader, and libzmq makes a
// third one for the monitor. As many ways out as in, and as many that are being seen off.
constexpr int sockets_max = 3 * (3 * static_cast<int>(peers_max) + 1);
constexpr std::uint64_t payload_bytes_max = 1ULL << 30;

}  // namespace

hub::hub(const bus::transport_setup& setup) : setup_(setup) {}

hub::~hub() = default;

std::uint64_t hub::bytes_max() const noexcept {
  return std::min(payload_bytes_max, setup_.link_bytes_max);
}

int hub::messages_max() const noexcept {
  const std::uint64_t chunks = setup_.link_bytes_max / chunk_bytes_max;
  return static_cast<int>(std::min<std::uint64_t>(2ULL * setup_.link_depth + chunks + 64, 1 << 20));
}

bus::result<void> hub::open() noexcept {
  if (epoll_) return {};
  bus::fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return bus::unexpected(bus::last_system_error());
  bus::fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer) return bus::unexpected(bus::last_system_error());
  epoll_event readable{};
  readable.events = EPOLLIN;
  readable.data.ptr = nullptr;  // nobody's but ours
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, timer.get(), &readable) != 0) {
    return bus::unexpected(bus::last_system_error());
  }
  epoll_ = std::move(epoll);
  timer_ = std::move(timer);
  return {};
}

bus::result<const context*> hub::zmq() {
  auto opened = open();
  if (!opened) return bus::unexpected(opened.error());
  if (!context_) {
    auto made = context::make(sockets_max);
    if (!made) return bus::unexpected(made.error());
    context_ = std::move(*made);
  }
  return &context_;
}

int hub::wait_handle() noexcept { return open() ? epoll_.get() : -1; }

std::string hub::fresh_name() { return "monitor-" + std::to_string(++names_); }

void hub::enlist(watcher& one) { watchers_.push_back(&one); }

void hub::dismiss(watcher& one) noexcept { std::erase(watchers_, &one); }

void hub::met(bus::node_id peer, const std::string& endpoint, bool by_calling) {
  place& where = places_[peer];
  if (by_calling || !where.by_calling) where.endpoint = endpoint;
  where.by_calling = where.by_calling || by_calling;
  ++where.ways;
  for (watcher* one : watchers_) one->met(peer, endpoint);
}

void hub::parted(bus::node_id peer) noexcept {
  const auto at = places_.find(peer);
  if (at != places_.end() && --at->second.ways == 0) places_.erase(at);
}

std::string hub::place_of(bus::node_id peer) const {
  const auto at = places_.find(peer);
  return at == places_.end() ? std::string() : at->second.endpoint;
}

std::string hub::called_at(bus::node_id peer) const {
  const auto at = places_.find(peer);
  return at == places_.end() || !at->second.by_calling ? std::string() : at->second.endpoint;
}

bus::result<void> hub::watch(int descriptor, watch_point& point) noexcept {
  auto opened = open();
  if (!opened) return opened;
  epoll_event readable{};
  readable.events = EPOLLIN;
  readable.data.ptr = &point;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor, &readable) != 0) {
    return bus::unexpected(bus::last_system_error());
  }
  return {};
}

void hub::forget(int descriptor, const watch_point& point) noexcept {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, descriptor, nullptr);
  for (epoll_event& one : untold_) {
    if (one.data.ptr == &point) one.events = 0;
  }
}

void hub::schedule(std::int64_t at_ns) noexcept {
  if (at_ns >= timer_at_ns_) return;
  timer_at_ns_ = at_ns;
  itimerspec when{};
  when.it_value = {at_ns / 1'000'000'000, at_ns % 1'000'000'000};
  BUS_CHECK(::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr) == 0);
}

void hub::expire() noexcept {
  std::uint64_t count = 0;
  if (::read(timer_.get(), &count, sizeof count) < 0) return;
  timer_at_ns_ = INT64_MAX;
  const std::int64_t now_ns = bus::steady_ns();
  for (watcher* one : watchers_) one->tick(now_ns);
  for (const auto& one : farewells_) one->tick(now_ns);
}

void hub::see_off(socket dealer, monitor watching) noexcept {
  auto made = std::make_unique<farewell>(*this, std::move(dealer), std::move(watching));
  if (!made->is_over()) farewells_.push_back(std::move(made));
}

void hub::end_farewells() noexcept {
  while (!farewells_.empty()) wait(INT64_MAX);
}

void hub::attend() noexcept {
  if (!epoll_) return;
  // What does not fit stays readable, and the kernel takes turns among it.
  std::array<epoll_event, 64> ready;
  const int count = ::epoll_wait(epoll_.get(), ready.data(), static_cast<int>(ready.size()), 0);
  untold_ = std::span(ready).first(static_cast<std::size_t>(std::max(count, 0)));
  while (!untold_.empty()) {
    const epoll_event one = untold_.front();
    untold_ = untold_.subspan(1);
    if (one.events == 0) continue;  // whoever was told before it has ended it
    if (auto* const point = static_cast<watch_point*>(one.data.ptr)) {
      point->whom->stir(point->what);
    } else {
      expire();
    }
  }
  std::erase_if(farewells_, [](const auto& one) { return one->is_over(); });
}

void hub::wait(std::int64_t until_ns) noexcept {
  schedule(until_ns);
  pollfd readable{epoll_.get(), POLLIN, 0};
  ::poll(&readable, 1, -1);
  attend();
}

void hub::rest() noexcept {
  for (watcher* one : watchers_) one->rest();
}

void hub::ring() noexcept {
  if (setup_.doorbell) setup_.doorbell->ring();
}

}  // namespace transports::zeromq
