// What node-level constructors throw: the code for programs, and for people one sentence that names
// the thing and the next step. Below bus/node nothing throws.
#pragma once

#include <stdexcept>
#include <string>
#include <system_error>

namespace bus {

class error : public std::runtime_error {
 public:
  error(std::error_code code, const std::string& sentence)
      : std::runtime_error(sentence), code_(code) {}
  [[nodiscard]] std::error_code code() const noexcept { return code_; }

 private:
  std::error_code code_;
};

}  // namespace bus
