// Everything that the nodes of one bus directory say of themselves, read at one moment: the input
// of explain() and of every report. A plain value; bus/node/census.hpp reads it from the files.
//
// Nothing here needs a node's help: cards, links and ledgers are files, so a stopped or killed node
// is in the census like any other.
#pragma once

#include "bus/base/ids.hpp"
#include "bus/route/ledger.hpp"
#include "schemas/bus/card.pb.h"
#include "schemas/bus/links.pb.h"

#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

namespace bus {

enum class liveness : std::uint8_t {
  alive,    // its lock is held
  dead,     // its lock is free: what is left can go (`bus gc`)
  unknown,  // we may not look
};

struct node_report {
  node_id id;
  liveness life = liveness::unknown;
  // What could not be read, is empty, and the error says why. A missing links file is no error: a
  // node that has met nobody has none.
  wire::Card card;
  std::error_code card_error;
  wire::Links links;
  std::error_code links_error;
  ledger_reading ledger;
  std::error_code ledger_error;
  // The process of the card's pid is stopped (SIGSTOP, a debugger), says /proc. Only a hint: the
  // pid may be one of another namespace.
  bool looks_stopped = false;
};

// A node on another machine. What is known of it, the nodes of this directory say in their links:
// its books are where it is.
struct remote_report {
  node_id id;
  wire::Card card;
  bool speaks = false;            // to one of our nodes at least; else it is hearsay
  std::vector<node_id> known_to;  // our nodes that know it
};

struct census {
  std::string directory;
  std::int64_t steady_ns = 0;  // when it was read
  std::vector<node_report> nodes;
  std::vector<remote_report> remotes = {};  // none of them among the nodes

  [[nodiscard]] const node_report* find(node_id id) const noexcept {
    for (const node_report& one : nodes) {
      if (one.id == id) return &one;
    }
    return nullptr;
  }
};

}  // namespace bus
