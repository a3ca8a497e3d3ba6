// Our way into one peer. It is made by transport::connect, opens in the background, and is used
// from the node's own thread only. No call blocks.
//
//   opening --(the peer answered)--> open --(death, hang-up, broken rule)--> gone
//      \------(refused, nobody there)-------------------------------------/
#pragma once

#include "bus/base/result.hpp"
#include "bus/link/sample.hpp"

#include <cstdint>
#include <span>
#include <string>

namespace bus {

enum class link_state : std::uint8_t { opening, open, gone };

// How a sleeper was woken; the order is the order of preference.
enum class rung : std::uint8_t { none, semaphore, signal, event, socket };

// Running totals of one link since it was made. Messages unless said otherwise.
struct link_figures {
  std::uint64_t taken = 0;
  std::uint64_t full = 0;     // offered, but not taken for want of room
  std::uint64_t bytes = 0;    // payload bytes taken
  std::uint64_t copied = 0;   // taken, but copied because the memory was foreign
  std::uint64_t wakeups = 0;  // system calls made to wake the peer
  std::uint64_t fallen = 0;   // of them, on the next rung, because a signal was refused
};

class outbox {
 public:
  // Lets go of the peer. Memory that a live peer still reads stays lent until it comes home or the
  // peer dies; memory that only a dead peer held is free at once.
  virtual ~outbox() = default;
  outbox() = default;
  outbox(const outbox&) = delete;
  outbox& operator=(const outbox&) = delete;

  // Offers samples in order; returns how many were taken from the front. Fewer than offered means
  // "full" (or still opening), which is no error. Keeps a reference to each sample taken until the
  // peer has let go of it, and copies only what lies in memory that the peer cannot see.
  // Errors: gone (see reason()), too_big (the first sample is larger than bytes_max).
  [[nodiscard]] virtual result<std::size_t> send(std::span<const sample> batch) noexcept = 0;

  // The same for one sample that the caller has no more use for: if it was taken, it was moved out
  // of `one`, and nobody had to count a reference up and down, which costs more than the rest of a
  // small message. Returns 0 or 1, and the errors of send().
  [[nodiscard]] virtual result<std::size_t> give(sample&& one) noexcept {
    const auto taken = send({&one, 1});
    if (taken && *taken == 1) one = sample();
    return taken;
  }

  // The place where the peer will read a message of so many bytes, to be written there and sent by
  // commit(): it needs no memory that is lent. Null: this way has no such places, or none for such
  // a message, or none is free now; then send() or give() may still take it. The place is void
  // after any other call; who does not commit() has sent nothing.
  [[nodiscard]] virtual std::byte* claim(std::uint64_t /*bytes*/) noexcept { return nullptr; }
  // Sends what was written there, with its frame. Requires: claim(head.bytes) gave a place, and no
  // other call since.
  virtual void commit(const frame& /*head*/) noexcept {}

  [[nodiscard]] virtual link_state state() const noexcept = 0;
  // Why it is gone; a default error_code before that.
  [[nodiscard]] virtual std::error_code reason() const noexcept = 0;

  // Asks to have our own bell rung, once, at the next change: it opened, the peer let go of
  // something, or it is gone. False: something has changed since arm() last said so, do not sleep.
  // That another call has seen the change meanwhile, such as unsettled(), does not count: who
  // decided to sleep may have looked before it.
  [[nodiscard]] virtual bool arm() noexcept = 0;

  // How many samples the peer has been sent and not yet let go of.
  [[nodiscard]] virtual std::size_t unsettled() noexcept = 0;
  // Whether a payload of so many bytes has room beside what is on the way, where not only samples
  // are bounded but bytes, too.
  [[nodiscard]] virtual bool has_room_for(std::uint64_t /*bytes*/) noexcept { return true; }

  [[nodiscard]] virtual link_figures figures() const noexcept = 0;
  // One line for people: who is there and how it is woken, as proved by the kernel where possible.
  [[nodiscard]] virtual std::string describe() const = 0;
};

}  // namespace bus
