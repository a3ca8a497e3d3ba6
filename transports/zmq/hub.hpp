// What the inbox and all outboxes of one transport share: the context with its I/O thread, the
// epoll that a sleeping node watches, and one timer for all deadlines. It lives as long as any of
// them; all calls are made from the node's thread.
//
// libzmq's descriptors are edge-triggered: one is readable only from the arrival of news until
// libzmq has looked at them, on whatever call. So whoever stirs reads until nothing is left, and
// whoever sends looks once more before the node sleeps (rest).
#pragma once

#include "bus/base/fd.hpp"
#include "bus/link/transport.hpp"
#include "transports/zmq/socket.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <sys/epoll.h>

namespace transports::zeromq {

// The peers that may send to one node. Each costs it a socket and about 300 bytes while idle; a
// guess at more than anybody needs, and less than a process may open.
inline constexpr std::size_t peers_max = 1000;

// Which of a watcher's descriptors is readable.
enum class source : std::uint8_t { messages, events, homes };

class watcher {
 public:
  // A descriptor of ours is readable.
  virtual void stir(source what) noexcept = 0;
  // A scheduled time has come, perhaps not ours.
  virtual void tick(std::int64_t now_ns) noexcept = 0;
  // The node is about to sleep: look at all sockets that were used since they were last empty.
  virtual void rest() noexcept = 0;
  // A way into this node has opened, at this endpoint.
  virtual void met(bus::node_id /*peer*/, const std::string& /*endpoint*/) noexcept {}

 protected:
  ~watcher() = default;
};

// A descriptor's entry in the hub's epoll; it lives until the descriptor is forgotten.
struct watch_point {
  watcher* whom = nullptr;
  source what = source::messages;
};

class farewell;

class hub {
 public:
  explicit hub(const bus::transport_setup& setup);
  ~hub();
  hub(const hub&) = delete;
  hub& operator=(const hub&) = delete;

  [[nodiscard]] const bus::transport_setup& setup() const noexcept { return setup_; }
  // The largest payload: one must fit among the bytes in flight.
  [[nodiscard]] std::uint64_t bytes_max() const noexcept;
  // A sender that keeps the rules has no more messages under way than this.
  [[nodiscard]] int messages_max() const noexcept;
  // Made on first use. Errors: the kernel's.
  [[nodiscard]] bus::result<const context*> zmq();
  // Made on first use; -1 if the kernel refuses.
  [[nodiscard]] int wait_handle() noexcept;
  // A name that no monitor of this context has had.
  [[nodiscard]] std::string fresh_name();

  // Who is told of times, rests and of the transport's end.
  void enlist(watcher& one);
  void dismiss(watcher& one) noexcept;
  [[nodiscard]] const std::vector<watcher*>& enlisted() const noexcept { return watchers_; }

  // Where nodes were met: the endpoint at which one answered, while a way of ours into it is open.
  // All who are enlisted hear of it. Each met() has its parted().
  // By calling: the way is one that asked for nobody in particular.
  void met(bus::node_id peer, const std::string& endpoint, bool by_calling);
  void parted(bus::node_id peer) noexcept;
  // Empty: nowhere.
  [[nodiscard]] std::string place_of(bus::node_id peer) const;
  // The same if it was met by calling: users know better than cards where a node can be reached.
  [[nodiscard]] std::string called_at(bus::node_id peer) const;

  // `point` hears when `descriptor` is readable, until forget(). Both stay their owner's.
  [[nodiscard]] bus::result<void> watch(int descriptor, watch_point& point) noexcept;
  // What attend() has yet to tell it, it is not told any more.
  void forget(int descriptor, const watch_point& point) noexcept;
  // tick() will be called at `at_ns` or soon after.
  void schedule(std::int64_t at_ns) noexcept;

  // Sees a line off that has said bye.
  void see_off(socket dealer, monitor watching) noexcept;
  // Waits until all are seen off, which takes a second at the most.
  void end_farewells() noexcept;

  // Stirs and ticks whoever has something to do.
  void attend() noexcept;
  // The same, once there is something to do; returns at `until_ns`, too.
  void wait(std::int64_t until_ns) noexcept;
  void rest() noexcept;
  // Wakes the node if it sleeps.
  void ring() noexcept;

 private:
  [[nodiscard]] bus::result<void> open() noexcept;
  void expire() noexcept;

  bus::transport_setup setup_;
  bus::fd epoll_;
  bus::fd timer_;
  std::int64_t timer_at_ns_ = INT64_MAX;
  std::uint64_t names_ = 0;
  struct place {
    std::string endpoint;
    bool by_calling = false;
    std::size_t ways = 0;
  };
  std::unordered_map<bus::node_id, place> places_;
  std::vector<watcher*> watchers_;
  std::span<epoll_event> untold_;  // while attend() goes through what is readable
  context context_;
  std::vector<std::unique_ptr<farewell>> farewells_;
};

}  // namespace transports::zeromq
