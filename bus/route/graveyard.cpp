#include "bus/route/graveyard.hpp"

#include <algorithm>

namespace bus {

void graveyard::bury(node_id dead, std::int64_t until_ns) {
  if (graves_.size() >= graves_max && !graves_.contains(dead)) {
    graves_.erase(std::min_element(
        graves_.begin(), graves_.end(),
        [](const auto& one, const auto& other) { return one.second < other.second; }));
  }
  graves_[dead] = until_ns;
}

bool graveyard::holds(node_id one, std::int64_t now_ns) const {
  const auto at = graves_.find(one);
  return at != graves_.end() && now_ns < at->second;
}

}  // namespace bus
