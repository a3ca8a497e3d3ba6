// The server of a library that needs one, as a child of the benchmark: it has a folder of its own,
// is asked until it answers, and ends with whoever started it, however that ends.
//
//   starting -> answering -> killed; there is nothing in it to be saved
//
// It may run on any processor, also when the benchmark's own processes are held to one each: there
// are three of them, and the kernel knows best where the third one fits.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/tool/child.hpp"

#include <functional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace peers {

struct server_options {
  std::string program;
  std::string package;  // of Debian
  std::vector<std::string> arguments;
  std::string folder;  // gets its log
};

class server {
 public:
  // Throws std::runtime_error.
  explicit server(server_options options);
  ~server();
  server(const server&) = delete;
  server& operator=(const server&) = delete;

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  // Returns when `answers` has said yes, which is asked every few milliseconds. Throws
  // not_installed if there is no such program, and std::runtime_error if it ended, or has said no
  // for too long.
  void await(const std::function<bool()>& answers) const;

 private:
  [[noreturn]] void run();  // in the child
  [[noreturn]] void explain_end() const;

  server_options options_;
  std::string log_;
  bus::tool::lifeline life_;
  pid_t pid_ = -1;
  bus::fd end_;  // readable once it has ended
};

}  // namespace peers
