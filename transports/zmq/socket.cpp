#include "transports/zmq/socket.hpp"

#include "bus/base/check.hpp"

#include <array>
#include <cerrno>
#include <cstring>

namespace transports::zeromq {
namespace {

bus::unexpected zmq_failure() noexcept {
  return bus::unexpected(bus::system_error_of(::zmq_errno()));
}

// Repeats a call that a signal interrupted.
template <class Call>
int uninterrupted(Call call) noexcept {
  int done = 0;
  do {
    done = call();
  } while (done < 0 && ::zmq_errno() == EINTR);
  return done;
}

}  // namespace

bus::result<context> context::make(int sockets_max) {
  context made;
  made.handle_ = ::zmq_ctx_new();
  if (!made.handle_) return zmq_failure();
  BUS_CHECK(::zmq_ctx_set(made.handle_, ZMQ_IO_THREADS, 1) == 0);
  BUS_CHECK(::zmq_ctx_set(made.handle_, ZMQ_MAX_SOCKETS, sockets_max) == 0);
  return made;
}

context::~context() {
  if (handle_) uninterrupted([this] { return ::zmq_ctx_term(handle_); });
}

bool message::allocate(std::size_t bytes) noexcept {
  ::zmq_msg_close(&raw_);
  if (::zmq_msg_init_size(&raw_, bytes) == 0) return true;
  ::zmq_msg_init(&raw_);
  return false;
}

bool message::refer(std::span<const std::byte> place, void (*release)(void*, void*),
                    void* hint) noexcept {
  ::zmq_msg_close(&raw_);
  // libzmq only reads what it sends; its interface has no const.
  void* const data = const_cast<std::byte*>(place.data());
  if (::zmq_msg_init_data(&raw_, data, place.size(), release, hint) == 0) return true;
  ::zmq_msg_init(&raw_);
  return false;
}

std::span<std::byte> message::bytes() noexcept {
  return {static_cast<std::byte*>(::zmq_msg_data(&raw_)), ::zmq_msg_size(&raw_)};
}

std::span<const std::byte> message::bytes() const noexcept {
  return {static_cast<const std::byte*>(::zmq_msg_data(&raw_)), ::zmq_msg_size(&raw_)};
}

int message::connection() const noexcept { return ::zmq_msg_get(&raw_, ZMQ_SRCFD); }

bus::result<socket> socket::make(const context& within, int type) {
  socket made;
  made.handle_ = ::zmq_socket(within.handle(), type);
  if (!made.handle_) return zmq_failure();
  return made;
}

void socket::close() noexcept {
  if (handle_) ::zmq_close(std::exchange(handle_, nullptr));
}

void socket::set(int option, int value) noexcept {
  BUS_CHECK(::zmq_setsockopt(handle_, option, &value, sizeof value) == 0);
}

void socket::set(int option, std::int64_t value) noexcept {
  BUS_CHECK(::zmq_setsockopt(handle_, option, &value, sizeof value) == 0);
}

bus::result<void> socket::bind(const std::string& endpoint) noexcept {
  if (::zmq_bind(handle_, endpoint.c_str()) != 0) return zmq_failure();
  return {};
}

bus::result<void> socket::connect(const std::string& endpoint) noexcept {
  if (::zmq_connect(handle_, endpoint.c_str()) != 0) return zmq_failure();
  return {};
}

std::string socket::last_endpoint() const {
  std::array<char, 256> text{};
  std::size_t size = text.size();
  if (::zmq_getsockopt(handle_, ZMQ_LAST_ENDPOINT, text.data(), &size) != 0) return {};
  return text.data();
}

int socket::descriptor() const noexcept {
  int descriptor = -1;
  std::size_t size = sizeof descriptor;
  BUS_CHECK(::zmq_getsockopt(handle_, ZMQ_FD, &descriptor, &size) == 0);
  return descriptor;
}

bool socket::readable() noexcept {
  int events = 0;
  std::size_t size = sizeof events;
  const int done =
      uninterrupted([&] { return ::zmq_getsockopt(handle_, ZMQ_EVENTS, &events, &size); });
  return done == 0 && (events & ZMQ_POLLIN) != 0;
}

bool socket::send(message& one, part position) noexcept {
  const int flags = ZMQ_DONTWAIT | (position == part::more ? ZMQ_SNDMORE : 0);
  return uninterrupted([&] { return ::zmq_msg_send(one.raw(), handle_, flags); }) >= 0;
}

bool socket::send(std::span<const std::byte> copied, part position) noexcept {
  message one;
  if (!one.allocate(copied.size())) return false;
  std::memcpy(one.bytes().data(), copied.data(), copied.size());
  return send(one, position);
}

bool socket::receive(message& into) noexcept {
  return uninterrupted([&] { return ::zmq_msg_recv(into.raw(), handle_, ZMQ_DONTWAIT); }) >= 0;
}

bus::result<monitor> monitor::make(const context& within, socket& watched, int events,
                                   const std::string& name) {
  const std::string endpoint = "inproc://" + name;
  if (::zmq_socket_monitor(watched.handle(), endpoint.c_str(), events) != 0) return zmq_failure();
  auto reader = socket::make(within, ZMQ_PAIR);
  if (!reader) {
    ::zmq_socket_monitor(watched.handle(), nullptr, 0);
    return bus::unexpected(reader.error());
  }
  reader->set(ZMQ_RCVHWM, 0);
  reader->set(ZMQ_LINGER, 0);
  auto connected = reader->connect(endpoint);
  if (!connected) {
    ::zmq_socket_monitor(watched.handle(), nullptr, 0);
    return bus::unexpected(connected.error());
  }
  monitor made;
  made.events_ = std::move(*reader);
  // libzmq makes the descriptor readable only for a reader that has once found nothing.
  message nothing;
  BUS_CHECK(!made.events_.receive(nothing));
  return made;
}

void monitor::stop(socket& watched) noexcept {
  if (!events_) return;
  if (watched) ::zmq_socket_monitor(watched.handle(), nullptr, 0);
  events_.close();
}

bool monitor::next(event& into) noexcept {
  message first;
  if (!events_ || !events_.receive(first)) return false;
  // Two parts: {uint16 event, uint32 value} and the endpoint.
  const auto data = std::as_const(first).bytes();
  if (data.size() < 6) return false;
  std::uint16_t what = 0;
  std::int32_t value = 0;
  std::memcpy(&what, data.data(), sizeof what);
  std::memcpy(&value, data.data() + sizeof what, sizeof value);
  into = {what, value};
  message rest;
  if (first.more()) static_cast<void>(events_.receive(rest));
  return true;
}

}  // namespace transports::zeromq
