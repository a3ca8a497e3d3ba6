// Who looks over a node's shoulder: a gateway, inside of which the node is (gateway.hpp). It hears
// who came and went, and says what they may announce.
#pragma once

#include "bus/base/ids.hpp"
#include "schemas/bus/control.pb.h"

namespace bus {

class overseer {
 public:
  // A peer has introduced itself, or its card has changed. False: it is to be forgotten.
  [[nodiscard]] virtual bool met(const wire::Introduce& words) = 0;
  // It is gone, and everything that it had sent has been handed out and counted.
  virtual void lost(node_id peer) = 0;
  // Whether that publisher's messages are taken at all.
  [[nodiscard]] virtual bool admits(node_id from, const wire::Attach& words) = 0;
  // Messages have come of a publisher that was not admitted.
  virtual void turned_away(std::uint64_t messages) noexcept = 0;
  // Adds to an introduction what only we know.
  virtual void complete(wire::Introduce& words) const = 0;

 protected:
  ~overseer() = default;
};

}  // namespace bus
