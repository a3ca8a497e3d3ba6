// One connection to one peer, as the end that dialled it or was dialled by it holds it: whole
// messages in both directions, in order, until it ends. It never comes back; a new one is another
// line.
//
// Mostly the sender dials: its DEALER calls the receiver's ROUTER. A node that listens nowhere
// cannot be called, so it dials once more for the way back: with an offer instead of a hello, after
// which the node that was called sends its hello over that line, and is the sender on it.
#pragma once

#include "transports/zmq/hub.hpp"
#include "transports/zmq/socket.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <system_error>

namespace transports::zeromq {

// silent: nothing more leaves. settled: a bye, and nothing of what was sent is missed. owing: what
// was sent still leaves and a bye behind it, and the peer is given time to answer it.
enum class parting : std::uint8_t { silent, settled, owing };

class line {
 public:
  virtual ~line() = default;
  line() = default;
  line(const line&) = delete;
  line& operator=(const line&) = delete;

  // False: not taken, and still the caller's.
  [[nodiscard]] virtual bool send(message& one) noexcept = 0;
  [[nodiscard]] bool send(std::span<const std::byte> copied) noexcept;
  [[nodiscard]] virtual bool receive(message& into) noexcept = 0;
  // Why it has ended; a default error_code while it goes on.
  [[nodiscard]] virtual std::error_code ended() noexcept = 0;
  // The last call.
  virtual void hang_up(parting how) noexcept = 0;
};

// A line that we dialled: a DEALER with one connection and no reconnecting, and its monitor.
class dialled final : public line {
 public:
  struct limits {
    int received_max;        // messages that wait for us
    int sent_max;            // messages that wait for the peer; 0: the caller counts
    std::int64_t bytes_max;  // of one message that comes
  };
  // `owner` is stirred by what comes (messages) and by the line's end (events); it outlives the
  // line. Errors: the kernel's.
  [[nodiscard]] static bus::result<std::unique_ptr<dialled>> open(std::shared_ptr<hub> within,
                                                                  watcher& owner,
                                                                  const std::string& endpoint,
                                                                  const limits& bounds);
  ~dialled() override { hang_up(parting::silent); }

  using line::send;
  [[nodiscard]] bool send(message& one) noexcept override { return dealer_.send(one); }
  [[nodiscard]] bool receive(message& into) noexcept override {
    return dealer_ && dealer_.receive(into);
  }
  [[nodiscard]] std::error_code ended() noexcept override;
  void hang_up(parting how) noexcept override;
  [[nodiscard]] bool readable() noexcept { return dealer_.readable(); }

 private:
  dialled(std::shared_ptr<hub> within, watcher& owner);

  std::shared_ptr<hub> hub_;
  socket dealer_;
  monitor monitor_;
  watch_point messages_;
  watch_point events_;
};

}  // namespace transports::zeromq
