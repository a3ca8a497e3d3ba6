// A parent in a bus directory of its own, and the children that it starts.
#pragma once

#include "bus/bus.hpp"
#include "tests/calm_sanitizers.hpp"
#include "tests/scratch.hpp"
#include "transports/pipe/pipe.hpp"
#include "transports/shm/shm.hpp"

#include <chrono>
#include <csignal>
#include <cstdint>
#include <initializer_list>
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

// All turn until it is done, or the patience is over.
template <class Done>
[[nodiscard]] bool turn_all(std::initializer_list<bus::node*> nodes, Done&& done) {
  const auto until = bus::deadline::after(patience);
  while (!done()) {
    if (until.passed()) return false;
    for (bus::node* const one : nodes) one->run_for(std::chrono::milliseconds(1));
  }
  return true;
}

struct family {
  scratch_directory scratch;
  bus::node parent;

  family() : parent(options("parent")) {}
  [[nodiscard]] bus::node_options options(const std::string& name) const {
    bus::node_options made = kin(name);
    made.directory = scratch.path();
    return made;
  }
  // This program once more, as a child: a case of it that is hidden from everybody else.
  [[nodiscard]] bus::child start(const std::string& hidden_case, bus::spawn_options options = {}) {
    if (options.sandbox) {
      options.environment.insert(options.environment.end(), calm_sanitizers.begin(),
                                 calm_sanitizers.end());
    }
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
    return turn_all({&parent}, done);
  }
};

// A family, and somebody else in the parent's directory.
struct household : family {
  bus::node other;

  household() : other(options("other")) {}
  template <class Done>
  [[nodiscard]] bool turn_both(Done&& done) {
    return turn_all({&parent, &other}, done);
  }
};

// What a child does that is to be killed: it publishes 1, 2, 3 ... and waits for whoever blocks.
[[nodiscard]] inline bool count_for_ever(const std::string& topic) {
  std::signal(SIGTERM, SIG_DFL);  // Catch would report it as a failure
  bus::node here(kin("child"));
  auto numbers = here.advertise<reading>(topic);
  if (!numbers.wait_matched(1, patience)) return false;
  for (std::uint64_t i = 1;; ++i) {
    if (!numbers.publish_wait(reading{i}, patience)) return false;
  }
}

}  // namespace tests
