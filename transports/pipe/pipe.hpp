// Links over pairs of pipes, which somebody has made and handed to both processes: see README.md
// for what is promised and what it costs, LAYOUT.md for the bytes.
#pragma once

#include "bus/link/transport.hpp"

#include <string>

namespace transports {

// Scheme "pipe". connect(peer, "pipe:IN,OUT") hands a pair over: two descriptor numbers, the pipe
// that we read and the pipe that we write, which belong to the transport from then on, under other
// numbers, so that they can be handed over once; on failure they are still the caller's. `peer` 0
// takes whoever is there. The outbox opens when the peer has plugged its ends in, too.
// connect(peer, "pipe:") is another outbox over the pair that is open to that peer. The pair lasts
// until one of the two processes or transports ends; where() is "pipe:".
//
// With "pipe:IN,OUT,pages", payloads from 4 KiB on are not copied into the pipe: it refers to
// their pages until the peer has read them. Only for a peer who may see whatever this process will
// ever write there: one who keeps such pages (splice, tee) sees what they are used for later.
//
// Errors of connect: bad_address (no descriptor, no pipe, the wrong end of it), gone (another pipe
// than was named, or numbers that were used before, `NUMBER@PIPE` names a pipe for good), exists
// (somebody writes to this pipe already), not_found, unsupported, or the kernel's.
//
// Destroying the transport waits until what was sent is in the pipe, and until it is read where it
// goes by page, at most one second.
[[nodiscard]] bus::transport_maker pipe();

struct pipe_pair {
  int in = -1;   // the pipe that the holder of the address reads
  int out = -1;  // the pipe that it writes
  bool lends_pages = false;
};
// The address of a pair, which names the pipes for good and so is never taken for another's. It
// also holds in a child that inherits the descriptors under the same numbers. Errors: bad_address.
[[nodiscard]] bus::result<std::string> pipe_address(const pipe_pair& ends);

}  // namespace transports
