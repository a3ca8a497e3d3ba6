// A state's canonical form: what nobody will ever look at again is made the same, and what is
// interchangeable is put in order. Changes nothing that any actor can do or see.
#include "tests/model/probe.hpp"
#include "tests/model/world.hpp"

#include <cstring>
#include <utility>

namespace model {

using transports::shared::lane_in;
using transports::shared::lane_out;
using transports::shared::probe;

void world::tidy() noexcept {
  running_ = nullptr;
  for (unsigned i = 0; i < processes(); ++i) {
    process& one = process_of(i);
    if (one.run.dropped() && !std::exchange(one.is_buried, true)) bury(i);
    if (one.run.ended()) one.whom = 0;
  }
  for (unsigned p = 0; p < plan_.publishers; ++p) {
    publisher& one = publishers_[p];
    if (!one.run.dropped()) probe::tidy(*one.slots, paused_at() != points::all);
    if (one.run.ended()) one.forgotten = {};
    tidy_links_of(p);
    tidy_slots_of(p);
  }
  for (unsigned i = 0; i < actors(); ++i) {
    leaving& past = actor_of(i).gives_back;
    if (!past.now) std::memset(static_cast<void*>(&past), 0, sizeof past);  // and its padding
  }
  for (subscriber& one : subscribers_) {
    const std::size_t rest = (one.held.size() - one.held_count) * sizeof(kept);
    std::memset(static_cast<void*>(one.held.data() + one.held_count), 0, rest);
    // Nothing more comes to be compared with.
    for (unsigned p = 0; p < plan_.publishers; ++p) {
      if (one.closed[p]) one.last[p] = 0;
    }
  }
  if (!plan_.counters_late) tidy_bells();
}

void world::tidy_links_of(unsigned from) noexcept {
  publisher& one = publishers_[from];
  for (unsigned s = 0; s < plan_.subscribers; ++s) {
    subscriber& other = subscribers_[s];
    lane_in& in = *other.lanes[from];
    lane_out& out = one.lanes[s];
    const bool is_read = !other.run.dropped() && !other.closed[from];
    link& known = links_[from][s];
    if (other.run.dropped()) known = {};
    if (one.run.dropped()) known.entries = known.cells = 0;
    if (!one.run.dropped()) probe::tidy(out, in, plan_.counters_late);
    const std::string_view writer_at = one.whom == s ? one.run.place() : std::string_view();
    const probe::ends now{.is_read = is_read,
                          .is_answered = !other.run.dropped(),
                          .is_written = !one.run.dropped(),
                          .is_taken_now = other.run.place().starts_with("lane.take."),
                          .is_pushed_now = writer_at.starts_with("lane.push."),
                          .is_filled_now = writer_at.starts_with("lane.cell.")};
    probe::tidy(in, out, now);
    const bool is_busy = now.is_taken_now || now.is_pushed_now || now.is_filled_now;
    if (!plan_.counters_late && !is_busy && probe::renumber(out, in, now, known.entries)) {
      known.entries = known.cells = 0;
    }
    const bool is_forgotten = one.forgotten[s] || (one.run.ended() && other.run.dropped());
    if (one.run.dropped() || is_forgotten) probe::forget_answers(in);
  }
}

void world::tidy_slots_of(unsigned from) noexcept {
  std::uint64_t readable = 0;
  for (unsigned s = 0; s < plan_.subscribers; ++s) readable |= links_[from][s].slots;
  for (std::uint64_t slot = 0; slot < plan_.slots; ++slot) {
    const std::uint64_t offset = slot * slot_bytes;
    const bool is_written = !publishers_[from].run.dropped() && written_[from] == offset;
    if ((readable >> slot & 1) != 0 || is_written) continue;
    std::memset(slots_at_[from] + offset, 0, sizeof(bus::frame) + payload_bytes);
  }
}

// Nobody is there to take a wakeup; and a sleep's number is only compared with that of whoever is
// late with its mark.
void world::tidy_bells() noexcept {
  for (unsigned i = 0; i < processes(); ++i) {
    if (run_of(i).dropped() || run_of(i).ended()) bus::probe::silence(*process_of(i).doorbell);
  }
  for (unsigned i = 0; i < actors(); ++i) {
    if (run_of(i).place().starts_with("bell.wake.")) return;
  }
  for (unsigned i = 0; i < processes(); ++i) bus::probe::renumber(*process_of(i).doorbell);
}

// What a dead process had in its own memory is gone; its accounts stay.
void world::bury(unsigned which) noexcept {
  process& one = process_of(which);
  one.here = nullptr;
  one.gives_back = {};
  one.whom = 0;
  if (which < plan_.publishers) {
    publisher& dead = publishers_[which];
    probe::bury(*dead.slots);
    for (lane_out& lane : dead.lanes) probe::bury(lane);
    dead.forgotten = {};
    dead.published = plan_.messages;
    dead.said_goodbye = true;
    written_[which] = nothing;
    return;
  }
  subscriber& dead = subscribers_[which - plan_.publishers];
  for (auto& lane : dead.lanes) probe::bury(*lane);
  if (plan_.keepers) {
    keepers_[dead.number].gives_back = {};
    keepers_[dead.number].whom = 0;
  }
  dead.heard = dead.closed = {};
  dead.last = {};
  dead.held_count = 0;
  // Not dropped: nobody is there to do it.
  std::memset(static_cast<void*>(dead.held.data()), 0, sizeof dead.held);
}

}  // namespace model
