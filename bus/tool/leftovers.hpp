// What the dead have left in a bus directory, and only that. A node is dead when its ledger's lock
// can be had, which the kernel grants only when nobody holds it; a file that could still be
// somebody's beginning is left alone until it is a minute old.
#pragma once

#include "bus/node/rendezvous.hpp"

#include <string>
#include <vector>

namespace bus::tool {

struct leftover {
  std::string path;    // below the bus directory
  std::string reason;  // "its node seismograph is dead"
  // A living node has subscriptions that heard it, and has not read its last words yet: it is to
  // stay until then, or what was published and never came would be missed by nobody.
  bool is_awaited = false;
};

// Reads the directory, its cards and ledgers. Blocks for nothing else.
[[nodiscard]] std::vector<leftover> find_leftovers(const rendezvous& place);

// Removes one, after a second look. Errors: exists (it is in use after all), denied, or the
// kernel's. A file that is gone already is no error.
[[nodiscard]] result<void> remove_leftover(const rendezvous& place, const leftover& one);

}  // namespace bus::tool
