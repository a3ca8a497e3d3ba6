// Credits of a link that copies bytes. Each sample on the way occupies one, numbered 0 to depth -
// 1, and its bytes, until the receiver has let go of it; in whatever order that happens, the
// receiver reports it as runs of numbers. Both ends count for themselves, so that none can cheat
// the other:
//
//   purse   the sender's: which credits are free, and the samples that occupy the others
//   tab     the receiver's: which credits are occupied, and which are let go of and not yet
//   reported
#pragma once

#include "bus/link/sample.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace bus {

struct credit_run {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
};
static_assert(sizeof(credit_run) == 8, "as it travels");

class purse {
 public:
  // Empty until it is filled.
  void fill(std::uint32_t depth, std::uint64_t bytes_max);
  // Drops all samples, and is empty again.
  void clear() noexcept;

  // Whether a payload of `bytes` has room behind so many others that are not in it yet.
  [[nodiscard]] bool has_room(std::uint64_t bytes, std::size_t samples_before = 0,
                              std::uint64_t bytes_before = 0) const noexcept {
    return in_flight_ + samples_before < slots_.size() &&
           bytes <= bytes_max_ - std::min(bytes_max_, bytes_in_flight_ + bytes_before);
  }
  // The credit that the next sample but `ahead` will occupy. Requires: there is one.
  [[nodiscard]] std::uint32_t next(std::size_t ahead = 0) const noexcept {
    return free_[(free_head_ + ahead) % free_.size()];
  }
  // Keeps a reference to `one` under next(). Requires: has_room(its bytes).
  void occupy(const sample& one) noexcept;
  // Lets go of the samples of a run. False: the peer returned what it does not have.
  [[nodiscard]] bool take_back(credit_run run) noexcept;

  // Requires: `credit` is occupied.
  [[nodiscard]] const sample& held(std::uint32_t credit) const noexcept {
    return slots_[credit].held;
  }
  [[nodiscard]] std::size_t depth() const noexcept { return slots_.size(); }
  [[nodiscard]] std::uint64_t bytes_max() const noexcept { return bytes_max_; }
  [[nodiscard]] std::size_t in_flight() const noexcept { return in_flight_; }
  [[nodiscard]] std::uint64_t bytes_in_flight() const noexcept { return bytes_in_flight_; }

 private:
  struct slot {
    sample held;
    std::uint64_t bytes = 0;
  };

  std::vector<slot> slots_;
  std::vector<std::uint32_t> free_;  // a ring, so that credits come and go in order
  std::uint64_t free_head_ = 0;
  std::uint64_t free_tail_ = 0;
  std::uint64_t bytes_max_ = 0;
  std::size_t in_flight_ = 0;
  std::uint64_t bytes_in_flight_ = 0;
};

class tab {
 public:
  void open(std::uint32_t depth, std::uint64_t bytes_max);
  [[nodiscard]] bool is_open() const noexcept { return !held_.empty(); }

  // Whether the sender may send this: a free credit, and within its bytes.
  [[nodiscard]] bool may_use(std::uint32_t credit, std::uint64_t bytes) const noexcept {
    return credit < held_.size() && !held_[credit] && bytes <= bytes_max_ - unreported_bytes_;
  }
  // It arrived. Requires: may_use(credit, bytes).
  void use(std::uint32_t credit, std::uint64_t bytes) noexcept;
  // It was let go of, and is owed to the sender from now on.
  void release(std::uint32_t credit, std::uint64_t bytes);

  [[nodiscard]] bool owes() const noexcept { return released_ > 0; }
  // Whether the sender may soon have to wait for what it is owed: much was let go of, or little is
  // left to it. `bytes_much` bounds what may lie there unreported.
  [[nodiscard]] bool is_missed(std::uint64_t bytes_much) const noexcept {
    return released_ >= held_.size() / 4 || released_bytes_ >= bytes_much ||
           unreported_ >= held_.size() / 4 * 3 || unreported_bytes_ >= bytes_max_ / 4 * 3;
  }
  // What is owed; the order of the runs is that in which they were let go of.
  [[nodiscard]] std::span<const credit_run> owed() const noexcept { return runs_; }
  // All that is owed was reported.
  void settle() noexcept;

 private:
  std::vector<bool> held_;
  std::uint64_t bytes_max_ = 0;
  std::uint64_t unreported_ = 0;  // samples that the sender believes in flight
  std::uint64_t unreported_bytes_ = 0;
  std::vector<credit_run> runs_;
  std::uint64_t released_ = 0;  // credits in runs_
  std::uint64_t released_bytes_ = 0;
};

}  // namespace bus
