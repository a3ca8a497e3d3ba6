// What a process has heard, kept so that its own death costs nothing: an append-only file of
// entries, each written before it is counted. Kill -9 loses nothing that was written (the kernel
// has it); a crash of the machine is out of the demo's scope, so nothing is fsync'd.
//
// One record: length (4 bytes, little-endian), the low half of hash64 of the entry (4 bytes), the
// entry. A record that a death cut short is recognised by either, and cut off at the next start.
#pragma once

#include "bus/base/fd.hpp"
#include "examples/quakes/words.pb.h"

#include <string>
#include <vector>

namespace demo {

class journal {
 public:
  // Opens or creates the file, and cuts off a torn end. Throws std::runtime_error.
  explicit journal(const std::string& path);
  // What was in the file when it was opened.
  [[nodiscard]] const std::vector<Entry>& before() const noexcept { return before_; }
  // Throws std::runtime_error when the disk is full.
  void append(const Entry& entry);

  // All whole records of a file; none if there is no file.
  [[nodiscard]] static std::vector<Entry> read(const std::string& path);

 private:
  bus::fd file_;
  std::vector<Entry> before_;
};

}  // namespace demo
