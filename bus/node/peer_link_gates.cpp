// Subscriptions that block, as peer_link sees them: their gates, what they grant, and what ours
// grant.
#include "bus/node/peer_link.hpp"

#include <algorithm>
#include <utility>

namespace bus {

void peer_link::count_gates(attachment& one) noexcept {
  const bool now = one.attached && !one.gates.empty();
  if (now && !one.counted) ++one.source->gated;
  if (!now && one.counted) --one.source->gated;
  one.counted = now;
  if (now && one.counting == 0) uncounted_.push_back(one.source->number);
}

// What was withheld can be told of.
void peer_link::no_longer_withheld(attachment& one) {
  if (std::exchange(one.withheld, false) && one.owed) owing_.push_back(one.source->number);
}

void peer_link::close_gates(attachment& one) noexcept {
  for (auto& [number, each] : one.gates) ledger_->release(*each.row);
  one.gates.clear();
}

// Into the books.
void peer_link::enter(const own_gate& one) noexcept {
  one.row->set(column::gate_limit, one.state.limit());
  one.row->set(column::gate_waits, one.state.waits());
  one.row->set(column::gate_waited_ns, static_cast<std::uint64_t>(one.state.waited_ns()));
  one.row->set(column::gate_since_ns, static_cast<std::uint64_t>(one.state.since_ns()));
  one.row->set(column::gate_lapsed, one.state.lapsed() ? 1 : 0);
}

// From now on it is waited for, unless it `can` take the next one. The clock and the books are left
// alone while nothing changes, since this is asked several times for each message.
gate::state peer_link::ask(own_gate& one, bool can) noexcept {
  if (can && one.state.since_ns() == 0) return gate::state::open;
  const std::int64_t now_ns = steady_ns();
  gate::state said = gate::state::open;
  if (can) {
    one.state.passed(now_ns);
  } else {
    said = one.state.stopped(now_ns);
  }
  enter(one);
  return said;
}

bool peer_link::admits(const publication& source, std::uint64_t bytes) noexcept {
  const auto at = attachments_.find(source.number);
  if (at == attachments_.end() || !at->second.counted) return true;
  const bool has_way = carries(bytes);
  bool all = true;
  for (auto& [number, each] : at->second.gates) {
    const bool can = has_way && each.state.has_place(at->second.sent + 1);
    all = ask(each, can) != gate::state::waiting && all;
  }
  return all;
}

deadline peer_link::lapses_at(const publication& source) const noexcept {
  deadline first = deadline::never();
  const auto at = attachments_.find(source.number);
  if (at == attachments_.end()) return first;
  for (const auto& [number, each] : at->second.gates) {
    first = std::min(first, deadline::at(each.state.lapses_at_ns()));
  }
  return first;
}

std::uint32_t peer_link::waited_for(const publication& source) const noexcept {
  const auto at = attachments_.find(source.number);
  if (at == attachments_.end()) return 0;
  return static_cast<std::uint32_t>(
      std::count_if(at->second.gates.begin(), at->second.gates.end(), [](const auto& entry) {
        const own_gate& each = entry.second;
        return each.state.since_ns() != 0 && !each.state.lapsed();
      }));
}

peer_link::verdict peer_link::judge(publication& source, const frame& head) noexcept {
  attachment& one = attachments_[source.number];
  verdict made{.waiting = 0, .lapsed = 0, .is_wanted = one.is_free};
  if (!one.counted) return {};
  const bool has_way = carries(head.bytes);
  bool waits_for_grants = true;
  for (auto& [number, each] : one.gates) {
    const bool has_place = each.state.has_place(one.sent + 1);
    waits_for_grants = waits_for_grants && !has_place;
    // Before the first grant, the peer knows what it has promised, and we do not.
    const gate::state said =
        each.state.granted() ? ask(each, has_way && has_place) : gate::state::open;
    if (said == gate::state::open) {
      made.is_wanted = true;
      continue;
    }
    made.lapsed += said == gate::state::lapsed ? 1 : 0;
    made.waiting += said == gate::state::waiting ? 1 : 0;
    each.row->add(column::gate_missed, 1);
    if (said == gate::state::lapsed) each.row->add(column::gate_expired, 1);
  }
  // What was left out before has the cause that it had then.
  const bool told = tell_lapses(one, head.sequence - 1);
  if (!made.is_wanted) {
    owe(source);
    one.withheld = waits_for_grants;
  }
  unsettled_work_ = unsettled_work_ || !told || (one.owed && !one.withheld);
  return made;
}

// True when the peer knows for whom we wait and for whom we do not.
bool peer_link::tell_lapses(attachment& one, std::uint64_t last) noexcept {
  const bool known = std::none_of(one.gates.begin(), one.gates.end(), [](const auto& entry) {
    return entry.second.told != entry.second.state.lapsed();
  });
  try {
    return known || send_notice(one, last);
  } catch (...) {
    return false;  // out of memory: told with the next sample
  }
}

bool peer_link::offer_counted(publication& source, const sample& one,
                              std::uint32_t messages) noexcept {
  if (!offer(source, one)) return false;
  attachments_[source.number].sent += messages;
  return true;
}

void peer_link::granted(const wire::Grant& words, std::int64_t now_ns) {
  const auto at = attachments_.find(words.publisher());
  if (at == attachments_.end() || at->second.counting != words.counting()) return;
  attachment& one = at->second;
  const auto found = one.gates.find(words.subscription());
  if (found == one.gates.end() || one.counting == 0) return;
  gate& state = found->second.state;
  if (state.grant(words.limit())) changed_ = true;
  if (state.has_place(one.sent + 1)) {
    state.passed(now_ns);
    // Somebody is there to hear it.
    no_longer_withheld(one);
    unsettled_work_ = unsettled_work_ || one.owed;
  }
  enter(found->second);
}

void peer_link::grant(const wire::Grant& words) {
  promise& one = promises_[{words.publisher(), words.subscription()}];
  one.words = words;
  one.is_due = true;
  if (!open() || !send_grants()) unsettled_work_ = true;
}

void peer_link::revoke(std::uint32_t publisher, std::uint32_t subscription) {
  const auto at = promises_.find({publisher, subscription});
  if (at == promises_.end()) return;
  // Its card says so, too, and later.
  wire::Control words;
  *words.mutable_grant() = at->second.words;
  words.mutable_grant()->set_limit(UINT64_MAX);
  if (open()) static_cast<void>(send_control(words, nullptr));
  promises_.erase(at);
  unsettled_work_ = true;
}

bool peer_link::send_counts() {
  for (; !uncounted_.empty(); uncounted_.pop_back()) {
    ++steps_;
    const auto at = attachments_.find(uncounted_.back());
    if (at == attachments_.end() || !at->second.counted || at->second.counting != 0) continue;
    if (!send_count(at->second)) return false;
  }
  return true;
}

// Begins to count.
bool peer_link::send_count(attachment& one) {
  wire::Control words;
  words.mutable_count()->set_publisher(one.source->number);
  words.mutable_count()->set_number(last_counting_ + 1);
  if (!send_control(words, nullptr)) return false;
  one.counting = ++last_counting_;
  one.sent = 0;
  for (auto& [number, each] : one.gates) {
    each.state.forget(steady_ns());
    each.told = false;
    enter(each);
  }
  return true;
}

bool peer_link::send_grants() {
  for (auto& [key, each] : promises_) {
    if (!each.is_due) continue;
    wire::Control words;
    *words.mutable_grant() = each.words;
    if (!send_control(words, nullptr)) return false;
    each.is_due = false;
  }
  return true;
}

}  // namespace bus
