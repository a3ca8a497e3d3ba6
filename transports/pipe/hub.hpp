// What all cables of one transport share, and its inbox: the epoll that a sleeping node watches,
// the memory for what comes, the way home for it, and one timer for all deadlines.
//
// Without a cable there is an epoll, if anybody asks for it, and nothing else.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/link/homecoming.hpp"
#include "bus/link/inbox.hpp"
#include "bus/link/pool.hpp"
#include "bus/link/refusal.hpp"
#include "bus/link/transport.hpp"
#include "transports/pipe/cable.hpp"
#include "transports/pipe/courier.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace transports::pipes {

class hub final : public bus::inbox {
 public:
  // How long the end of the transport waits for peers to read what was sent.
  static constexpr std::int64_t goodbye_ns = 1'000'000'000;

  explicit hub(const bus::transport_setup& setup);
  ~hub() override;

  // A cable over these descriptors, which are ours from now on, or on failure still the caller's.
  // Errors: those of ends::adopt; gone (numbers without their pipes' that were used before, and so
  // may be others by now); exists (another cable has one of the pipes).
  [[nodiscard]] bus::result<std::shared_ptr<cable>> plug(bus::node_id peer, const pair_name& name);
  // The cable to `peer`; null: there is none, or it is gone.
  [[nodiscard]] std::shared_ptr<cable> find(bus::node_id peer) const noexcept;
  // The transport is no more: all cables end, and what was sent is read or has had its time.
  void close() noexcept;
  // A forked child holds copies of everything, and may touch nothing: the links are its parent's.
  [[nodiscard]] bool is_forked() const noexcept;

  std::size_t poll(std::size_t budget, bus::sink& into) noexcept override;
  void attend(bus::sink& into) noexcept override;
  [[nodiscard]] int wait_handle() noexcept override;
  [[nodiscard]] bool arm() noexcept override;
  void disarm() noexcept override;
  [[nodiscard]] std::span<const bus::refusal_tally> refused() const noexcept override {
    return refusals_.tallies();
  }

  // --- for cables
  [[nodiscard]] const bus::transport_setup& setup() const noexcept { return setup_; }
  // The largest payload: one must fit among the bytes in flight.
  [[nodiscard]] std::uint64_t bytes_max() const noexcept;
  [[nodiscard]] bus::pool& memory() noexcept { return *memory_; }
  [[nodiscard]] bus::homecoming& homes() noexcept { return *homes_; }
  [[nodiscard]] pipes::courier& courier() noexcept { return courier_; }
  [[nodiscard]] bool has_another_to(bus::node_id peer, const cable& than) const noexcept;
  [[nodiscard]] bus::result<void> watch(int descriptor, watch_point& point,
                                        std::uint32_t events) noexcept;
  void watch_again(int descriptor, watch_point& point, std::uint32_t events) noexcept;
  void forget(int descriptor) noexcept;
  // Cables are reported and checked at `at_ns` or soon after.
  void schedule(std::int64_t at_ns) noexcept;
  void note_end() noexcept { ++ended_; }
  // Whoever is at the other end of `over` is cut off for this. It counts for the pipe's owner.
  void note_refusal(const cable& over, std::error_code why) noexcept;
  // Wakes the node if it sleeps.
  void ring() noexcept;

 private:
  [[nodiscard]] bus::result<void> open_epoll() noexcept;
  [[nodiscard]] bus::result<void> prepare() noexcept;
  void turn() noexcept;
  void hear() noexcept;
  void collect() noexcept;
  void report() noexcept;
  void expire() noexcept;
  [[nodiscard]] std::size_t hand_out(std::size_t budget, bus::sink& into) noexcept;
  [[nodiscard]] bool has_to_wait(const cable& one) const noexcept;
  void see_off(bus::sink& into) noexcept;

  const int process_id_;
  bus::transport_setup setup_;
  bus::fd epoll_;
  bus::fd timer_;
  std::int64_t timer_at_ns_ = INT64_MAX;
  watch_point timer_point_{nullptr, source::timer};
  watch_point homes_point_{nullptr, source::homes};
  bus::pool::owner memory_;
  bus::homecoming::owner homes_;
  std::vector<std::shared_ptr<cable>> cables_;  // in the order in which they were plugged
  std::vector<std::pair<int, int>> used_;       // descriptors that were plugged in, since ever
  pipes::courier courier_;                      // after the cables that it knows: it ends first
  std::uint32_t last_number_ = 0;
  bus::refusal_book refusals_;
  std::size_t turn_ = 0;
  unsigned attended_ = 0;
  std::size_t ended_ = 0;  // cables to be seen off
  bool owing_ = false;     // a cable may have something to report
};

}  // namespace transports::pipes
