// Who looks for leaks traces itself, and who suppresses reports reads a file: nobody may who is
// locked in. For its environment.
#pragma once

#include <string>
#include <vector>

namespace tests {

inline const std::vector<std::string> calm_sanitizers = {"ASAN_OPTIONS=detect_leaks=0",
                                                         "TSAN_OPTIONS="};

}  // namespace tests
