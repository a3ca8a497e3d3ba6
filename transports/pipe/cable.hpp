// One pair of pipes to one peer, as one end of it sees it: both ways at once, for the inbox and for
// every outbox to that peer.
//
//   greeting --(the peer's hello)--> open --(its death, the end of a pipe, a broken rule)--> gone
//
// It lasts as long as the pipes, whether anybody sends or not. A way into the peer begins with its
// first message and ends with a bye, when the last outbox lets go; it may begin again. What has
// come is kept here until the inbox hands it out: credits bound it, so reading need not wait for
// anybody, and credits for what we send are never stuck behind it.
//
// Messages of a stream are held back until some are there, or the node turns, or the courier's time
// has come. One after a pause is written at once, and so is all that fills no stream.
#pragma once

#include "bus/link/inbox.hpp"
#include "bus/link/outbox.hpp"
#include "transports/pipe/courier.hpp"
#include "transports/pipe/intake.hpp"
#include "transports/pipe/outflow.hpp"
#include "transports/pipe/witness.hpp"

#include <cstdint>
#include <deque>
#include <string>
#include <system_error>
#include <vector>

namespace transports::pipes {

class cable;
class hub;
class peer_outbox;

// What a descriptor in the hub's epoll stands for.
enum class source : std::uint8_t { in, out, process, homes, timer };
struct watch_point {
  cable* whom = nullptr;
  source what = source::in;
};

class cable final : public listener, private courier::client {
 public:
  // `expected` 0: whoever is there. `within` is used until the cable is gone, and not after.
  cable(hub& within, ends pipes, std::uint32_t number, bus::node_id expected);
  ~cable() = default;
  cable(const cable&) = delete;
  cable& operator=(const cable&) = delete;
  // Says hello. Errors: the kernel's; then the descriptors are nobody's of ours.
  [[nodiscard]] bus::result<void> open();

  // The hub's: greater than those of all that were plugged in before.
  [[nodiscard]] std::uint32_t number() const noexcept { return number_; }

  [[nodiscard]] bus::link_state state() const noexcept { return state_; }
  [[nodiscard]] std::error_code reason() const noexcept { return reason_; }
  // Who is there, or else who is expected.
  [[nodiscard]] bus::node_id peer() const noexcept { return peer_; }
  [[nodiscard]] const ends& pipes() const noexcept { return ends_; }
  [[nodiscard]] std::uint64_t bytes_max() const noexcept { return bytes_max_; }
  [[nodiscard]] const bus::purse& purse() const noexcept { return outflow_.purse(); }
  [[nodiscard]] std::string describe() const;

  // --- for outboxes
  void attach(peer_outbox& one);
  void detach(peer_outbox& one) noexcept;
  [[nodiscard]] bool has_room_for_a_way() noexcept;
  // Takes as many from the front as have room.
  [[nodiscard]] std::size_t post(std::span<const bus::sample> batch, peer_outbox& by) noexcept;

  // --- for the hub
  // Reads what is there, within bounds. True if anything was.
  bool receive() noexcept;
  // The same, each second time: who polls once more before it sleeps need not pay for it.
  void glance() noexcept;
  // Goes on writing, if the pipe was full.
  void resume() noexcept;
  // Writes what was held back.
  void hasten() noexcept {
    if (is_held_) flush(false);
  }
  // The node turns.
  void turn() noexcept {
    has_turned_ = true;
    hasten();
  }
  void stir(source what, std::uint32_t events) noexcept;
  [[nodiscard]] bool has_arrivals() const noexcept { return !arrivals_.empty(); }
  // Whether receive() left something that nothing will call us for.
  [[nodiscard]] bool has_more() const noexcept { return has_more_; }
  // Hands out until `most` messages or a leaving; returns how many.
  [[nodiscard]] std::size_t hand_out(std::size_t most, bus::sink& into) noexcept;
  // The same if a leaving is all that is next.
  void tell_leaving(bus::sink& into) noexcept;
  // A sample of this cable came home.
  void let_go(std::uint32_t credit, std::uint64_t bytes, std::int64_t now_ns) noexcept;
  // Reports what is owed, if it is time; returns when it will be.
  std::int64_t report(std::int64_t now_ns) noexcept;
  // Looks whether the peer lives, if nothing else tells; returns when to look again.
  std::int64_t check(std::int64_t now_ns) noexcept;
  // Whether the transport's end must wait for something of ours.
  [[nodiscard]] bool is_owing() noexcept;
  void end(std::error_code why) noexcept;
  // In a forked child, whose parent goes on: forgets everything, and touches nothing.
  void disown() noexcept {
    state_ = bus::link_state::gone;
    is_held_ = false;
  }

 private:
  // A sample, or none: the peer's way into us has ended.
  struct arrival {
    bus::sample memory;
    std::error_code left;
  };

  bus::result<void> greeted(const hello_layout& hello) override;
  bus::result<bus::loan> announced(const bus::frame& head, std::uint32_t credit) override;
  void arrived(bus::loan payload, const bus::frame& head, std::uint32_t credit) override;
  bus::result<void> released(bus::credit_run run) override;
  bus::result<void> parted() override;
  void deliver() noexcept override;

  [[nodiscard]] bool may_hold(const bus::frame& last) noexcept;
  void stop_holding() noexcept;
  bool take_in(std::size_t most) noexcept;
  void flush(bool report) noexcept;
  void bury() noexcept;
  void changed() noexcept;

  hub* hub_;
  ends ends_;
  const std::uint32_t number_;
  bus::node_id peer_;
  bus::link_state state_ = bus::link_state::opening;
  std::error_code reason_;
  witness witness_;
  watch_point in_{this, source::in};
  watch_point out_{this, source::out};
  watch_point process_{this, source::process};

  intake intake_;
  std::deque<arrival> arrivals_;
  std::size_t leavings_ = 0;  // among them
  bool speaks_ = false;       // the peer's way into us is open
  bool has_more_ = false;
  bool has_glanced_ = false;
  bus::tab tab_;
  bool urgent_ = false;
  std::int64_t due_ns_ = INT64_MAX;
  std::int64_t check_at_ns_ = INT64_MAX;

  outflow outflow_;           // the courier's, too: under its lock
  bool is_full_ = false;      // the pipe out; its descriptor is watched
  bool is_held_ = false;      // something may wait that the pipe has room for
  bool is_expected_ = false;  // by the courier; under its lock
  bool has_turned_ = true;    // since the last message
  std::int64_t posted_at_ns_ = 0;
  unsigned brisk_ = 0;      // messages that came soon after the last one, halved at each pause
  bool is_spoken_ = false;  // our way into the peer is open
  std::uint64_t bytes_max_;
  std::vector<peer_outbox*> outboxes_;
  std::vector<peer_outbox*> owners_;  // by credit
};

}  // namespace transports::pipes
