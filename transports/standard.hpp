// The bill of materials: which transports a program gets unless it chooses itself. main hands it to
// its node; node and transports never meet otherwise.
#pragma once

#include "bus/link/transport.hpp"

namespace transports {

// inproc, pipe, shm and zmq. The order does not matter: links rank them by their traits.
[[nodiscard]] bus::bill_of_transports standard();

}  // namespace transports
