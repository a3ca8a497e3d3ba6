// The shared-memory transport: a payload is written once, into the publisher's own memory, and read
// there by every subscriber on this host. README.md tells how; LAYOUT.md has every shared byte.
#pragma once

#include "bus/link/transport.hpp"

namespace transports {

// Scheme "shm". Making one binds `<directory>/<node id>.sock`; memory comes with the first lend().
// Errors: unsupported (no bus directory), exists (that id listens already), or the kernel's.
[[nodiscard]] bus::transport_maker shm();

}  // namespace transports
