// Which transport each link uses, and why: read from the decisions that the nodes keep in their bus
// directories, as `bus why` does. Links between the same kinds of processes, decided for the same
// reasons, are told as one.
#pragma once

#include "bus/node/rendezvous.hpp"

#include <string>
#include <vector>

namespace demo {

struct link_line {
  std::string from;  // "replay", "detector" ...
  std::string to;
  std::size_t count = 0;
  std::string scheme = {};            // of the chosen way; empty while there is none
  std::string briefly = {};           // why this one, and why no cheaper one
  std::vector<std::string> why = {};  // each way that was considered, those worth trying first
  std::string proof = {};             // who is there, as the kernel says; of one of them
};

class link_report {
 public:
  // Throws bus::error when one of the directories cannot be read.
  explicit link_report(const std::vector<std::string>& directories);
  [[nodiscard]] std::vector<link_line> read() const;

 private:
  std::vector<bus::rendezvous> places_;
};

}  // namespace demo
