// `bus chaos`: publishers and subscribers, each a process of its own, on a bus directory of their
// own, are killed, stopped, continued, sent away and started again at instants that a seed gives;
// and in the end every account must balance, and nothing be left.
//
//   calm -> faults (chaos_plan.hpp) -> flowing again -> rest, until all accounts balance
//        -> all go home -> one `bus gc` -> nothing is left
//
// The director is no node. It forks, sends signals to what it started and has not reaped, and reads
// files. What it signals it holds a process descriptor of.
#pragma once

#include "bus/tool/chaos_plan.hpp"

namespace bus::tool {

// Exit codes as for every verb: 0 everything balances, 1 something does not, 2 usage.
[[nodiscard]] int run_chaos(const chaos_options& options);

}  // namespace bus::tool
