#include "transports/zmq/line.hpp"

#include "transports/zmq/wire.hpp"

#include <cstring>
#include <utility>

namespace transports::zeromq {
namespace {

// How long libzmq goes on, in the background, to send a bye.
constexpr int goodbye_ms = 100;

constexpr int watched_events =
    ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
    ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

std::error_code error_of(const monitor::event& event) noexcept {
  switch (event.what) {
    case ZMQ_EVENT_CLOSED:
      return bus::errc::not_found;  // nobody listens there
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
      return bus::errc::incompatible;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
      return bus::errc::denied;
    default:
      return bus::errc::gone;
  }
}

}  // namespace

bool line::send(std::span<const std::byte> copied) noexcept {
  message one;
  if (!one.allocate(copied.size())) return false;
  std::memcpy(one.bytes().data(), copied.data(), copied.size());
  return send(one);
}

dialled::dialled(std::shared_ptr<hub> within, watcher& owner)
    : hub_(std::move(within)),
      messages_{&owner, source::messages},
      events_{&owner, source::events} {}

bus::result<std::unique_ptr<dialled>> dialled::open(std::shared_ptr<hub> within, watcher& owner,
                                                    const std::string& endpoint,
                                                    const limits& bounds) {
  auto zmq = within->zmq();
  if (!zmq) return bus::unexpected(zmq.error());
  auto dealer = socket::make(**zmq, ZMQ_DEALER);
  if (!dealer) return bus::unexpected(dealer.error());
  std::unique_ptr<dialled> made(new dialled(std::move(within), owner));
  hub& shared = *made->hub_;
  made->dealer_ = std::move(*dealer);
  made->dealer_.set(ZMQ_LINGER, 0);
  made->dealer_.set(ZMQ_SNDHWM, bounds.sent_max);
  made->dealer_.set(ZMQ_RCVHWM, bounds.received_max);
  made->dealer_.set(ZMQ_MAXMSGSIZE, bounds.bytes_max);
  made->dealer_.set(ZMQ_RECONNECT_IVL, -1);
  made->dealer_.set(ZMQ_HEARTBEAT_IVL, heartbeat_every_ms);
  made->dealer_.set(ZMQ_HEARTBEAT_TIMEOUT, heartbeat_lost_ms);
  auto watching = monitor::make(**zmq, made->dealer_, watched_events, shared.fresh_name());
  if (!watching) return bus::unexpected(watching.error());
  made->monitor_ = std::move(*watching);
  auto done = shared.watch(made->dealer_.descriptor(), made->messages_);
  if (done) done = shared.watch(made->monitor_.descriptor(), made->events_);
  if (done) done = made->dealer_.connect(endpoint);
  if (!done) return bus::unexpected(done.error());
  return made;
}

std::error_code dialled::ended() noexcept {
  std::error_code why;
  monitor::event event;
  while (monitor_ && monitor_.next(event)) {
    // The first event tells more than those that follow from it.
    if (!why) why = error_of(event);
  }
  return why;
}

void dialled::hang_up(parting how) noexcept {
  if (!dealer_) return;
  hub_->forget(dealer_.descriptor(), messages_);
  if (monitor_) hub_->forget(monitor_.descriptor(), events_);
  // In order behind the data: the receiver has everything when it hears this.
  const bool says_bye =
      how != parting::silent && monitor_ && line::send(bytes_of(make<bye_layout>(word::bye)));
  if (says_bye && how == parting::owing) {
    hub_->see_off(std::move(dealer_), std::move(monitor_));
    return;
  }
  monitor_.stop(dealer_);
  dealer_.set(ZMQ_LINGER, says_bye ? goodbye_ms : 0);
  dealer_.close();
}

}  // namespace transports::zeromq
