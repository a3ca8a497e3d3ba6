// Reads what all nodes of a bus directory say of themselves. Only reads: it makes no directory, and
// joins nothing, so that a report changes nothing of what it reports.
#pragma once

#include "bus/node/rendezvous.hpp"
#include "bus/route/census.hpp"

namespace bus {

// Every node with a card there, in the order of their ids. Blocks for reading files,
// and for nothing else. What cannot be read is noted in the report of its node.
[[nodiscard]] census take_census(const rendezvous& place);

// The same of a node in no directory: what it knows of itself and of those whom it has met.
[[nodiscard]] census census_of(node_report own);

// Whether the node's lock is held, and whether we may know.
[[nodiscard]] liveness look_alive(int directory, node_id node) noexcept;

}  // namespace bus
