// What a world is made of, and what is explored in it.
#pragma once

#include <cstdint>

namespace model {

inline constexpr unsigned each_max = 4;  // publishers, and subscribers

// What the actors do wrong, to see that it is found.
enum class mistake : std::uint8_t {
  none,
  reads_after_release,  // a subscriber looks at a payload that it has let go of
  reclaims_the_living,  // a publisher takes back what a live subscriber holds
  releases_twice,       // a subscriber sends a credit home a second time
  rings_first,          // a publisher rings before it publishes
  no_last_look,         // a subscriber falls asleep without looking once more
  forgets_the_dead,     // a publisher waits for a dead subscriber
  no_doorbell,          // nobody tells a subscriber that it has a place for a value again
  overfills_cells,      // a publisher writes a cell again without asking whether it was read
};

enum class sleep_by : std::uint8_t { nothing, semaphore, event };

// How a message travels: each way in its turn on each lane, or always the same.
enum class way : std::uint8_t { entry, reference, value, each_in_turn };

// Where another actor may go on, and anybody may die.
enum class points : std::uint8_t {
  // At every step.
  all,
  // At those steps whose effect another actor can see, or that look at what another can change;
  // see world.cpp for which these are, and why.
  seen,
  // Of these, a step that commutes with all that others may do before it is taken at once, and not
  // in every order with theirs; see alone.cpp.
  shared,
};

struct plan {
  unsigned publishers = 2;
  unsigned subscribers = 2;
  unsigned slots = 2;       // of each publisher
  std::uint32_t depth = 2;  // of each lane: a power of two, at most 64
  unsigned messages = 2;    // of each publisher
  unsigned holds = 1;       // samples that a subscriber keeps while it reads on
  // nothing: the scheduler lets go on whoever has something to do. Else by bells, and an actor that
  // nobody rings sleeps for ever.
  sleep_by sleep = sleep_by::nothing;
  way by = way::each_in_turn;
  bool keepers = false;        // a second thread of each subscriber lets its samples go
  bool unfenced = false;       // a subscriber asks its senders not to fence
  bool counters_late = false;  // laps, cells, credits and sleeps start just before they wrap
  mistake wrong = mistake::none;
};

}  // namespace model
