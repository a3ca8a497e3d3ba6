// inproc: links between the nodes of one process, on whatever threads, also of a node with itself.
// A message is never copied: sender and receiver share one reference-counted sample.
//
// An exchange introduces the nodes to each other. The process has one, process_exchange(); tests
// and libraries that want a world of their own make one. Nodes of two exchanges, of two processes
// above all, refuse each other's addresses with errc::unsupported.
#pragma once

#include "bus/link/transport.hpp"

#include <memory>

namespace transports {

class exchange;

// A new exchange that nobody else knows. Any thread.
[[nodiscard]] std::shared_ptr<exchange> make_exchange();
// The one of this process, always the same. Any thread. A function-local static is right for once:
// the process *is* this exchange. After fork() it starts empty in the child.
[[nodiscard]] std::shared_ptr<exchange> process_exchange();

// Links over `through`, which the maker and its transports keep alive. Making a transport fails
// with errc::exists if the node is there already, or with the kernel's error.
[[nodiscard]] bus::transport_maker inproc(std::shared_ptr<exchange> through = process_exchange());

}  // namespace transports
