#include "tests/model/probe.hpp"
#include "tests/model/world.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace model {

using transports::shared::probe;

void subscriber::live(void* self) noexcept {
  auto& here = *static_cast<subscriber*>(self);
  const plan& about = here.home->about();
  if (about.unfenced) here.doorbell->came(bus::bell::burst);
  while (!here.all_closed()) {
    fiber::forget_calls();
    if (here.look_at_all()) continue;
    fiber::forget_calls();
    // Who keeps a sample while it sleeps may keep a publisher waiting for ever.
    if (here.held_count > 0 && !about.keepers) {
      here.let_go(here);
    } else {
      here.wait_for_arrival();
    }
  }
  while (here.held_count > 0 && !about.keepers) here.let_go(here);
}

bool subscriber::all_closed() const noexcept {
  const auto end = closed.begin() + home->about().publishers;
  return std::all_of(closed.begin(), end, [](bool one) { return one; });
}

// Until something came: no more has to be remembered between two looks than whose turn it is.
bool subscriber::look_at_all() noexcept {
  for (unsigned p = 0; p < home->about().publishers; ++p) {
    if (look_at(p)) return true;
  }
  return all_closed();
}

// One publisher's turn; whether something came.
bool subscriber::look_at(unsigned from) noexcept {
  if (closed[from]) return false;
  whom = from;
  fiber::pause("looks");
  fiber::forget_calls();
  if (lanes[from]->poll(1, *this) > 0) return true;
  if (lanes[from]->broken()) home->fail("an honest publisher was cut");
  // No step since the look at the lane.
  heard[from] = has_ended(from);
  closed[from] = heard[from] && lanes[from]->drained();
  return false;
}

void subscriber::accept(bus::sample&& one) noexcept {
  kept came;
  came.from = static_cast<unsigned>(one.head().node - node_of(0));
  came.sequence = one.head().sequence;
  came.position = probe::entries_read(*lanes[came.from]);
  came.one = std::move(one);
  verify(came);
  if (came.sequence <= last[came.from]) {
    home->fail("a sample was delivered twice, or out of order");
  }
  if (came.sequence > home->from(came.from).published) {
    home->fail("what was not published was delivered");
  }
  last[came.from] = came.sequence;
  home->was_delivered(came.from, number);
  held[held_count++] = std::move(came);
  fiber::forget_calls();
  while (held_count > home->about().holds && !home->about().keepers) let_go(*this);
}

void subscriber::verify(const kept& one) noexcept {
  const bus::frame& head = one.one.head();
  std::array<std::uint64_t, words> all{};
  if (head.sequence != one.sequence) return home->fail("a frame was changed while it was kept");
  if (one.one.payload().size() != payload_bytes) return home->fail("a torn frame was delivered");
  std::memcpy(all.data(), one.one.payload().data(), payload_bytes);
  if (all[0] != head.node) home->fail("a foreign payload was read");
  if (all[1] != head.sequence) home->fail("a stale payload was read");
  if (all[2] != proof_of(head.node, head.sequence)) home->fail("a torn payload was read");
}

void subscriber::let_go(actor& by) noexcept {
  kept one = std::move(held[0]);
  std::move(held.begin() + 1, held.begin() + held_count, held.begin());
  held[--held_count] = {};
  verify(one);
  const std::byte* const payload = one.one.payload().data();
  const std::uint64_t slot = home->slot_of(one.from, payload);
  const mistake wrong = slot == leaving::no_slot ? mistake::none : home->about().wrong;
  bus::block copy;
  if (wrong == mistake::releases_twice) {
    copy.tag = one.one.memory().tag;
    copy.home = one.one.memory().home;
  }
  by.gives_back = {.now = true, .from = one.from, .slot = slot, .position = one.position};
  fiber::forget_calls();
  one.one = {};
  by.gives_back = {};
  if (wrong == mistake::reads_after_release) look_where_it_was(one, payload);
  if (wrong == mistake::releases_twice) copy.home->take_back(copy);
}

void subscriber::look_where_it_was(const kept& one, const std::byte* payload) noexcept {
  fiber::pause("looks again");
  std::uint64_t sequence = 0;
  std::memcpy(&sequence, payload + 8, sizeof sequence);
  if (sequence != one.sequence) home->fail("a stale payload was read");
}

bool subscriber::has_ended(unsigned from) const noexcept {
  const publisher& other = home->from(from);
  return other.said_goodbye || other.run.dropped();
}

// As hub::arm and core::sleep. The kernel's news comes once; when it was heard, it wakes nobody.
void subscriber::wait_for_arrival() noexcept {
  if (home->about().sleep == sleep_by::nothing) return fiber::wait("waits", may_go_on);
  arm();
  bool quiet = true;
  if (home->about().wrong != mistake::no_last_look) {
    for (unsigned p = 0; p < home->about().publishers; ++p) {
      if (closed[p]) continue;
      whom = p;
      fiber::pause("looks once more");
      quiet = quiet && lanes[p]->empty() && !(heard[p] && lanes[p]->drained());
    }
  }
  fiber::forget_calls();
  if (!quiet) return doorbell->disarm();
  sleep(may_wake);
}

bool subscriber::may_go_on(const void* self) noexcept {
  const auto& here = *static_cast<const subscriber*>(self);
  for (unsigned p = 0; p < here.home->about().publishers; ++p) {
    if (here.closed[p]) continue;
    if (!here.lanes[p]->empty()) return true;
    if (here.has_ended(p) && (!here.heard[p] || here.lanes[p]->drained())) return true;
  }
  return false;
}

bool subscriber::may_wake(const void* self) noexcept {
  const auto& here = *static_cast<const subscriber*>(self);
  if (here.is_rung()) return true;
  for (unsigned p = 0; p < here.home->about().publishers; ++p) {
    if (!here.heard[p] && here.has_ended(p)) return true;
  }
  return false;
}

void keeper::live(void* self) noexcept {
  auto& here = *static_cast<keeper*>(self);
  subscriber& of = here.home->to(here.number);
  for (;;) {
    fiber::wait("keeps", may_go_on);
    if (of.held_count == 0) return;
    of.let_go(here);
  }
}

bool keeper::may_go_on(const void* self) noexcept {
  const auto& here = *static_cast<const keeper*>(self);
  const subscriber& of = here.home->to(here.number);
  return of.held_count > 0 || of.run.ended();
}

}  // namespace model
