// One life of a party of `bus chaos`: a process with a node that publishes or subscribes in its
// character, until it is killed, asked to leave, or the director says that it is over. What it does
// it writes down at once (chaos_record.hpp), since it may not have another instant.
#pragma once

#include "bus/node/qos.hpp"
#include "bus/tool/chaos_plan.hpp"

#include <cstdint>
#include <string>

namespace bus::tool {

// How a child is told its part.
struct chaos_party_options {
  chaos_options chaos;
  std::string folder;
  std::uint32_t seat = 0;
  std::uint32_t life = 0;
  std::uint32_t lives = 0;  // of the whole run: the size of the records
  std::uint32_t character = 0;
};

// Exit codes as for every verb: 0 when it ended as it should.
[[nodiscard]] int run_chaos_party(const chaos_party_options& options);

// The transport of that name; empty when there is none that can be used between processes.
[[nodiscard]] bill_of_transports chaos_transports(const std::string& scheme);

}  // namespace bus::tool
