// A topic that we publish for people, and lose nothing of: who blocks is waited for as long as it
// asks, and who does not, but has no place in its link, for as long as we have patience. So
// whatever fills us is slowed down, instead of overrunning those who listen.
//
// Patience is for a stall, as the deadline of a subscription that blocks is (docs/delivery.md): a
// subscriber that stands still is waited for once, and not once for each message.
#pragma once

#include "bus/node/publisher.hpp"
#include "bus/tool/session.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <asio/awaitable.hpp>

namespace bus::tool {

class outlet {
 public:
  using message = std::span<const std::byte>;

  struct manner {
    std::string topic;
    type_info type = codec<raw>::type();
    std::chrono::nanoseconds patience = std::chrono::seconds(1);
  };
  // Throws bus::error (bad_name). `joined` outlives the outlet.
  outlet(session& joined, const manner& how);

  // Waits for so many subscribers, proved by a message that they let go of; 0: for those that are
  // there already, and not for long (in no bus directory: for the first one). Throws failure:
  // timeout, or not_so, if the parent that has locked us in refuses this topic.
  void wait_subscribers(std::uint64_t wanted, double timeout_s);

  // Publishes, unless somebody is to be waited for; then nothing has happened. Throws failure when
  // the message cannot be published at all.
  [[nodiscard]] bool send_now(message one);
  [[nodiscard]] asio::awaitable<void> send(message one);
  // In their order; small ones travel together.
  [[nodiscard]] asio::awaitable<void> send(std::span<const message> all);
  // Waits until all have let go of what they were sent, as long as it becomes less.
  [[nodiscard]] asio::awaitable<void> drain();
  // Waits for nobody any more, now and later: what finds no place is lost, and counted.
  void abandon() noexcept { abandoned_ = true; }

  [[nodiscard]] const std::string& topic() const noexcept { return source_.topic(); }
  [[nodiscard]] std::uint64_t sent() const noexcept { return source_.sequence(); }
  // How often a subscriber missed a message, since it had no place for it.
  [[nodiscard]] std::uint64_t missed() const noexcept { return missed_; }

 private:
  [[nodiscard]] bool must_wait();
  [[nodiscard]] std::size_t send_batch(std::span<const message> all);
  [[nodiscard]] bool settle(const published& outcome, std::size_t bytes);
  [[nodiscard]] bool is_over() const noexcept { return abandoned_ || joined_.interrupted(); }
  [[nodiscard]] asio::awaitable<void> wait();

  session& joined_;
  type_info type_;
  std::chrono::nanoseconds patience_;
  publisher<raw> source_;
  std::int64_t stalled_since_ns_ = 0;  // 0: it is not
  std::uint64_t missed_ = 0;
  bool abandoned_ = false;
};

}  // namespace bus::tool
