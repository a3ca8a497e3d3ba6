// What a verb of the command is: a name, a summary and an example for --help, and a function that
// adds its options to its parser and returns what runs it. Verbs fail by throwing `failure`: the
// exit code for programs, and for people one sentence with the thing and the next step.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace bus::tool {

// Part of the command's contract; docs/bus.md lists them.
enum class exit_code : int { done = 0, not_so = 1, usage = 2, timeout = 3, denied = 4 };

class failure : public std::runtime_error {
 public:
  failure(exit_code code, const std::string& sentence)
      : std::runtime_error(sentence), code_(code) {}
  [[nodiscard]] exit_code code() const noexcept { return code_; }

 private:
  exit_code code_;
};

struct verb {
  std::string name;
  std::string summary;
  std::string example;  // one or more command lines, shown by --help
  std::function<std::function<exit_code()>(CLI::App&)> declare;
};

// What most verbs have: which bus, and for whom.
struct common_options {
  std::string directory;  // empty: default_directory()
  bool json = false;
};
void add_directory(CLI::App& parser, common_options& into);
void add_json(CLI::App& parser, common_options& into);

// For CLI's check: what is wrong with a text that is no number above 0; empty: nothing. CLI's own
// answer names the largest double, with all its 309 digits.
[[nodiscard]] std::string check_above_zero(const std::string& text);

}  // namespace bus::tool
