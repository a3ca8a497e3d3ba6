// The stage for tests of shared memory alone: parties with nothing but shm, in a bus directory of
// their own.
#pragma once

#include "tests/contract/world.hpp"
#include "transports/shm/shm.hpp"

#include <filesystem>
#include <string>
#include <utility>

namespace fault {

struct shm_case {
  static bus::transport_maker maker() { return transports::shm(); }
  static void prepare(bus::transport_setup& setup, const std::string& scratch) {
    setup.directory = scratch;
  }
};
using shm_world = contract::world<shm_case>;

// What must be there, or the test is over.
template <class T>
T got(bus::result<T> from) {
  contract::must(from.has_value(), from.error().message());
  return std::move(*from);
}

// Of this process; the one that counts is among them.
inline std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

}  // namespace fault
