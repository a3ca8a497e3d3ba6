// What redis and nats have in common: a broker takes whatever is published, holds nobody back, and
// cuts off a subscriber for whom too much has piled up. So those who must not lose anything say how
// far they are: each sink publishes a receipt for every so many messages on a subject of its own,
// and the source goes no further ahead than the window: one small message for a quarter of it.
//
// Two subjects, one each way: the source publishes on `there` what it sends, and the others on
// `back` their first word (I am here), their receipts, or their answers.
#pragma once

#include "tests/bench/peer.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>

namespace peers {

class broker_party : public party {
 public:
  broker_party(part plays, const settings& run) : run_(run), plays_(plays) {
    // Of nats, 64 B, load 6, million/s: 2000 messages 0.64, 8192 0.64, 32,768 0.86, 131,072 0.81;
    // redis does not mind.
    const std::uint64_t usual = std::clamp<std::uint64_t>(window_bytes / run.size, 16, 32'768);
    const std::uint64_t window = run.queue != 0 ? run.queue : usual;
    step_ = std::max<std::uint64_t>(window / 4, 1);
    others_ = run.workload == "fanout" ? run.subscribers : 1;
  }

  void gather() final {
    for (std::uint64_t i = 0; i < others_; ++i) {
      if (!take(word_bytes)) fail("not all of the others came");
    }
  }
  bool send(std::uint64_t word) final {
    if (plays_ == part::source && count_++ % step_ == 0 && !has_room()) return false;
    if (!publish(word, run_.size)) return false;
    const bool more_follows = plays_ == part::source && word != round_ends && word != all_ends;
    if (more_follows) return true;
    return plays_ == part::source ? flush() : hasten();
  }
  std::optional<std::uint64_t> receive() final {
    const auto word = take(run_.size);
    if (word && plays_ == part::sink && ++count_ % step_ == 0) announce(count_);
    return word;
  }

 protected:
  // Says to the source that this party is there, or how far it is.
  void announce(std::uint64_t word) {
    if (!publish(word, word_bytes) || !hasten()) fail("cannot publish a receipt");
  }
  // A message of that many bytes, which may stay with the library until flush.
  [[nodiscard]] virtual bool publish(std::uint64_t word, std::uint64_t bytes) = 0;
  // Returns when the server has all messages; hasten returns before, and they are on their way.
  [[nodiscard]] virtual bool flush() = 0;
  [[nodiscard]] virtual bool hasten() = 0;
  // The next message, which has that many bytes; nothing within patience_ms: none.
  [[nodiscard]] virtual std::optional<std::uint64_t> take(std::uint64_t bytes) = 0;

  static constexpr std::uint64_t word_bytes = sizeof(std::uint64_t);
  static constexpr std::uint64_t here = 0;

  const settings& run_;
  const part plays_;

 private:
  static constexpr std::uint64_t window_bytes = 16ULL << 20;
  static constexpr std::uint64_t window_steps = 4;

  // Waits for receipts until at most a window of messages has none. They are not told apart: the
  // slowest sink is at most a window for each of them behind.
  bool has_room() {
    const std::uint64_t steps = count_ / step_;
    while (steps >= window_steps && receipts_ < (steps - window_steps + 1) * others_) {
      if (!hasten() || !take(word_bytes)) return false;
      ++receipts_;
    }
    return true;
  }

  std::uint64_t others_ = 1;
  std::uint64_t step_ = 1;
  std::uint64_t count_ = 0;  // messages sent by a source, or received by a sink
  std::uint64_t receipts_ = 0;
};

}  // namespace peers
