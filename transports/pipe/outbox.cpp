#include "transports/pipe/outbox.hpp"

#include <utility>

namespace transports::pipes {

peer_outbox::peer_outbox(std::shared_ptr<cable> over) : cable_(std::move(over)) {
  cable_->attach(*this);
}

peer_outbox::~peer_outbox() { cable_->detach(*this); }

bus::result<std::size_t> peer_outbox::send(std::span<const bus::sample> batch) noexcept {
  if (state() == bus::link_state::gone) return bus::unexpected(bus::errc::gone);
  if (batch.empty()) return std::size_t{0};
  if (batch.front().head().bytes > cable_->bytes_max()) {
    return bus::unexpected(bus::errc::too_big);
  }
  if (state() != bus::link_state::open) return std::size_t{0};
  std::size_t taken = 0;
  const auto post = [&] {
    const std::size_t posted = cable_->post(batch.subspan(taken), *this);
    for (const bus::sample& one : batch.subspan(taken, posted)) figures_.bytes += one.head().bytes;
    figures_.taken += posted;
    taken += posted;
  };
  unsettled_ += batch.size();
  post();
  if (taken < batch.size() && state() == bus::link_state::open) {
    // Credits may have come home unseen.
    cable_->receive();
    if (state() == bus::link_state::open) post();
  }
  unsettled_ = state() == bus::link_state::gone ? 0 : unsettled_ - (batch.size() - taken);
  if (taken == 0 && state() == bus::link_state::gone) return bus::unexpected(bus::errc::gone);
  if (taken < batch.size() && batch[taken].head().bytes <= cable_->bytes_max()) {
    figures_.full += batch.size() - taken;
  }
  return taken;
}

bool peer_outbox::changed() noexcept {
  changed_ = true;
  return std::exchange(armed_, false);
}

bool peer_outbox::arm() noexcept {
  if (std::exchange(changed_, false)) return false;
  armed_ = true;
  return true;
}

std::size_t peer_outbox::unsettled() noexcept {
  cable_->hasten();
  if (unsettled_ > 0) cable_->receive();
  return unsettled_;
}

bool peer_outbox::has_room_for(std::uint64_t bytes) noexcept {
  // Whoever asks before each message is in no hurry for those before.
  if (cable_->purse().has_room(bytes)) return true;
  cable_->hasten();
  if (unsettled_ > 0) cable_->receive();
  return cable_->purse().has_room(bytes);
}

}  // namespace transports::pipes
