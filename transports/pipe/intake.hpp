// What comes over one pipe: bytes, cut anywhere, made into records again.
//
//   hello --> head --(message)--> payloads --> head ...
//               \----(more)-----------------/
//               \----(release)--> runs -----/
//                \---(bye)-----------------/
//
// Small records are read many at once into a buffer, and their payloads copied out of it into
// memory of their own. The rest of large payloads is read to where they will stay. Nobody is
// believed: a record that no correct peer writes is an error, after which nothing more is read.
#pragma once

#include "bus/link/loan.hpp"
#include "transports/pipe/ends.hpp"
#include "transports/pipe/wire.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>

namespace transports::pipes {

// Who is told what came. An error ends the reading, and is what receive() returns.
class listener {
 public:
  [[nodiscard]] virtual bus::result<void> greeted(const hello_layout& hello) = 0;
  // A message with this frame begins. Gives the memory for its payload.
  [[nodiscard]] virtual bus::result<bus::loan> announced(const bus::frame& head,
                                                         std::uint32_t credit) = 0;
  virtual void arrived(bus::loan payload, const bus::frame& head, std::uint32_t credit) = 0;
  [[nodiscard]] virtual bus::result<void> released(bus::credit_run run) = 0;
  [[nodiscard]] virtual bus::result<void> parted() = 0;

 protected:
  ~listener() = default;
};

class intake {
 public:
  // Reads what there is, and tells of at most `most` messages and byes. True: there may be more,
  // here or in the pipe; false: the pipe was found empty. Errors: gone (the pipe has ended, and all
  // whole records were told), bad_message, or the listener's.
  [[nodiscard]] bus::result<bool> receive(ends& from, listener& to, std::size_t most);

  // Read since ever.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  enum class part : std::uint8_t { hello, head, runs, payloads };
  // A message whose head has come.
  struct announced {
    bus::loan memory;
    bus::frame frame;
    std::uint32_t credit;
    [[nodiscard]] std::span<std::byte> payload() const noexcept {
      return memory.bytes().first(frame.bytes);
    }
  };

  [[nodiscard]] bus::result<void> parse(listener& to, std::size_t most, std::size_t& told);
  // False: not enough is there.
  [[nodiscard]] bus::result<bool> parse_hello(listener& to);
  [[nodiscard]] bus::result<bool> parse_head(listener& to, std::size_t& told);
  [[nodiscard]] bus::result<bool> parse_runs(listener& to);
  [[nodiscard]] bus::result<bool> parse_message(listener& to, const head_layout& head);
  [[nodiscard]] bus::result<bool> parse_payload(listener& to, std::size_t& told);
  [[nodiscard]] bus::result<bool> fill(ends& from);
  [[nodiscard]] std::span<const std::byte> buffered() const noexcept {
    return {buffer_.get() + begin_, end_ - begin_};
  }

  std::uint64_t bytes_ = 0;
  part at_ = part::hello;
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::uint32_t runs_left_ = 0;
  // Messages under way, in order, and how many bytes of their payloads are there.
  std::deque<announced> announced_;
  std::uint64_t filled_ = 0;
  std::uint64_t announced_bytes_ = 0;
  std::size_t expected_heads_ = 0;  // as many as came before the last payloads; 0: those were small
};

}  // namespace transports::pipes
