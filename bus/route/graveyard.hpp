// The nodes that are known to be gone, so that nobody's old news brings them back. A node's id is
// drawn anew for every life: whoever died never returns under it, and whoever could not be reached
// speaks for itself when it can be again. So a grave need only outlast what others may still say of
// the dead: it is bounded in time, and all of them in number.
#pragma once

#include "bus/base/ids.hpp"

#include <cstddef>
#include <cstdint>
#include <unordered_map>

namespace bus {

class graveyard {
 public:
  // Whatever the network: a thousand deaths within a minute are no longer told one from another.
  static constexpr std::size_t graves_max = 1024;

  // When there is no place, the grave that would end first makes one.
  void bury(node_id dead, std::int64_t until_ns);
  // It has spoken for itself.
  void raise(node_id living) { graves_.erase(living); }
  [[nodiscard]] bool holds(node_id one, std::int64_t now_ns) const;
  [[nodiscard]] std::size_t size() const noexcept { return graves_.size(); }

 private:
  std::unordered_map<node_id, std::int64_t> graves_;  // until when
};

}  // namespace bus
