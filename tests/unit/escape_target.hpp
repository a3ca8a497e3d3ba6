// The parent's side of the escapes: all that is tried for.
#pragma once

#include "bus/base/fd.hpp"
#include "tests/unit/escapes.hpp"

#include <string>
#include <vector>

namespace tests {

// Everything is there while this is.
class target {
 public:
  target();
  ~target();
  target(const target&) = delete;
  target& operator=(const target&) = delete;

  [[nodiscard]] const std::string& directory() const noexcept { return directory_; }
  [[nodiscard]] int told() const noexcept { return told_.get(); }
  [[nodiscard]] int terminal() const noexcept { return terminal_.get(); }
  // Puts everything in its place again.
  void restore();
  // How many signals of the attempts have come since the last call.
  [[nodiscard]] int signals_received();

 private:
  void listen();
  void open_terminal();

  std::string directory_;
  std::string secret_ = "nobody's business";
  target_layout layout_{};
  bus::fd told_;
  bus::fd terminal_;
  bus::fd terminal_master_;
  bus::fd signals_;
  std::vector<bus::fd> sockets_;
};

}  // namespace tests
