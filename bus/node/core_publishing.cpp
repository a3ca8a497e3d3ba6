// What a publisher asks of its node: to send, and to wait until there is room.
#include "bus/base/step.hpp"
#include "bus/node/core.hpp"

#include <algorithm>

namespace bus {
namespace {

// Says in the ledger what is published, before anybody has it: if we are killed in between, our
// last word covers all that we gave away.
void announce(publication& source, std::uint64_t last) noexcept {
  source.head.sequence = last;
  step("node.publish.published");
  source.row->set(column::published, last);
}

}  // namespace

published core::publish_to_nobody(publication& source, std::uint64_t bytes,
                                  std::uint64_t messages) noexcept {
  announce(source, source.head.sequence + messages);
  source.row->add(column::sent_bytes, bytes);
  return {.messages = messages};
}

published core::send(publication& source, sample&& sealed, std::uint32_t messages) noexcept {
  if (source.gated != 0) return send_gated(source, std::move(sealed), messages);
  ledger_row& row = *source.row;
  const std::uint64_t bytes = sealed.head().bytes;
  announce(source, sealed.head().sequence + messages - 1);
  step("node.publish.offer");
  published outcome{.links = static_cast<std::uint32_t>(source.routes.size()),
                    .messages = messages};
  for (std::size_t i = 0; i + 1 < source.routes.size(); ++i) {
    outcome.taken += source.routes[i]->offer(source, sealed) ? 1 : 0;
  }
  if (outcome.links > 0) {
    outcome.taken += source.routes.back()->give(source, std::move(sealed)) ? 1 : 0;
  }
  row.add(column::offered, std::uint64_t{outcome.links} * messages);
  row.add(column::taken, std::uint64_t{outcome.taken} * messages);
  row.add(column::sent_bytes, bytes);
  if (outcome.taken != outcome.links) {
    row.add(column::full, std::uint64_t{outcome.links - outcome.taken} * messages);
    restless_ = true;
  }
  return outcome;
}

published core::commit(publication& source, std::uint64_t bytes, std::uint16_t flags) noexcept {
  frame head = next_frame(source, flags);
  head.bytes = bytes;
  ledger_row& row = *source.row;
  announce(source, head.sequence);
  source.routes.front()->commit(head);
  row.add(column::offered, 1);
  row.add(column::taken, 1);
  row.add(column::sent_bytes, bytes);
  return {.links = 1, .taken = 1, .messages = 1};
}

// As send(), for a publisher that meets subscriptions that block. Whoever has a place gets the
// sample at once, whoever does not block too; the others miss it, and the outcome says so.
published core::send_gated(publication& source, sample&& sealed, std::uint32_t messages) noexcept {
  const std::uint64_t sequence = sealed.head().sequence;
  announce(source, sequence + messages - 1);
  published outcome{.links = static_cast<std::uint32_t>(source.routes.size()),
                    .messages = messages};
  for (peer_link* const link : source.routes) {
    const peer_link::verdict said = link->judge(source, sealed.head());
    if (said.waiting + said.lapsed != 0 && outcome.blocked == 0) outcome.by = link->peer();
    outcome.blocked += said.waiting + said.lapsed;
    if (said.is_wanted) outcome.taken += link->offer_counted(source, sealed, messages) ? 1 : 0;
  }
  source.row->add(column::offered, std::uint64_t{outcome.links} * messages);
  source.row->add(column::taken, std::uint64_t{outcome.taken} * messages);
  source.row->add(column::full, std::uint64_t{outcome.links - outcome.taken} * messages);
  source.row->add(column::sent_bytes, sealed.head().bytes);
  restless_ = restless_ || !outcome;
  return outcome;
}

bool core::admits(const publication& source, std::uint64_t bytes) noexcept {
  if (source.gated == 0) return true;
  bool all = true;
  for (peer_link* const link : source.routes) {
    all = link->admits(source, bytes) && all;
  }
  restless_ = restless_ || !all;
  return all;
}

bool core::has_room(const publication& source) noexcept {
  const bool room = std::all_of(source.routes.begin(), source.routes.end(),
                                [](peer_link* link) { return link->has_room(); });
  // Restless until then, so that a sleep arms the outbox.
  restless_ = restless_ || !room;
  return room && admits(source);
}

core::waited core::wait_for(publication& source, deadline until, const room_wanted& wanted) {
  const std::uint32_t number = source.number;
  // Nothing can come while a callback is waited for: there is only one thread.
  if (in_pump_) until = deadline::now();
  bool open = false;
  const auto look = [&] {
    open = admits(source, wanted.bytes);
    if (!wanted.links_too) return open;
    for (peer_link* const link : source.routes) open = link->has_much_room() && open;
    restless_ = restless_ || !open;
    return open;
  };
  for (;;) {
    // Whoever is waited for from now on has a deadline from now on.
    static_cast<void>(look());
    const deadline step = std::min(next_lapse(source), until);
    drive(step, usual_budget,
          [&] { return !publications_.contains(number) || look() || next_lapse(source) < step; });
    if (!publications_.contains(number)) return waited::ended;
    if (open) return waited::open;
    if (until.passed()) return waited::late;
  }
}

bool core::wait_room(publication& source, deadline until) {
  return wait_for(source, until, {.bytes = 0, .links_too = true}) == waited::open;
}

std::optional<published> core::wait_places(publication& source, std::uint64_t bytes,
                                           deadline until) {
  const waited how = wait_for(source, until, {.bytes = bytes, .links_too = false});
  if (how == waited::ended) return std::nullopt;
  if (how == waited::open) return published{};
  published outcome{.links = static_cast<std::uint32_t>(source.routes.size())};
  for (const peer_link* const link : source.routes) {
    const std::uint32_t waiting = link->waited_for(source);
    if (waiting != 0 && outcome.blocked == 0) outcome.by = link->peer();
    outcome.blocked += waiting;
  }
  return outcome;
}

std::error_code core::wait_memory(publication& source, std::uint64_t bytes, deadline until) {
  const std::uint32_t number = source.number;
  if (in_pump_) until = deadline::now();
  std::error_code missing = errc::no_memory;
  const auto look = [&] {
    if (!publications_.contains(number)) {
      missing = errc::closed;
      return true;
    }
    const auto lent = lender_of(source).lend(bytes);
    missing = lent ? std::error_code{} : lent.error();
    if (missing != errc::no_memory) return true;
    // Whoever holds it, for whatever publisher of ours, is to wake us when it lets go.
    for (auto& [peer, link] : links_) link->wait_for_returns();
    restless_ = true;
    return false;
  };
  drive(until, usual_budget, look);
  return missing;
}

deadline core::next_lapse(const publication& source) const noexcept {
  deadline first = deadline::never();
  if (source.gated == 0) return first;
  for (const peer_link* const link : source.routes) {
    first = std::min(first, link->lapses_at(source));
  }
  return first;
}

std::shared_ptr<room_wait> core::expect_room(publication& source, std::function<void()> wake) {
  auto made = std::make_shared<room_wait>(room_wait{.source = &source, .wake = std::move(wake)});
  waits_.push_back(made);
  return made;
}

// Whoever waits in an event loop looks for itself; nobody is woken in vain but by the end.
void core::wake_waits() {
  std::erase_if(waits_, [](const auto& each) { return each.expired(); });
  for (const auto& each : waits_) {
    const auto one = each.lock();
    if (one && (!one->source || has_room(*one->source))) one->wake();
  }
}

// Says to a publisher's node what a subscription of ours has room for.
void core::grant(node_id to, const wire::Grant& words) {
  if (!directory_.find(to)) {
    early_grants_.emplace(to, words);
    return;
  }
  peer_link& link = link_to(to);
  link.grant(words);
  restless_ = restless_ || link.restless();
}

}  // namespace bus
