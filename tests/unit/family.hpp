// A parent in a bus directory of its own, and the children that it starts.
#pragma once

#include "bus/bus.hpp"
#include "tests/scratch.hpp"
#include "transports/pipe/pipe.hpp"
#include "transports/shm/shm.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

namespace tests {

struct reading {
  std::uint64_t number;
};

inline constexpr std::chrono::seconds patience{30};

// What a parent and its children may have in common.
inline bus::node_options kin(const std::string& name) {
  return {.name = name, .transports = {transports::pipe(), transports::shm()}};
}

struct family {
  scratch_directory scratch;
  bus::node parent;

  family() : parent(options()) {}
  [[nodiscard]] bus::node_options options() const {
    bus::node_options made = kin("parent");
    made.directory = scratch.path();
    return made;
  }
  // This program once more, as a child: a case of it that is hidden from everybody else.
  [[nodiscard]] bus::child start(const std::string& hidden_case, bus::spawn_options options = {}) {
    return bus::spawn(parent, {"/proc/self/exe", hidden_case}, std::move(options));
  }
  [[nodiscard]] bus::child shell(const std::string& script, bus::spawn_options options = {}) {
    return bus::spawn(parent, {"sh", "-c", script}, std::move(options));
  }
  [[nodiscard]] std::string file(const std::string& name) const {
    return scratch.path() + "/" + name;
  }
  template <class Done>
  [[nodiscard]] bool turn(Done&& done) {
    const auto until = bus::deadline::after(patience);
    while (!done()) {
      if (until.passed()) return false;
      parent.run_for(std::chrono::milliseconds(1));
    }
    return true;
  }
};

}  // namespace tests
