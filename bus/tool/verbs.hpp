// The table of verbs. A verb lives in its own file and is made by a function that is declared here
// and called in verbs.cpp: two lines, and the command has it, in --help and in the completion.
#pragma once

#include "bus/tool/verb.hpp"

namespace bus::tool {

[[nodiscard]] verb list_verb();
[[nodiscard]] verb info_verb();
[[nodiscard]] verb echo_verb();
[[nodiscard]] verb pub_verb();
[[nodiscard]] verb run_verb();
[[nodiscard]] verb pipe_verb();
[[nodiscard]] verb hz_verb();
[[nodiscard]] verb bw_verb();
[[nodiscard]] verb why_verb();
[[nodiscard]] verb doctor_verb();
[[nodiscard]] verb gc_verb();
[[nodiscard]] verb bench_verb();
[[nodiscard]] verb bench_peer_verb();
[[nodiscard]] verb chaos_verb();
[[nodiscard]] verb chaos_peer_verb();
[[nodiscard]] verb completion_verb();

// All of them, in the order of --help. The first one is what bare `bus` does.
[[nodiscard]] std::vector<verb> all_verbs();

}  // namespace bus::tool
