// What the tests of the command share: a bus directory of their own, the real binary run in it, and
// nodes beside it that go on turning while it runs.
#pragma once

#include "bus/node/node.hpp"

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <sys/types.h>

namespace tool_tests {

// What a run left: its exit code (128 + signal if it was killed), and both outputs.
struct outcome {
  int code = -1;
  std::string out;
  std::string err;
};

class scratch {
 public:
  // An empty directory, removed at the end. Nothing inherits OMNIBUS_* from the outside.
  scratch();
  ~scratch();
  scratch(const scratch&) = delete;
  scratch& operator=(const scratch&) = delete;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] bus::node_options options(std::string name) const;
  [[nodiscard]] std::vector<std::string> files() const;

  // Runs `bus arguments...` to its end.
  [[nodiscard]] outcome run(const std::vector<std::string>& arguments,
                            const std::string& input = {}) const;

 private:
  std::string path_;
};

// A command that runs beside the test.
class running {
 public:
  running(const scratch& where, const std::vector<std::string>& arguments,
          const std::string& input = {});
  ~running();
  running(const running&) = delete;
  running& operator=(const running&) = delete;

  void send_signal(int number) const;
  // Whether its output has this in it, sooner or later.
  [[nodiscard]] bool shows(const std::string& part);
  // Nobody reads its output any more.
  void close_output();
  [[nodiscard]] outcome wait();

 private:
  [[nodiscard]] bool read_some();

  pid_t pid_ = -1;
  std::string base_;
  int output_ = -1;
  std::string read_;
};

// A child process with a node of its own: `work` gets the node, and is then left sleeping until it
// is killed. Ready when the constructor returns.
class other_process {
 public:
  other_process(const scratch& where, const std::string& name,
                const std::function<void(bus::node&, const std::function<void()>& ready)>& work);
  ~other_process();
  other_process(const other_process&) = delete;
  other_process& operator=(const other_process&) = delete;
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  // kill -9, and waits for the end.
  void kill();

 private:
  pid_t pid_ = -1;
};

// Turns the node until its card in the directory names so many topics and patterns. A card whose
// writing took long is written again after a pause, and by who is turned.
void wait_told(bus::node& one, int topics, int patterns = 0);

[[nodiscard]] bool has(const std::string& text, const std::string& part);

}  // namespace tool_tests
