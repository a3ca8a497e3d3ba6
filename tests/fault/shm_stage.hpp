// The stage for tests of shared memory alone: parties with nothing but shm, in a bus directory of
// their own.
#pragma once

#include "tests/contract/world.hpp"
#include "tests/fault/processes.hpp"
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

// An open way into a party of another process.
inline bus::outbox& link(contract::party& from, std::uint64_t peer) {
  bus::outbox& way = from.connect({peer}, "shm:" + bus::to_hex(peer));
  contract::must(
      contract::pump_until({&from}, [&] { return way.state() != bus::link_state::opening; }),
      "opening");
  contract::must(way.state() == bus::link_state::open, "gone: " + way.reason().message());
  return way;
}

// A subscriber that checks `count` messages, drops them at once, and ends well.
inline void hear_all(const shm_world& stage, channel& parent, std::uint64_t count) {
  const auto self = stage.make();
  self->heard.keep = false;
  std::uint64_t last = 0;
  bool is_ordered = true;
  self->heard.on_sample = [&](const bus::sample& one) {
    is_ordered = is_ordered && one.head().sequence == ++last;
  };
  parent.say(self->id.value);
  contract::must(contract::pump_until({self.get()}, [&] { return self->heard.accepted == count; }),
                 "too few");
  contract::must(is_ordered && self->heard.unproved == 0, "wrong order, or torn");
  parent.say(count);
}

// A subscriber that holds `count` samples, says so, and is killed with them.
inline void hold(const shm_world& stage, channel& parent, std::uint64_t count) {
  const auto self = stage.make();
  parent.say(self->id.value);
  static_cast<void>(
      contract::pump_until({self.get()}, [&] { return self->heard.samples.size() == count; }));
  parent.say(self->heard.samples.size());
  static_cast<void>(parent.hear(std::chrono::minutes(1)));  // never
}

}  // namespace fault
