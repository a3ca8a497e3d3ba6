// A topic as the standard input of a program, as if it came through a pipe: lossless, since the
// subscription blocks, and over when those who published have left and everything is read. As a
// named pipe, it waits as long as nobody has come yet.
#pragma once

#include "bus/node/subscriber.hpp"
#include "bus/tool/session.hpp"
#include "bus/tool/stream_end.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <asio/awaitable.hpp>

namespace bus::tool {

class intake {
 public:
  struct manner {
    std::string pattern;
    bool keeps_open = false;  // also when the last publisher has left
    bool as_frames = false;   // each message behind its length, see framing.hpp
    // How long its publishers wait, each time that the program makes no room.
    std::chrono::nanoseconds block_for{};
  };
  // Throws bus::error (bad_name).
  intake(session& joined, const manner& how);

  // Writes what comes until the topic is over, nobody reads, or stop(); then closes it. One at a
  // time: the next one goes on with the next message.
  [[nodiscard]] asio::awaitable<void> feed(stream_end& into);
  // The program has ended, or nobody wants to wait for it.
  void stop();
  // Something has happened on the loop.
  void look();

  // Bytes that feed() took and their program did not read, as far as is known: what is in a pipe
  // that was closed at the end of a topic, nobody sees.
  [[nodiscard]] std::uint64_t unread_bytes() const noexcept { return unread_bytes_; }
  // Messages that have come and wait.
  [[nodiscard]] std::uint64_t waiting() const noexcept { return heard_.accounts().queued; }
  [[nodiscard]] std::uint64_t lost() const noexcept { return heard_.accounts().lost_in_all(); }
  [[nodiscard]] const std::string& pattern() const noexcept { return heard_.pattern(); }

 private:
  void gather();
  [[nodiscard]] bool is_over();

  manner how_;
  subscriber<raw> heard_;
  loop_signal stirred_;
  std::vector<std::byte> gathered_;  // taken, and not yet written
  stream_end* into_ = nullptr;
  bool had_source_ = false;
  std::uint64_t known_ = 0;  // publishers ever, when the last feed() ended
  std::uint64_t unread_bytes_ = 0;
};

}  // namespace bus::tool
