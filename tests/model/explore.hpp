// Two ways through all that may happen in a world.
//
// explore() goes every way: from each state, each actor that can go on takes its next step, or is
// killed there. A state is all memory, every stack in use and every register that matters; one that
// was met before, by whichever schedule, is not left again. What remains is the product of all
// schedules, and no bound but the plan's.
//
// wander() goes one way, chosen by a number: what is too large to be gone through.
#pragma once

#include "tests/model/world.hpp"

#include <cstdint>
#include <string>

namespace model {

struct search {
  points at = points::shared;
  unsigned kills_max = 1;
  // A search that meets more is stopped, and has not shown anything.
  std::uint64_t states_max = 10'000'000;
};

struct found {
  std::uint64_t states = 0;
  std::uint64_t transitions = 0;
  std::uint64_t ends = 0;       // states in which all is over
  std::uint64_t ends_hash = 0;  // which ones these are, of one world
  // States of all memory, without stacks, in which no step goes alone: among these, and after the
  // steps that do; and which ones.
  std::uint64_t settled = 0;
  std::uint64_t settled_hash = 0;
  double schedules = 0;     // different ways from the beginning to an end
  std::size_t longest = 0;  // steps
  std::string failure;      // and the way to it, one step a line; empty: there is none
};

// Requires: no sanitizer that keeps books of stacks (ASan, TSan).
[[nodiscard]] found explore(world& of, search within);

struct walk {
  std::uint64_t seed = 0;
  unsigned kills_max = 1;
  // Safety: actors are killed and stand still at any time, and not everybody is waited for.
  // Liveness: after a while nobody else is killed, all who live go on, and everything must end
  // well.
  bool is_live = true;
};

struct walked {
  std::uint64_t steps = 0;
  unsigned kills = 0;
  std::string failure;
};

[[nodiscard]] walked wander(world& of, walk how);

// --- for both

// The next step of one actor, or its death.
struct move {
  unsigned who = 0;
  bool kill = false;
};

// Nobody can go on, or all is over: whether that is right.
void check_rest(world& of);
[[nodiscard]] std::string where_all_are(const world& of);
[[nodiscard]] std::string describe(const world& of, move next);

}  // namespace model
