// The demo's processes, as their parent sees them: started, watched by pidfd (which cannot mean
// somebody else's process), killed and stopped.
#pragma once

#include "bus/base/fd.hpp"
#include "examples/quakes/task.hpp"

#include <functional>
#include <map>
#include <memory>
#include <string>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>

namespace demo {

class crew {
 public:
  // Called when a process has ended; minus the signal that ended it, else its exit code.
  using on_end = std::function<void(const std::string& name, int status)>;
  crew(asio::io_context& context, on_end ended);
  // Kills who is left.
  ~crew();
  crew(const crew&) = delete;
  crew& operator=(const crew&) = delete;

  // Starts it again, as the next incarnation, if it was there before. Requires: it does not run.
  // Throws std::runtime_error.
  void start(task what);
  void signal(const std::string& name, int number);
  [[nodiscard]] bool runs(const std::string& name) const;
  // How many run whose names begin so.
  [[nodiscard]] std::size_t running(const std::string& prefix) const;
  [[nodiscard]] unsigned incarnation(const std::string& name) const;
  [[nodiscard]] int pid(const std::string& name) const;
  [[nodiscard]] const std::map<std::string, task>& tasks() const noexcept { return tasks_; }

 private:
  struct running_process {
    int pid;
    bus::fd handle;
    asio::posix::stream_descriptor watch;
  };
  void watch(const std::string& name);
  void reap(const std::string& name);

  asio::io_context& context_;
  on_end ended_;
  // A pipe whose near end only we have: its end tells a process that we ended before it began.
  bus::fd lifeline_;
  bus::fd near_end_;
  std::map<std::string, task> tasks_;
  std::map<std::string, std::unique_ptr<running_process>> running_;
};

}  // namespace demo
