#include "transports/zmq/farewell.hpp"

#include "bus/base/clock.hpp"
#include "transports/zmq/wire.hpp"

#include <utility>

namespace transports::zeromq {

farewell::farewell(hub& within, socket dealer, monitor watching) noexcept
    : hub_(within),
      dealer_(std::move(dealer)),
      monitor_(std::move(watching)),
      until_ns_(bus::steady_ns() + goodbye_ns) {
  auto watched = hub_.watch(dealer_.descriptor(), messages_);
  if (watched) watched = hub_.watch(monitor_.descriptor(), events_);
  is_over_ = !watched;
  hub_.schedule(until_ns_);
  // What has come already calls nobody.
  stir(source::messages);
  stir(source::events);
}

farewell::~farewell() {
  hub_.forget(dealer_.descriptor(), messages_);
  hub_.forget(monitor_.descriptor(), events_);
  monitor_.stop(dealer_);
  dealer_.set(ZMQ_LINGER, 0);
}

// Reads all, whatever it is: what is left lying stops libzmq's reading.
void farewell::stir(source what) noexcept {
  message one;
  while (what == source::messages && dealer_.receive(one)) {
    const auto prefix = read<prefix_layout>(std::as_const(one).bytes());
    is_over_ = is_over_ || !prefix || static_cast<word>(prefix->kind) != word::release;
  }
  monitor::event event;
  while (what == source::events && monitor_.next(event)) is_over_ = true;
}

void farewell::tick(std::int64_t now_ns) noexcept {
  is_over_ = is_over_ || now_ns >= until_ns_;
  if (!is_over_) hub_.schedule(until_ns_);
}

}  // namespace transports::zeromq
