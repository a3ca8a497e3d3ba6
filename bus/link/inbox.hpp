// Everything that arrives over one transport, from all peers. Used from the node's own thread only;
// no call blocks.
//
// How to sleep without missing anything: arm the node's bell, arm() every inbox; if one says false,
// disarm and poll; else sleep until the bell rings or a wait_handle() is readable.
#pragma once

#include "bus/base/ids.hpp"
#include "bus/base/result.hpp"
#include "bus/link/refusal.hpp"
#include "bus/link/sample.hpp"

#include <cstddef>
#include <span>

namespace bus {

// Where an inbox puts what it found.
class sink {
 public:
  // One sample, in order per peer. `arrived.head()` is a checked private copy, and its `node` is
  // the peer that the link belongs to, whatever the sender wrote there.
  virtual void accept(sample&& arrived) noexcept = 0;
  // A peer's way into us has ended; everything that it sent before was accepted before.
  virtual void left(node_id peer, std::error_code reason) noexcept = 0;

 protected:
  ~sink() = default;
};

class inbox {
 public:
  virtual ~inbox() = default;
  inbox() = default;
  inbox(const inbox&) = delete;
  inbox& operator=(const inbox&) = delete;

  // Hands at most `budget` messages to `into`, taking turns between peers; returns how many. A
  // batch is handed over whole: the last one may go beyond. Makes no system call where the
  // transport shares memory.
  virtual std::size_t poll(std::size_t budget, sink& into) noexcept = 0;

  // Looks after what the data path does not: newcomers, handshakes, deaths. To be called when
  // wait_handle() is readable.
  virtual void attend(sink& into) noexcept = 0;

  // Readable when attend() (or poll(), for transports without shared memory) has something to do.
  // Owned by the inbox. Level-triggered. -1 if there never is anything; it may be another one after
  // the first connect().
  [[nodiscard]] virtual int wait_handle() noexcept = 0;

  // True: nothing is here, and from now on an arrival rings the node's bell or makes wait_handle()
  // readable. False: something came first.
  [[nodiscard]] virtual bool arm() noexcept = 0;
  virtual void disarm() noexcept = 0;

  // Whom it did not let in, and why. The tallies' order is for ever; good until the next call of
  // another function.
  [[nodiscard]] virtual std::span<const refusal_tally> refused() const noexcept { return {}; }
};

}  // namespace bus
