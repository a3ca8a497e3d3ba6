// Anonymous shared memory (memfd) and its mappings. A memfd has no name and needs no cleaner: the
// kernel drops it with the last mapping. What is handed to a peer is reserved first (so that a
// shortage is an error here and never a SIGBUS there), sealed, and opened read-only.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace transports::shared {

// A range of address space with one owner.
class mapping {
 public:
  mapping() noexcept = default;
  mapping(mapping&& other) noexcept
      : at_(std::exchange(other.at_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  mapping& operator=(mapping&& other) noexcept {
    std::swap(at_, other.at_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  mapping(const mapping&) = delete;
  mapping& operator=(const mapping&) = delete;
  ~mapping();

  // The first `bytes` of `memory`, which may be shorter: what lies beyond its end is not touched.
  [[nodiscard]] static bus::result<mapping> readable(int memory, std::uint64_t bytes) noexcept;
  [[nodiscard]] static bus::result<mapping> writable(int memory, std::uint64_t bytes) noexcept;
  // Private, zero, and without cost until it is touched.
  [[nodiscard]] static bus::result<mapping> zeroes(std::uint64_t bytes) noexcept;

  // Of zeroes(): the kernel has the pages from `from` on, rounded up, back, and they are zero
  // again.
  void forget(std::uint64_t from) noexcept;

  [[nodiscard]] std::byte* at() const noexcept { return at_; }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  static bus::result<mapping> make(int memory, std::uint64_t bytes, int access, int flags) noexcept;
  std::byte* at_ = nullptr;
  std::uint64_t bytes_ = 0;
};

// A memfd of `bytes`, reserved; 0 is fine. `label` shows in /proc/PID/maps.
[[nodiscard]] bus::result<bus::fd> make_memory(const char* label, std::uint64_t bytes) noexcept;
// Makes the file `bytes` longer, from `end` on, with real pages behind it. The size changes last:
// nobody sees bytes that are not reserved. Errors: cgroup_full (seen before the kernel would have
// killed somebody for it), no_memory, no_space, or the kernel's.
[[nodiscard]] bus::result<void> extend(int memory, std::uint64_t end, std::uint64_t bytes) noexcept;
// Forbids all that would hurt a reader: shrinking, writing by anyone who has no mapping yet, and,
// unless the memory `grows`, growing.
[[nodiscard]] bus::result<void> seal(int memory, bool grows) noexcept;
// Where the kernel shows a descriptor of this process.
[[nodiscard]] std::string path_of(int descriptor);
// A read-only descriptor of the same memory, to hand to a peer.
[[nodiscard]] bus::result<bus::fd> hand_out(int memory) noexcept;

// The size of a stranger's memory. Errors: corrupt unless it is a memfd that is sealed as above and
// has a page behind each byte.
[[nodiscard]] bus::result<std::uint64_t> inspect(int memory) noexcept;

}  // namespace transports::shared
