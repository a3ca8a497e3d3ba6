// Everything that peers send to this node: one ROUTER, bound to each address that the node listens
// to; or, if it listens nowhere, a line to each node that it has met, with the offer to be sent to.
// libzmq numbers the connections; the first message on one must be a hello, and from then on
// whatever comes under that number belongs to the node that said it.
//
//   a peer:  unknown --(hello)--> admitted --(bye, disconnect, broken rule)--> ended --> left
//                      \--(an older link of the same node has not left yet)--> waiting --/
//
// A call, whose hello names nobody, is how a node that is told an address meets who is there. It
// goes on beside the link that comes of the meeting, and is not mistaken for it.
//
//   a line of ours:  offered --(hello)--> admitted --(bye, end)--> ended --> dialled again
//
// What others offer us is kept here too, until an outbox takes it: it is sent through the ROUTER.
//
// Messages move from libzmq into the peers' queues, and peers take turns in handing them out. A
// payload is copied once, from the network's buffer into recycled memory: libzmq's own is aligned
// to nothing, shared between messages, and new pages each time. (An 8 byte sample would pin 8 KiB
// of it; for large ones, the copy costs less than the page faults did.)
//
// Who is gone is told by a monitor of the ROUTER, by file descriptor. Descriptors are reused, so
// that the monitor is read before each hello: then a descriptor means the newest connection.
#pragma once

#include "bus/link/credits.hpp"
#include "bus/link/homecoming.hpp"
#include "bus/link/inbox.hpp"
#include "bus/link/pool.hpp"
#include "transports/zmq/address.hpp"
#include "transports/zmq/hub.hpp"
#include "transports/zmq/line.hpp"
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

  // A line that this node has offered to be sent to over; null: none, or none that is free.
  [[nodiscard]] std::unique_ptr<line> take_offer(bus::node_id from, watcher& owner);

  void stir(source what) noexcept override;
  // Most of what is due is done after each stir and poll; lines are dialled again here.
  void tick(std::int64_t now_ns) noexcept override;
  void rest() noexcept override {}
  void met(bus::node_id whom, const std::string& endpoint) noexcept override;

 private:
  enum class phase : std::uint8_t { offered, waiting, admitted, ended };
  // A line of ours that broke is dialled again after this, as long as we have a way into that node.
  static constexpr std::int64_t redial_ns = 1'000'000'000;

  // Notes which of our lines was stirred.
  struct ear final : watcher {
    explicit ear(router_inbox& whose) : home(whose) {}
    void stir(source what) noexcept override;
    void tick(std::int64_t) noexcept override {}
    void rest() noexcept override {}
    router_inbox& home;
    bool used = true;  // the line was used since it was last found empty
    bool may_have_ended = false;
    std::unique_ptr<dialled> over;
  };

  // Somebody's line, that the node which was called may send over.
  struct offer {
    bus::node_id node;
    int connection = -1;
    watcher* user = nullptr;
    bool has_ended = false;
    std::deque<message> heard;
  };
  class returned;

  struct peer {
    std::uint32_t link = 0;
    bus::node_id node;
    bool is_call = false;  // it did not say whom it wants: it calls an address, to meet
    int connection = -1;
    phase where = phase::waiting;
    std::unique_ptr<ear> own;  // a line of ours; null: it called us
    bool drained = false;      // ended, and nothing of it is left in libzmq
    std::error_code reason;

    std::deque<message> queue;
    std::size_t offset = 0;  // within the packet in front; 0: not begun
    std::uint32_t records_left = 0;
    std::uint64_t received = 0;  // records, since ever
    std::uint64_t messages = 0;  // handed over, since ever
    // A large sample under way.
    std::optional<bus::loan> arriving;
    bus::frame arriving_head;
    std::uint32_t arriving_credit = 0;
    std::uint64_t arrived_bytes = 0;

    bus::tab tab;
    bool urgent = false;
    std::int64_t due_ns = 0;
  };

  [[nodiscard]] bus::result<void> bind_one(const endpoint& wanted);
  [[nodiscard]] bus::result<void> prepare();
  void dismiss_callers() noexcept;
  void receive() noexcept;
  void receive_calls(std::size_t most) noexcept;
  void receive_over(peer& one) noexcept;
  void stir_offers() noexcept;
  void read_events() noexcept;
  void connection_ended(int connection) noexcept;
  void take(message& from, message& body, bool whole) noexcept;
  void take_from(peer& known, message& body, bool whole) noexcept;
  void greet(std::uint32_t link, const message& body, word kind) noexcept;
  void park(std::uint32_t link, bus::node_id from, int connection) noexcept;
  void dial(bus::node_id whom, const std::string& endpoint);
  void hear_hello(peer& one, const message& body) noexcept;
  [[nodiscard]] bool is_first_of_its_node(const peer& one) const noexcept;
  void admit(peer& newcomer) noexcept;
  void refuse(std::uint32_t link, refusal_reason why) noexcept;
  void say_bye(std::uint32_t link) noexcept;
  [[nodiscard]] bool answer(std::uint32_t link, message& words) noexcept;
  [[nodiscard]] bool answer(std::uint32_t link, std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] peer* find(std::uint32_t link) noexcept;

  [[nodiscard]] std::size_t hand_out(std::size_t budget, bus::sink& into) noexcept;
  void step(peer& from, bus::sink& into) noexcept;
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
  std::vector<peer*> own_lines_;
  std::uint32_t last_own_ = 0;
  std::unordered_map<bus::node_id, std::int64_t> redial_at_ns_;
  std::unordered_map<std::uint32_t, offer> offers_;
  bool offers_heard_ = false;  // an offer has something for its user
  bool lends_lines_ = false;   // an offer was taken
  std::deque<peer*> turns_;    // peers with something queued, each once
  std::size_t queued_ = 0;     // messages in all queues
  std::size_t ended_ = 0;      // peers to be seen off
  std::size_t owing_ = 0;      // peers with something to report
  std::int64_t due_ns_ = INT64_MAX;
  bus::pool::owner memory_;
  bus::homecoming::owner homes_;
};

}  // namespace transports::zeromq
