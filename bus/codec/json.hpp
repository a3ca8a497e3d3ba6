// Protobuf messages as JSON, with reflection: what dynamic.cpp shows. Not for users.
#pragma once

#include "bus/base/result.hpp"

#include <string>
#include <string_view>

namespace google::protobuf {
class Message;
}

namespace bus::json {

struct options {
  bool indented = false;
  bool zeros = true;
};

// Errors: bad_message: nested too deep, Any in Any too deep, or of a type that is not in the pool.
[[nodiscard]] result<std::string> of_message(const google::protobuf::Message& message, options how);

// The value at a path, see dynamic_type::field. Errors: not_found, bad_name, bad_message.
[[nodiscard]] result<std::string> of_field(const google::protobuf::Message& message,
                                           std::string_view path);

}  // namespace bus::json
