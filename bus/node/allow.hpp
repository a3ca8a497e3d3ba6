// What a child that is locked in may do on the bus, and what it may reach beside it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace bus {

// Patterns, as for subscriptions: "camera/*", "quakes/**". What is not named is refused, counted
// (`bus info`) and explained (`bus why`, there and in the child).
struct allow {
  std::vector<std::string> publish = {};
  std::vector<std::string> subscribe = {};
  // So many topics and patterns of it are passed on, each way: each costs us memory.
  std::size_t topics_max = 1024;
  // Files and trees that it may read and run, and such that it may change: beside its program and
  // what every program needs. See bus/base/confinement.hpp.
  std::vector<std::string> reads = {};
  std::vector<std::string> writes = {};
  // Names of variables of our environment that it gets, beside PATH, HOME, LANG and the like.
  std::vector<std::string> variables = {};
  // Start it also where the kernel cannot lock it in.
  bool even_if_open = false;
};

}  // namespace bus
