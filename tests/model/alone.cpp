// Which steps need not be taken in every order with those of others.
//
// A look at what nobody will change any more finds the same now and later: an entry or a cell that
// has arrived stays until the one who reads it has answered; a bit or a count that all of its
// answers have reached stays until the publisher sends again; the end of a process is for good. And
// a store that nobody will look at is no difference either: one for the dead. Such a step, with all
// that its actor does up to the next one in private, commutes with every step that others may take
// before it, and disables none; that others take theirs after it leaves out no state that they
// could tell from those that remain. A death before it is, to them, a death after it.
//
// That the account speaks of effects and not of reading (world.hpp) is a condition of this: else a
// subscriber that always reads at once would hide a publisher that does not wait for it.
//
// model_test.cpp shows for what can be gone through in both ways that the ends are the same.
#include "tests/model/probe.hpp"
#include "tests/model/world.hpp"

namespace model {

using transports::shared::lane_in;
using transports::shared::lane_out;
using transports::shared::probe;

namespace {

// At somebody else's bell; arming and disarming are at one's own.
bool is_ringing(std::string_view at) {
  return at.starts_with("bell.ring.") || at.starts_with("bell.wake.");
}

}  // namespace

bool world::goes_alone(unsigned which, bool may_die) const noexcept {
  if (paused_at() == points::all || which >= processes() || !can_go(which)) return false;
  if (which < plan_.publishers) return publisher_goes_alone(publishers_[which], may_die);
  return subscriber_goes_alone(subscribers_[which - plan_.publishers]);
}

bool world::publisher_goes_alone(const publisher& one, bool may_die) const noexcept {
  const std::string_view at = one.run.place();
  if (at == "begin" || at == "waits for room") return true;
  if (at == "hears the news") return !may_die;
  const lane_out& lane = one.lanes[one.whom];
  const bool is_for_nobody = subscribers_[one.whom].run.dropped();
  if (at == "lane.scan.bits") return is_for_nobody || probe::all_came_home(lane);
  if (at == "lane.scan.cells") return is_for_nobody || probe::all_were_read(lane);
  return is_for_nobody && (at == "lane.push.mark" || at == "lane.cell.mark" ||
                           at == "lane.ask.want_room" || is_ringing(at));
}

bool world::subscriber_goes_alone(const subscriber& one) const noexcept {
  const std::string_view at = one.run.place();
  if (at == "begin" || at == "waits") return true;
  const unsigned whom = one.gives_back.now ? one.gives_back.from : one.whom;
  const lane_in& lane = *one.lanes[whom];
  const publisher& other = publishers_[whom];
  // Whether a value can be taken, another thread changes.
  if (at == "looks") return !plan_.keepers && (!lane.empty() || one.has_ended(whom));
  if (at == "looks once more") {
    return !plan_.keepers && (!lane.empty() || (one.heard[whom] && lane.drained()));
  }
  const bool is_for_nobody = other.run.dropped() || other.run.ended();
  if (at == "lane.release.look") return plan_.sleep == sleep_by::nothing || is_for_nobody;
  if (is_ringing(at)) return !plan_.keepers && is_for_nobody;
  return other.run.dropped() && (at == "lane.release.bit" || at == "lane.report.cells");
}

}  // namespace model
