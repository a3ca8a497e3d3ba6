// `bus pipe`: a shell pipeline whose joints are topics. What a stage writes goes to the next one as
// it would through a pipe, and is published as well, on pipe/NAME/1 behind the first stage and so
// on: whoever wants to see it taps it, and leaves again.
//
//   stage 1 --> we --> stage 2 --> we --> stage 3
//                '--> pipe/NAME/1   '--> pipe/NAME/2
//
// The next stage does not read from the topic: nothing that happens there can cut the pipeline, and
// a tap that is slow loses messages by itself, unless it asks to be waited for.
#pragma once

#include "bus/tool/framing.hpp"
#include "bus/tool/verb.hpp"

#include <string>
#include <vector>

namespace bus::tool {

struct pipe_options : common_options {
  std::vector<std::string> stages;  // command lines of a shell
  std::string name;                 // empty: our process id
  framing_options framing;
};

// Returns the exit code of the last stage that failed; 0: none. That its output was not wanted any
// more is no failure of a stage. Dies of the signal of which that stage died. Throws failure.
[[nodiscard]] int run_pipeline(const pipe_options& options);

}  // namespace bus::tool
