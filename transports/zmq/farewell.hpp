// A line that has said its last word. It is closed when the peer has said bye, too: then all has
// been read there. Or when the peer is gone, or has had `goodbye_ns` for it.
//
// This is not left to libzmq, which takes "written to the kernel" for "arrived". And a closed
// socket of which it has still to send reads nothing more: if the peer says something then and
// dies, libzmq does not see it, and an assertion in its next heartbeat ends the process
// (zeromq/libzmq issue 4364; 4.3.4 and later).
#pragma once

#include "transports/zmq/hub.hpp"
#include "transports/zmq/socket.hpp"

#include <cstdint>

namespace transports::zeromq {

class farewell final : public watcher {
 public:
  // How long a peer is given, as for every other way out.
  static constexpr std::int64_t goodbye_ns = 1'000'000'000;

  // `within` outlives it. The sockets are not watched by anybody any more.
  farewell(hub& within, socket dealer, monitor watching) noexcept;
  ~farewell();
  farewell(const farewell&) = delete;
  farewell& operator=(const farewell&) = delete;

  [[nodiscard]] bool is_over() const noexcept { return is_over_; }

  void stir(source what) noexcept override;
  void tick(std::int64_t now_ns) noexcept override;
  void rest() noexcept override {}

 private:
  hub& hub_;
  socket dealer_;
  monitor monitor_;
  watch_point messages_{this, source::messages};
  watch_point events_{this, source::events};
  std::int64_t until_ns_;
  bool is_over_ = false;
};

}  // namespace transports::zeromq
