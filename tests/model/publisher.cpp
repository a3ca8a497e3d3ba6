#include "tests/model/probe.hpp"
#include "tests/model/world.hpp"

#include <algorithm>
#include <cstring>

namespace model {

using transports::shared::arena;
using transports::shared::lane_out;
using transports::shared::probe;

namespace {

void write_words(bus::loan& into, std::uint64_t node, std::uint64_t sequence, std::size_t first,
                 std::size_t last) {
  const std::array<std::uint64_t, words> all{node, sequence, proof_of(node, sequence)};
  std::memcpy(into.bytes().data() + first * 8, all.data() + first, (last - first) * 8);
}

}  // namespace

void publisher::live(void* self) noexcept {
  auto& here = *static_cast<publisher*>(self);
  for (std::uint64_t n = 1; n <= here.home->about().messages; ++n) {
    fiber::forget_calls();
    here.publish(n);
  }
  fiber::forget_calls();
  // One way explores what it is to lose a sender that is owed something; the other shows that no
  // wakeup was needed but those of the bell.
  const bool stays = here.home->about().sleep != sleep_by::nothing;
  if (stays) here.settle_all();
  fiber::pause("says goodbye");
  here.said_goodbye = true;
  if (!stays) here.settle_all();
}

void publisher::settle_all() noexcept {
  while (!is_settled()) {
    fiber::forget_calls();
    hear_news();
    fiber::forget_calls();
    if (collect() == 0 && !is_settled()) wait_for_room();
  }
}

void publisher::publish(std::uint64_t sequence) noexcept {
  hear_news();
  bus::block* slot = nullptr;
  while (!(slot = obtain())) wait_for_room();
  bus::loan lent(*slot);
  home->writes_slot(number, slots->offset_of(*slot));
  const std::uint64_t node = node_of(number);
  write_words(lent, node, sequence, 0, 2);
  if (world::paused_at() == points::all) fiber::pause("half a payload");
  write_words(lent, node, sequence, 2, words);
  bus::frame head;
  head.node = node;
  head.sequence = sequence;
  head.bytes = payload_bytes;
  const bus::sample one = std::move(lent).commit(head);
  published = sequence;
  for (unsigned s = 0; s < home->about().subscribers; ++s) offer(s, one);
  home->was_offered(number);
}

// As hub::slot: what is home, or comes home now. There is nothing that was never used.
bus::block* publisher::obtain() noexcept {
  const unsigned size_class = arena::class_for(lend_bytes);
  if (bus::block* const given = slots->reuse(size_class)) return given;
  hear_news();
  collect();
  return slots->reuse(size_class);
}

// As hub::give.
void publisher::offer(unsigned to, const bus::sample& one) noexcept {
  if (forgotten[to]) return;
  whom = to;
  const bool sleeps = home->about().sleep != sleep_by::nothing;
  const bool rings_first = home->about().wrong == mistake::rings_first;
  if (sleeps) lanes[to].ask(false);
  if (sleeps && rings_first) static_cast<void>(bells[to].ring());
  if (!carry(to, one)) return;
  home->was_sent(number, to);
  if (sleeps && !rings_first) static_cast<void>(bells[to].ring());
}

// As hub::carry_alone, but that each way has its turn, where there it is the size that says which,
// and how many others want the sample. False: there is no room.
bool publisher::carry(unsigned to, const bus::sample& one) noexcept {
  way by = home->about().by;
  if (by == way::each_in_turn) {
    by = static_cast<way>((one.head().sequence + to + number) % 3);
  }
  const std::uint64_t offset = slots->offset_of(one.memory());
  fiber::forget_calls();
  if (by != way::entry && !has_cell(to)) by = way::entry;
  if (by == way::value) {
    home->writes_cell(number, to);
    lanes[to].push_by_value(one);
    return true;
  }
  if (!has_credit(to)) return false;
  if (by == way::reference) {
    home->writes_cell(number, to);
    lanes[to].push_by_reference(bus::sample(one), offset);
  } else {
    home->writes_entry(number, to);
    lanes[to].push(bus::sample(one), {}, offset);
  }
  // Without a step since the mark: whoever is killed after has sent it.
  home->may_read(number, to, offset);
  return true;
}

bool publisher::has_cell(unsigned to) noexcept {
  if (home->about().wrong == mistake::overfills_cells) return true;
  if (!lanes[to].has_cell()) static_cast<void>(lanes[to].scan_cells());
  return lanes[to].has_cell();
}

bool publisher::has_credit(unsigned to) noexcept {
  if (!lanes[to].has_credit()) static_cast<void>(settle(to));
  return lanes[to].has_credit();
}

std::size_t publisher::settle(unsigned to) noexcept {
  whom = to;
  fiber::forget_calls();
  const arena::returning cheaply(*slots);
  if (home->about().wrong == mistake::reclaims_the_living) {
    lanes[to].reclaim();
    return 1;
  }
  return lanes[to].scan();
}

std::size_t publisher::collect() noexcept {
  std::size_t came = 0;
  for (unsigned s = 0; s < home->about().subscribers; ++s) {
    if (!forgotten[s]) came += settle(s);
  }
  return came;
}

// As hub::end, for a peer whose socket has ended. The kernel tells of it when it is asked, between
// two messages.
void publisher::hear_news() noexcept {
  if (home->about().wrong == mistake::forgets_the_dead) return;
  fiber::pause("hears the news");
  for (unsigned s = 0; s < home->about().subscribers; ++s) {
    if (forgotten[s] || !home->to(s).run.dropped()) continue;
    forgotten[s] = true;
    const arena::returning cheaply(*slots);
    lanes[s].reclaim();
  }
}

bool publisher::has_news() const noexcept {
  if (home->about().wrong == mistake::forgets_the_dead) return false;
  for (unsigned s = 0; s < home->about().subscribers; ++s) {
    if (!forgotten[s] && home->to(s).run.dropped()) return true;
  }
  return false;
}

bool publisher::is_settled() const noexcept {
  return std::all_of(lanes.begin(), lanes.end(),
                     [](const lane_out& lane) { return lane.in_flight() == 0; });
}

// As hub::arm and core::sleep.
void publisher::wait_for_room() noexcept {
  if (home->about().sleep == sleep_by::nothing) return fiber::wait("waits for room", may_go_on);
  arm();
  bool quiet = true;
  for (unsigned s = 0; quiet && s < home->about().subscribers; ++s) {
    if (forgotten[s]) continue;
    whom = s;
    lanes[s].ask(true);
    if (settle(s) == 0) continue;
    lanes[s].ask(false);
    quiet = false;
  }
  fiber::forget_calls();
  if (!quiet) return doorbell->disarm();
  sleep(may_wake);
}

bool publisher::may_go_on(const void* self) noexcept {
  const auto& here = *static_cast<const publisher*>(self);
  if (here.has_news()) return true;
  for (unsigned s = 0; s < here.home->about().subscribers; ++s) {
    if (!here.forgotten[s] && probe::has_news(here.lanes[s])) return true;
  }
  return false;
}

bool publisher::may_wake(const void* self) noexcept {
  const auto& here = *static_cast<const publisher*>(self);
  return here.is_rung() || here.has_news();
}

}  // namespace model
