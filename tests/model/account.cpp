// What the world checks while it runs: see world.hpp.
#include "tests/model/probe.hpp"
#include "tests/model/world.hpp"

#include <algorithm>

namespace model {

using transports::shared::lane_out;
using transports::shared::probe;

std::uint64_t world::slot_of(unsigned from, const std::byte* payload) const noexcept {
  const std::byte* const first = slots_at_[from];
  if (payload < first || payload >= first + plan_.slots * slot_bytes) return leaving::no_slot;
  return static_cast<std::uint64_t>(payload - first) - sizeof(bus::frame);
}

void world::may_read(unsigned from, unsigned to, std::uint64_t slot) noexcept {
  const std::uint64_t bit = 1ULL << (slot / slot_bytes);
  std::uint64_t& all = links_[from][to].slots;
  if ((all & bit) != 0) fail("a slot was sent again while it may be read");
  all |= bit;
}

void world::writes_slot(unsigned from, std::uint64_t slot) noexcept {
  const std::uint64_t bit = 1ULL << (slot / slot_bytes);
  for (unsigned s = 0; s < plan_.subscribers; ++s) {
    std::uint64_t& all = links_[from][s].slots;
    if (!subscribers_[s].run.dropped() && (all & bit) != 0) {
      fail("a slot was used again while a live subscriber may read it");
    }
    all &= ~bit;
  }
  written_[from] = slot;
}

void world::writes_entry(unsigned from, unsigned to) noexcept {
  const lane_out& lane = publishers_[from].lanes[to];
  if (subscribers_[to].run.dropped()) return;
  if (probe::entries_sent(lane) - links_[from][to].entries >= lane.depth()) {
    fail("an entry was used again before it was read");
  }
}

void world::writes_cell(unsigned from, unsigned to) noexcept {
  const lane_out& lane = publishers_[from].lanes[to];
  if (subscribers_[to].run.dropped()) return;
  if (probe::cells_sent(lane) - links_[from][to].cells >= probe::cells(lane)) {
    fail("a cell was used again before it was read");
  }
}

void world::has_answered() noexcept {
  const actor& who = *running_;
  if (!who.gives_back.now) {
    links_[who.whom][who.number].cells =
        probe::cells_reported(*subscribers_[who.number].lanes[who.whom]);
    return;
  }
  link& known = links_[who.gives_back.from][who.number];
  known.slots &= ~(1ULL << (who.gives_back.slot / slot_bytes));
  known.entries = std::max(known.entries, who.gives_back.position);
}

void world::check_now() noexcept {
  for (const publisher& one : publishers_) {
    if (one.run.dropped()) continue;
    if (one.slots->lent() > plan_.slots) fail("a slot was freed twice");
    for (const lane_out& lane : one.lanes) {
      if (lane.in_flight() > 2ULL * lane.depth()) fail("a credit or a cell was freed twice");
    }
  }
}

void world::check_end() noexcept {
  for (publisher& one : publishers_) {
    if (one.run.dropped()) continue;
    probe::collect(*one.slots);
    if (one.slots->lent() != 0) fail("a slot did not come home");
    if (one.published != plan_.messages) fail("a message was not published");
    for (unsigned s = 0; s < plan_.subscribers; ++s) {
      if (!probe::credits_agree(one.lanes[s])) fail("credits were lost or doubled");
      if (subscribers_[s].run.dropped()) continue;
      if (!probe::answers_agree(one.lanes[s])) fail("the two ends disagree");
    }
  }
  for (const subscriber& one : subscribers_) {
    if (one.run.dropped()) continue;
    for (unsigned p = 0; p < plan_.publishers; ++p) {
      if (links_[p][one.number].unread != 0) fail("what was sent was not delivered");
    }
  }
}

}  // namespace model
