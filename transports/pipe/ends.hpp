// Our two ends of a pair of pipes: the one that we read and the one that we write. Nothing here
// waits, and nothing raises SIGPIPE: where the kernel cannot be told so for one write (Linux 6.18),
// the signal is blocked in this thread around it, and taken away if it came. What the application
// has decided about SIGPIPE is never changed.
//
// Who writes to a pipe holds a lock on it (fcntl, the first byte). The kernel gives it to one
// process, so a pipe has one writer; a forked child does not inherit it, as it inherits the
// descriptors; and it ends with its process. witness.hpp has more.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/result.hpp"
#include "transports/pipe/address.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

#include <sys/uio.h>

namespace transports::pipes {

class ends {
 public:
  // The same name with the pipes' own numbers. Errors: bad_address (no descriptor, no pipe, the
  // wrong end, twice the same pipe), gone (another pipe than was named).
  [[nodiscard]] static bus::result<pair_name> examine(const pair_name& name);
  // Takes the descriptors over: under other numbers, so that nobody who was told the old ones takes
  // them once more; non-blocking (for all who share their open file, too) and close-on-exec from
  // now on. Errors: gone (somebody else took them just now), exists (another process writes to it),
  // or the kernel's; they are still the caller's then, unless another process came in between.
  // Requires: examine(name) == name, and no other descriptor of these pipes is ours.
  [[nodiscard]] static bus::result<ends> adopt(const pair_name& name);

  // How many bytes moved; 0: none just then. Errors: gone (nobody is at the other end), or the
  // kernel's.
  [[nodiscard]] bus::result<std::size_t> read(std::span<const iovec> into) noexcept;
  [[nodiscard]] bus::result<std::size_t> write(std::span<const iovec> from) noexcept;
  // The same without a copy: the pipe refers to these pages until they are read, and they may not
  // change before.
  [[nodiscard]] bus::result<std::size_t> lend(std::span<const iovec> from) noexcept;

  // Closes both; name() stays.
  void close() noexcept;

  // Bytes that we wrote and the peer has not read.
  [[nodiscard]] std::size_t unread() const noexcept;
  // Takes back what the peer has not read. False: it cannot be had (there is no /proc).
  [[nodiscard]] bool take_back_unread() noexcept;

  [[nodiscard]] int in() const noexcept { return in_.get(); }
  [[nodiscard]] int out() const noexcept { return out_.get(); }
  [[nodiscard]] const pair_name& name() const noexcept { return name_; }
  // Whether one of these pipes is ours.
  [[nodiscard]] bool shares_a_pipe_with(const pair_name& other) const noexcept;

 private:
  pair_name name_;
  bus::fd in_;
  bus::fd out_;
  bool can_be_quiet_ = true;  // as far as we know, the kernel can be told not to signal
};

}  // namespace transports::pipes
