// Links between nodes over TCP, carried by libzmq: see README.md for what is promised and what it
// costs, LAYOUT.md for the bytes.
#pragma once

#include "bus/link/transport.hpp"

namespace transports {

// Scheme "zmq". Each address of transport_setup::listen ("tcp://*:7400", "tcp://10.0.0.1:7400",
// "tcp://127.0.0.1:*") is bound when the transport is made; if its port is taken, another one of
// the same interface is bound instead, so that the first node of a machine is its door and all the
// others work too. With nothing to listen to, the node can only send, and where() is empty.
//
// Making one fails with: bad_address; denied (an address beyond loopback without
// transport_setup::insecure, since nothing is encrypted or authenticated); or the kernel's error
// (an address that is not this machine's).
//
// Sockets, context and I/O thread are made at the first bind or connect. Destroying the transport
// waits for what was sent and is not yet on the wire, at most one second.
[[nodiscard]] bus::transport_maker zmq();

}  // namespace transports
