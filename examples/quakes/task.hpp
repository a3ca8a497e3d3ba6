// What one process of the demo is told to do, by the orchestra that starts it. All processes are
// the same program; everything that they share on disk lies below `root`.
#pragma once

#include <cstdint>
#include <string>

namespace demo {

struct task {
  std::string as;       // "replay", "detector", "archive" or "observer"
  std::string network;  // of a replay
  std::string root;
  std::string data;
  std::string listen;  // where this node can be reached over the network
  std::string peer;    // where the observer listens; empty for itself
  unsigned incarnation = 1;
  std::int64_t start_ns = 0;   // steady clock: when the first event of the feed is due
  double speed = 0;            // feed seconds per second; 0: as fast as possible
  int network_namespace = -1;  // descriptor of the namespace to live in; -1: stay

  // "replay-ci", "archive" ...: the node's name, and of its files
  [[nodiscard]] std::string name() const { return network.empty() ? as : as + "-" + network; }
  // The observer has a bus directory of its own, as on another machine.
  [[nodiscard]] std::string directory() const {
    return root + (as == "observer" ? "/far" : "/bus");
  }
  [[nodiscard]] std::string journal() const { return root + "/journal." + name(); }
  [[nodiscard]] std::string last_words() const { return root + "/last." + name(); }
  [[nodiscard]] std::string position() const { return root + "/position." + name(); }
};

// Does the task until SIGTERM comes. Returns the exit code.
int perform(const task& what);

}  // namespace demo
