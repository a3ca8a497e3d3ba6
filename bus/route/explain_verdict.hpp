// What all that was found means together: the state of the topic, the first broken step and what to
// do about it. When one side is missing, the likeliest reason for that.
#pragma once

#include "bus/route/explain.hpp"

#include <string>
#include <vector>

namespace bus::explaining {

// Who has to do with a topic, gathered from a census that outlives it.
struct findings {
  explicit findings(const census& from) : seen(from) {}

  const census& seen;
  explanation told;  // all but the verdict
  std::vector<const node_report*> living;
  std::vector<const node_report*> sources;  // of the living, those who publish
  std::vector<const node_report*> targets;  // and those who subscribe
  // A sentence about the last dead node that did so; empty when there is none.
  std::string dead_publisher;
  std::string dead_subscriber;
  bool unreadable = false;  // there is a card that we may not read
};

[[nodiscard]] explanation judge(findings&& found);

}  // namespace bus::explaining
