// The sender's end of one link: a ring of entries that the peer reads, and the samples that the
// peer still holds.
//
// Each sample in flight has a credit, one of `depth`. The peer flips the credit's bit in its
// answers when it lets go, in any order and from any thread; we compare with the bits seen before.
// Credits also keep the ring safe: an entry is used again only `depth` messages later, when its
// reader must have released something sent after it, and so has read it.
//
// A hostile peer can flip what it likes: it can keep or free its own credits, and nothing else.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/result.hpp"
#include "bus/link/sample.hpp"
#include "transports/shm/arena.hpp"
#include "transports/shm/layout.hpp"
#include "transports/shm/memory.hpp"

#include <atomic>
#include <cstdint>
#include <vector>

namespace transports::shared {

class lane_out {
 public:
  // Makes the lane's memory. `depth`: a power of two, at most depth_max. Errors: the kernel's.
  [[nodiscard]] static bus::result<lane_out> make(std::uint32_t depth);

  // Read-only descriptor of the lane, for the receiver.
  [[nodiscard]] bus::result<bus::fd> hand_out() const noexcept {
    return shared::hand_out(file_.get());
  }
  // The receiver's answers. Errors: corrupt or incompatible unless they fit this lane.
  [[nodiscard]] bus::result<void> open(const bus::fd& answers);

  [[nodiscard]] bool has_credit() const noexcept { return !free_.empty(); }
  [[nodiscard]] std::size_t in_flight() const noexcept { return held_.size() - free_.size(); }
  [[nodiscard]] std::uint32_t depth() const noexcept {
    return static_cast<std::uint32_t>(held_.size());
  }
  // Whether so much was sent since the last scan that another one is worth two cache lines.
  [[nodiscard]] bool scan_due() const noexcept {
    return sent_since_scan_ >= scan_after_messages || bytes_since_scan_ >= scan_after_bytes;
  }

  // Publishes one entry. `given` is what the user sent; `copied` is the copy in the arena, if there
  // had to be one. Both are held until the credit is home. Requires: has_credit().
  void push(const bus::sample& given, bus::sample&& copied, std::uint64_t offset) noexcept;
  // Takes back what the peer let go of; returns how many samples. Requires: arena::returning, if
  // the arena's slots shall come home cheaply.
  std::size_t scan() noexcept;
  // Forgets the peer: takes everything back at once.
  void reclaim() noexcept;
  // Asks the receiver to ring our bell when it releases something, or stops asking.
  void ask(bool wanted) noexcept;

 private:
  // Guesses, between the price of a scan (about 0.2 us) and the cache that waiting slots cover.
  static constexpr std::uint32_t scan_after_messages = 64;
  static constexpr std::uint64_t scan_after_bytes = 256 << 10;

  struct held_samples {
    bus::sample given;
    bus::sample copied;
  };

  [[nodiscard]] lane_layout& head() const noexcept {
    return *reinterpret_cast<lane_layout*>(lane_.at());
  }
  [[nodiscard]] entry_layout& entry(std::uint64_t number) const noexcept {
    return entries_[number & (held_.size() - 1)];
  }

  bus::fd file_;
  mapping lane_;
  mapping answers_;
  entry_layout* entries_ = nullptr;
  const std::atomic<std::uint64_t>* bits_ = nullptr;
  std::uint64_t next_ = 0;  // entries published so far
  std::uint32_t depth_log2_ = 0;
  std::uint32_t sent_since_scan_ = 0;
  std::uint64_t bytes_since_scan_ = 0;
  bool asking_ = false;
  std::vector<std::uint32_t> free_;  // credits at home; the one that came last is used first
  std::vector<held_samples> held_;   // by credit
  std::vector<std::uint64_t> out_;   // by credit, a bit: the peer has it
  std::vector<std::uint64_t> seen_;  // by credit, a bit: the parity when it was last at home
};

}  // namespace transports::shared
