// Everything that peers send to this node: one ROUTER, bound to each address that the node listens
// to. libzmq numbers the connections; the first message on one must be a hello, and from then on
// whatever comes under that number belongs to the node that said it.
//
//   a peer:  unknown --(hello)--> admitted --(bye, disconnect, broken rule)--> ended --> left
//                      \--(an older link of the same node has not left yet)--> waiting --/
//
// A call, whose hello names nobody, is how a node that is told an address meets who is there. It
// goes on beside the link that comes of the meeting, and is not mistaken for it.
//
// Messages move from libzmq into the peers' queues, and peers take turns in handing them out. A
// payload is copied once, from the network's buffer into recycled memory: libzmq's own is aligned
// to nothing, shared between messages, and new pages each time. (An 8 byte sample would pin 8 KiB
// of it; for large ones, the copy costs less than the page faults did.)
//
// Who is gone is told by a monitor of the ROUTER, by file descriptor. Descriptors are reused, so
// that the monitor is read before each hello: then a descriptor means the newest connection.
#pragma once

#include "bus/link/inbox.hpp"
#include "bus/link/pool.hpp"
#include "transports/zmq/address.hpp"
#include "transports/zmq/homecoming.hpp"
#include "transports/zmq/hub.hpp"
#include "transports/zmq/wire.hpp"

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace transports::zeromq {

class router_inbox final : public bus::inbox, public watcher {
 public:
  explicit router_inbox(std::shared_ptr<hub> shared);
  ~router_inbox() override;
  // Binds all; where() tells the result. Errors: the kernel's.
  [[nodiscard]] bus::result<void> listen(const std::vector<endpoint>& wanted);
  [[nodiscard]] const std::vector<std::string>& where() const noexcept { return where_; }

  std::size_t poll(std::size_t budget, bus::sink& into) noexcept override;
  void attend(bus::sink& into) noexcept override;
  [[nodiscard]] int wait_handle() noexcept override { return hub_->wait_handle(); }
  [[nodiscard]] bool arm() noexcept override;
  void disarm() noexcept override;

  void stir(source what) noexcept override;
  void tick(std::int64_t) noexcept override {}  // what is due is done after each stir and poll
  void rest() noexcept override {}

 private:
  enum class phase : std::uint8_t { waiting, admitted, ended };

  struct peer {
    std::uint32_t link = 0;
    bus::node_id node;
    bool is_call = false;  // it did not say whom it wants: it calls an address, to meet
    int connection = -1;
    phase where = phase::waiting;
    bool drained = false;  // ended, and nothing of it is left in libzmq
    std::error_code reason;

    std::deque<message> queue;
    std::size_t offset = 0;  // within the packet in front; 0: not begun
    std::uint32_t records_left = 0;
    std::uint64_t received = 0;  // records, since ever
    // A large sample under way.
    std::optional<bus::loan> arriving;
    bus::frame arriving_head;
    std::uint32_t arriving_credit = 0;
    std::uint64_t arrived_bytes = 0;

    std::vector<bool> held;        // by credit
    std::uint64_t unreported = 0;  // samples that the peer believes in flight
    std::uint64_t unreported_bytes = 0;
    std::vector<credit_run> runs;  // released, to be reported
    std::uint64_t released = 0;    // credits in runs
    std::uint64_t released_bytes = 0;
    bool urgent = false;
    std::int64_t due_ns = 0;
  };

  [[nodiscard]] bus::result<void> bind_one(const endpoint& wanted);
  [[nodiscard]] bool receive() noexcept;
  void read_events() noexcept;
  void connection_ended(int connection) noexcept;
  void take(message& from, message& body, bool whole) noexcept;
  void greet(std::uint32_t link, const message& body) noexcept;
  void admit(peer& newcomer) noexcept;
  void refuse(std::uint32_t link, refusal_reason why) noexcept;
  [[nodiscard]] bool answer(std::uint32_t link, std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] peer* find(std::uint32_t link) noexcept;

  [[nodiscard]] std::size_t hand_out(std::size_t budget, bus::sink& into) noexcept;
  [[nodiscard]] bool step(peer& from, bus::sink& into) noexcept;
  [[nodiscard]] bool open_message(peer& from, const message& front) noexcept;
  [[nodiscard]] bool next_record(peer& from, bus::sink& into) noexcept;
  [[nodiscard]] bool begin_large(peer& from, const record_layout& record) noexcept;
  [[nodiscard]] bool next_chunk(peer& from, bus::sink& into) noexcept;
  void deliver(peer& from, bus::sample memory, std::uint32_t credit, bus::sink& into) noexcept;
  [[nodiscard]] bool may_use(peer& from, const record_layout& record) noexcept;
  void end(peer& one, std::error_code why, bool drained) noexcept;
  void expel(peer& one, std::error_code why) noexcept;
  void see_off(bus::sink& into) noexcept;

  void collect() noexcept;
  void report(bool everything) noexcept;
  void report_to(peer& one) noexcept;

  std::shared_ptr<hub> hub_;
  std::vector<std::string> where_;
  socket router_;
  monitor monitor_;
  watch_point messages_{this, source::messages};
  watch_point events_{this, source::events};
  watch_point returns_{this, source::homes};
  bool used_ = false;                    // the router was used since it was last found empty
  std::unordered_set<int> connections_;  // alive, as the monitor told
  std::unordered_map<int, std::uint32_t> link_of_;  // the peer's link, by connection
  std::unordered_map<std::uint32_t, std::unique_ptr<peer>> peers_;
  peer* last_found_ = nullptr;
  std::deque<peer*> turns_;  // peers with something queued, each once
  std::size_t queued_ = 0;   // messages in all queues
  std::size_t ended_ = 0;    // peers to be seen off
  std::size_t owing_ = 0;    // peers with something to report
  std::int64_t due_ns_ = INT64_MAX;
  bus::pool::owner memory_;
  homecoming::owner homes_;
};

}  // namespace transports::zeromq
