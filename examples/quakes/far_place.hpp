// Where the observer lives: "another machine" on this one. With the rights for it, a network
// namespace of its own behind a pair of virtual cables; else loopback TCP. Either way it shares no
// bus directory with the others, so that nothing but the network joins them.
//
// The namespace has no name: it is held by a descriptor alone, and when the last one closes, by
// whatever death, the kernel removes it together with both ends of the cable.
#pragma once

#include "bus/base/fd.hpp"

#include <string>

namespace demo {

struct far_place {
  bus::fd network;          // empty over loopback
  std::string near_listen;  // for everybody here
  std::string far_listen;   // for the observer; everybody's peer
  std::string words;        // what this is and why, for people
};

// Never fails: what a namespace needs and we have not is said in `words`.
[[nodiscard]] far_place make_far_place(bool try_namespace);

}  // namespace demo
