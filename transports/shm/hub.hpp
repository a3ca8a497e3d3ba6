// Everything that one node has of shared memory: its arena, its doorway, and the links that go out
// and come in. The outboxes and the transport that users hold are thin handles on it (shm.cpp).
//
// Data never needs the kernel: send() and poll() read and write memory. The kernel is asked when
// peers come and go, in attend(), which one epoll descriptor announces.
//
//   outgoing   opening -> open -> gone;  its outbox destroyed while the peer reads: leaving_
//   newcomer   connected, has not said hello; a deadline runs
//   incoming   reading -> ended (socket or process died, or a rule was broken) -> drained -> left()
#pragma once

#include "bus/base/clock.hpp"
#include "bus/base/fd.hpp"
#include "bus/link/transport.hpp"
#include "transports/shm/arena.hpp"
#include "transports/shm/handshake.hpp"
#include "transports/shm/lane_in.hpp"
#include "transports/shm/lane_out.hpp"
#include "transports/shm/quota.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <vector>

namespace transports::shared {

// Our way into one peer.
struct outgoing {
  std::uint64_t number = 0;
  bus::node_id peer;
  bus::link_state state = bus::link_state::opening;
  std::error_code reason;
  bool changed = false;  // since arm() last looked
  bool armed = false;    // the node wants to hear of a change
  bool dead = false;     // nobody reads our memory any more
  bus::fd socket;        // empty: not yet connected, or dead
  bus::fd process;
  credentials who;
  bus::deadline until = bus::deadline::never();  // while opening
  lane_out lane;
  std::optional<bus::ringer> bell;
  bus::link_figures figures;
};

class hub final : public bus::inbox {
 public:
  // Errors: unsupported, exists, or the kernel's.
  [[nodiscard]] static bus::result<std::shared_ptr<hub>> make(const bus::transport_setup& setup);

  [[nodiscard]] bus::result<bus::loan> lend(std::uint64_t bytes) noexcept;
  [[nodiscard]] bus::result<std::unique_ptr<outgoing>> connect(bus::node_id peer);
  [[nodiscard]] bus::result<std::size_t> send(outgoing& link,
                                              std::span<const bus::sample> batch) noexcept;
  [[nodiscard]] bus::result<std::size_t> give(outgoing& link, bus::sample&& one) noexcept;
  [[nodiscard]] std::byte* claim(outgoing& link, std::uint64_t bytes) noexcept;
  void commit(outgoing& link, const bus::frame& head) noexcept;
  [[nodiscard]] bool arm(outgoing& link) noexcept;
  [[nodiscard]] std::size_t unsettled(outgoing& link) noexcept;
  // The outbox is no more; the link goes on until the peer has let go.
  void leave(std::unique_ptr<outgoing> link) noexcept;
  // Listens in the directory that has this name now, if we are not to be found there yet.
  [[nodiscard]] bus::result<void> move_to(const std::string& directory);
  // Ends the links of peers whom the directory does not admit any more. If one of them could read
  // our arena, there is a new one from now on, and the other links are made anew, over it.
  void reconsider();
  // The transport is no more: all links end.
  void close() noexcept;
  [[nodiscard]] std::uint64_t payload_bytes_max() const noexcept;
  // A forked child holds copies of everything, and may touch nothing: the links are its parent's.
  [[nodiscard]] bool is_forked() const noexcept;

  std::size_t poll(std::size_t budget, bus::sink& into) noexcept override;
  void attend(bus::sink& into) noexcept override;
  [[nodiscard]] int wait_handle() noexcept override { return watch_.get(); }
  [[nodiscard]] bool arm() noexcept override;
  void disarm() noexcept override {}
  [[nodiscard]] std::span<const bus::refusal_tally> refused() const noexcept override {
    return refusals_.tallies();
  }

 private:
  struct newcomer {
    std::uint64_t number;
    bus::fd socket;
    bus::deadline until;
    credentials who;
    quota::claim place;
  };
  struct incoming {
    std::uint64_t number = 0;
    bus::node_id sender;
    credentials who;
    lane_in::owner lane;
    bus::fd process;
    std::error_code ended;
    std::uint64_t looks = 0;  // since it ended, and there was still something in its lane
    std::size_t share = 0;    // samples that it may deliver before the next has its turn
  };
  enum class watched : std::uint64_t {
    listener,
    timer,
    newcomer,
    incoming,
    in_process,
    out_socket,
    out_process
  };

  explicit hub(const bus::transport_setup& setup);
  // --- data
  void conclude(outgoing& link) noexcept;
  bool carry(outgoing& link, bus::sample&& offered) noexcept;
  bool carry_alone(outgoing& link, bus::sample&& offered) noexcept;
  [[nodiscard]] bool has_credit(outgoing& link) noexcept;
  [[nodiscard]] bool has_cell(outgoing& link) noexcept;
  bool forward(outgoing& link, bus::sample&& offered) noexcept;
  bool copy_foreign(outgoing& link, const bus::sample& offered) noexcept;
  [[nodiscard]] bool is_copied(const bus::sample& offered) const noexcept;
  void drop_copy() noexcept;
  bus::result<bus::block*> slot(std::uint64_t bytes) noexcept;
  void collect() noexcept;
  std::size_t settle(outgoing& link) noexcept;
  void settle_leaving() noexcept;
  // --- sending side of the handshake
  bus::result<void> have_arena();
  bus::result<void> reach(outgoing& link);
  bus::result<void> say_hello(outgoing& link);
  void hear(outgoing& link, bool hung_up) noexcept;
  bus::result<void> open(outgoing& link, note& welcome);
  void end(outgoing& link, std::error_code why, bool dead) noexcept;
  outgoing* find_outgoing(std::uint64_t number) noexcept;
  // --- receiving side
  void accept_newcomers() noexcept;
  std::optional<bus::refusal> seat(bus::fd&& socket, const credentials& who);
  bool make_place(uid_t user, bus::refusal limit);
  void refuse(const bus::fd& socket, uid_t user, std::error_code why, bus::refusal cause) noexcept;
  void greet(std::uint64_t number, bus::sink& into) noexcept;
  bus::result<void> adopt(newcomer& guest, note& hello, bus::sink& into);
  bus::result<lane_in::owner> take_lane(newcomer& guest, note& hello);
  void share_turns(uid_t user) noexcept;
  void hear_sender(incoming& link) noexcept;
  void fence(bus::node_id sender, const credentials& who, bus::sink& into) noexcept;
  void end_incoming(incoming& link, std::error_code why) noexcept;
  void finish_ended(bus::sink& into) noexcept;
  // --- both
  void dispatch(std::uint64_t key, std::uint32_t events, bus::sink& into) noexcept;
  void expire() noexcept;
  void trim() noexcept;
  void set_timer() noexcept;
  bool watch(int descriptor, watched kind, std::uint64_t number, std::uint32_t events,
             bool again = false) noexcept;
  void unwatch(int descriptor) noexcept;

  bus::node_id id_;
  bus::bell* doorbell_;
  std::uint64_t memory_bytes_max_;
  std::uint32_t depth_;
  int process_id_;
  doorway doorway_;
  bus::fd listener_;
  bus::fd watch_;
  bus::fd timer_;
  bool timer_set_ = false;
  std::int64_t trimmed_at_ns_ = INT64_MIN / 2;  // when links gave back memory
  bool trim_is_due_ = false;                    // and the timer is set for the next time
  bool listener_paused_ = false;
  bool closed_ = false;
  bool any_ended_ = false;
  bool is_outdated_ = false;  // somebody who may not can read the arena: nothing is lent from it
  std::shared_ptr<quota> quota_;
  bus::refusal_book refusals_;
  std::uint64_t numbers_ = 0;
  std::size_t turn_ = 0;  // whose turn it is to be read
  arena::owner arena_;
  // The last foreign sample's copy, for the other links that it is offered to. Kept while a link
  // has it, and no longer.
  struct {
    const bus::block* of = nullptr;
    bus::frame head;
    bus::sample copy;
  } copied_;
  std::vector<outgoing*> outgoing_;
  std::vector<std::unique_ptr<outgoing>> leaving_;
  std::vector<newcomer> newcomers_;
  std::vector<std::unique_ptr<incoming>> incoming_;
};

}  // namespace transports::shared
