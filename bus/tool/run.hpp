// `bus run`: a program on the bus. Its output becomes messages, a topic becomes its input, and
// otherwise it is as if it had been started without us: exit status, signals, descriptors.
//
//   started --(ends)--> drained --(restart)--> pause --> started
//                          '--(for good)--> everything is delivered --> we end as it did
#pragma once

#include "bus/node/supervised.hpp"
#include "bus/tool/framing.hpp"
#include "bus/tool/verb.hpp"

#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

namespace CLI {
class Option;
}

namespace bus::tool {

struct run_options : common_options {
  std::vector<std::string> command;
  std::string in;
  std::string out;
  std::string err;
  framing_options framing;
  bool tees = false;
  bool keeps_open = false;
  double block_for_s = 0;  // 0: for ever
  std::uint64_t matched = 0;
  double timeout_s = 10;
  bus::restart restarts = bus::restart::never;
};

// What we could not do for a program that ended well: messages were lost. As of env(1) and
// timeout(1).
inline constexpr int code_of_loss = 125;
// As of a shell.
inline constexpr int code_of_refused = 126;  // it is there, and cannot be run
inline constexpr int code_of_missing = 127;

// Returns the program's exit code; or dies of the signal of which it died. Throws failure.
[[nodiscard]] int run_program(const run_options& options);

// A positional argument that is the words of somebody else's command line, as they are. Its
// results() are good once the parser has parsed.
[[nodiscard]] CLI::Option* add_words(CLI::App& parser, const std::string& name,
                                     const std::string& summary);

// For a program that could not be started: says which and why, with a shell's code.
[[nodiscard]] failure cannot_start(const std::string& program, std::error_code why);

}  // namespace bus::tool
