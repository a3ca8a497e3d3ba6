// Whether the process at the other end lives, by the kernel's word. The end of its pipe says so
// only if nobody else has that pipe open for writing, and any child that somebody forked may have.
//
// The peer's lock on the pipe that we read (ends.hpp) is proof of more: the kernel tells which
// process holds it, and no other inherits it. So that process is watched by its pidfd. Where there
// is none to be had (a sandbox, an old kernel, another pid namespace), the lock is looked at again
// each second. A peer that holds no lock, which no node of ours does, is known by the end of its
// pipe alone; and so is one in our own process.
#pragma once

#include "bus/base/fd.hpp"

#include <cstdint>
#include <string>

#include <sys/types.h>

namespace transports::pipes {

class witness {
 public:
  static constexpr std::int64_t look_every_ns = 1'000'000'000;

  // Finds out who writes to the pipe that `in` reads.
  void look(int in) noexcept;
  // Readable when it is dead; -1: there is no such descriptor.
  [[nodiscard]] int descriptor() const noexcept { return process_.get(); }
  // Whether is_dead() is to be asked now and then.
  [[nodiscard]] bool must_ask() const noexcept { return held_ && !process_; }
  // Whether the lock that was there is gone.
  [[nodiscard]] bool is_dead(int in) const noexcept;
  // For people.
  [[nodiscard]] std::string describe() const;

 private:
  bool held_ = false;
  pid_t holder_ = 0;  // 0: of no number here
  bus::fd process_;
};

}  // namespace transports::pipes
