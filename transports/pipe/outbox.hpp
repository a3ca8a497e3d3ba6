// Our way into one peer: a place on the cable to it, which it shares with the other outboxes to
// that peer. It opens and ends with the cable.
#pragma once

#include "bus/link/outbox.hpp"
#include "transports/pipe/cable.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace transports::pipes {

class peer_outbox final : public bus::outbox {
 public:
  explicit peer_outbox(std::shared_ptr<cable> over);
  ~peer_outbox() override;

  [[nodiscard]] bus::result<std::size_t> send(std::span<const bus::sample> batch) noexcept override;
  [[nodiscard]] bus::link_state state() const noexcept override { return cable_->state(); }
  [[nodiscard]] std::error_code reason() const noexcept override { return cable_->reason(); }
  [[nodiscard]] bool arm() noexcept override;
  [[nodiscard]] std::size_t unsettled() noexcept override;
  [[nodiscard]] bool has_room_for(std::uint64_t bytes) noexcept override;
  [[nodiscard]] bus::link_figures figures() const noexcept override { return figures_; }
  [[nodiscard]] std::string describe() const override { return cable_->describe(); }

  // --- for the cable
  // Something has changed. True: that was waited for.
  [[nodiscard]] bool changed() noexcept;
  // The peer let go of one of ours, or of all.
  void settled() noexcept { --unsettled_; }
  void settled_all() noexcept { unsettled_ = 0; }

 private:
  std::shared_ptr<cable> cable_;
  std::size_t unsettled_ = 0;
  bool changed_ = false;
  bool armed_ = false;
  bus::link_figures figures_;
};

}  // namespace transports::pipes
