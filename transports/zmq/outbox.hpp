// Our way into one peer: one line, which we dialled, or which a peer that cannot be called has
// opened to us. A line that ends, ends the link; the node makes a new one, and nothing is ever sent
// twice or reordered by libzmq.
//
//   opening --(next candidate, until none is left)--> opening --(welcome)--> open --> gone
//
// Each candidate gets a socket of its own, a hello and a deadline. Once open, each sample occupies
// one credit and is referenced until the receiver has let go of it. libzmq's queue has no limit of
// its own: credits and bytes in flight bound it.
#pragma once

#include "bus/link/credits.hpp"
#include "bus/link/outbox.hpp"
#include "transports/zmq/hub.hpp"
#include "transports/zmq/line.hpp"
#include "transports/zmq/wire.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace transports::zeromq {

class peer_outbox final : public bus::outbox, public watcher {
 public:
  // `peer` 0 takes whoever answers.
  peer_outbox(std::shared_ptr<hub> shared, bus::node_id peer, std::vector<std::string> candidates);
  ~peer_outbox() override;
  // Tries the first candidate. Errors: the kernel's.
  [[nodiscard]] bus::result<void> open();
  // Uses a line that the peer has opened to us. Errors: no_memory.
  [[nodiscard]] bus::result<void> open_over(std::unique_ptr<line> opened);
  // The transport ends: says goodbye, and is gone from now on.
  void abandon() noexcept;

  [[nodiscard]] bus::result<std::size_t> send(std::span<const bus::sample> batch) noexcept override;
  [[nodiscard]] bus::link_state state() const noexcept override { return state_; }
  [[nodiscard]] std::error_code reason() const noexcept override { return reason_; }
  [[nodiscard]] bool arm() noexcept override;
  [[nodiscard]] std::size_t unsettled() noexcept override;
  [[nodiscard]] bool has_room_for(std::uint64_t bytes) noexcept override;
  [[nodiscard]] bus::link_figures figures() const noexcept override { return figures_; }
  [[nodiscard]] std::string describe() const override;

  void stir(source what) noexcept override;
  void tick(std::int64_t now_ns) noexcept override;
  void rest() noexcept override;

 private:
  [[nodiscard]] bus::result<void> try_candidate();
  [[nodiscard]] bus::result<void> say_hello();
  void hang_up(parting how) noexcept;
  void failed(std::error_code why) noexcept;
  void end(std::error_code why) noexcept;
  void changed() noexcept;

  void read_messages() noexcept;
  void read_events() noexcept;
  void heard(const message& one) noexcept;
  void welcomed(std::span<const std::byte> bytes) noexcept;
  void refused(std::span<const std::byte> bytes) noexcept;
  void released(std::span<const std::byte> bytes) noexcept;

  [[nodiscard]] std::size_t post(std::span<const bus::sample> batch) noexcept;
  [[nodiscard]] std::size_t post_packet(std::span<const bus::sample> batch) noexcept;
  [[nodiscard]] bool post_large(const bus::sample& one) noexcept;
  void occupy(const bus::sample& one) noexcept;

  std::shared_ptr<hub> hub_;
  bus::node_id peer_;
  std::vector<std::string> candidates_;
  bool is_call_;  // to whoever is there
  std::size_t tried_ = 0;
  std::int64_t deadline_ns_ = 0;
  std::error_code verdict_;  // the most telling failure of a candidate
  std::unique_ptr<line> line_;
  bool dialled_ = false;  // by us
  bool met_ = false;      // and the hub knows where

  bus::link_state state_ = bus::link_state::opening;
  std::error_code reason_;
  bool changed_ = false;
  bool armed_ = false;
  bool used_ = false;  // the line was used since it was last found empty

  std::uint64_t bytes_max_ = 0;
  bus::purse purse_;
  std::uint64_t sent_ = 0;
  bus::link_figures figures_;
};

}  // namespace transports::zeromq
