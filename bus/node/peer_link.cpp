#include "bus/node/peer_link.hpp"

#include "bus/route/runs.hpp"

#include <algorithm>
#include <utility>

namespace bus {
namespace {

// After all ways have failed: 20 ms, then twice as long each time, up to 2 s. A peer that comes up
// is noticed by its card, so this only bridges what no card tells.
constexpr std::int64_t pause_first_ns = 20'000'000;
constexpr unsigned pause_doublings_max = 7;

// The most particular lender of a route: memory that several processes read is worth more than the
// heap.
bool more_particular(const transport* one, const transport* other) noexcept {
  if (!other) return true;
  const auto rank = [](const traits& about) {
    return (about.shares_memory ? 2 : 0) + (about.reach == reach::host ? 1 : 0);
  };
  return rank(one->about()) > rank(other->about());
}

}  // namespace

peer_link::peer_link(const setup& about, ledger_row& row)
    : self_(about.self),
      peer_(about.peer),
      transports_(about.transports),
      depth_(about.depth),
      row_(row),
      ledger_(about.ledger) {}

peer_link::~peer_link() {
  for (auto& [number, one] : attachments_) {
    drop_out(one);
    close_gates(one);
  }
}

void peer_link::set_ways(std::vector<way> ways, std::string peer_name) {
  peer_name_ = std::move(peer_name);
  changed_ = true;
  if (box_) {
    const way& current = ways_[at_];
    const auto same = std::find_if(ways.begin(), ways.end(), [&](const way& one) {
      return one.transport == current.transport && one.address == current.address;
    });
    if (same != ways.end()) {
      same->verdict = current.verdict;
      at_ = static_cast<std::size_t>(same - ways.begin());
      ways_ = std::move(ways);
      return;
    }
    lose_box(errc::closed);
  }
  ways_ = std::move(ways);
  at_ = 0;
  resume_at_ns_ = 0;
}

void peer_link::want(publication& source, const appetite& whose) {
  const auto [at, fresh] = attachments_.try_emplace(source.number);
  attachment& one = at->second;
  one.source = &source;
  one.is_free = whose.is_free;
  if (!one.attached) due_.push_back(source.number);
  for (auto& [number, each] : one.gates) each.wanted = false;
  for (const auto& [number, block_for_ns] : whose.blocking) {
    own_gate& each = one.gates[number];
    each.wanted = true;
    each.state.block_for(block_for_ns);
    if (each.row) continue;
    each.row = &ledger_->take(row_kind::gate, source.number, peer_, number);
    one.counting = 0;
  }
  std::erase_if(one.gates, [&](auto& entry) {
    if (entry.second.wanted) return false;
    ledger_->release(*entry.second.row);
    no_longer_withheld(one);
    return true;
  });
  count_gates(one);
  unsettled_work_ =
      unsettled_work_ || fresh || !one.attached || one.owed || (one.counted && one.counting == 0);
  changed_ = changed_ || fresh;
}

void peer_link::unwant(publication& source, loss cause) {
  const auto at = attachments_.find(source.number);
  if (at == attachments_.end()) return;
  if (at->second.attached) {
    wire::Detach& words = farewells_.emplace_back().words;
    words.set_publisher(source.number);
    words.set_last_sequence(source.head.sequence);
    words.set_cause(static_cast<std::uint32_t>(cause));
  }
  drop_out(at->second);
  close_gates(at->second);
  attachments_.erase(at);
  unsettled_work_ = changed_ = true;
}

bool peer_link::is_confirmed(const attachment& one) noexcept {
  return one.attached && (!one.probe || one.probe.unique()) &&
         std::all_of(one.gates.begin(), one.gates.end(),
                     [](const auto& entry) { return entry.second.state.granted(); });
}

void peer_link::introduce(const wire::Introduce& words) {
  introduction_ = std::make_unique<wire::Introduce>(words);
  unsettled_work_ = true;
}

void peer_link::owe(publication& source) noexcept {
  if (!std::exchange(attachments_[source.number].owed, true)) owing_.push_back(source.number);
  unsettled_work_ = true;
}

bool peer_link::has_room() noexcept {
  if (places_ > 0 || !box_) return true;
  const std::size_t unsettled = box_->unsettled();
  places_ = unsettled < depth_ ? depth_ - static_cast<std::uint32_t>(unsettled) : 0;
  unsettled_work_ = unsettled_work_ || places_ == 0;
  return places_ > 0;
}

bool peer_link::has_much_room() noexcept {
  if (!box_) return true;
  const bool much = box_->unsettled() <= depth_ / 2;
  // Restless until then, so that a sleep arms the outbox.
  unsettled_work_ = unsettled_work_ || !much;
  return much;
}

void peer_link::attach(attachment& one) {
  wire::Control words;
  wire::Attach& attach = *words.mutable_attach();
  attach.set_publisher(one.source->number);
  attach.set_topic(one.source->topic);
  *attach.mutable_type() = one.source->type;
  if (!one.source->on_behalf_of.name().empty()) {
    *attach.mutable_on_behalf_of() = one.source->on_behalf_of;
  }
  attach.set_next_sequence(one.source->head.sequence + 1);
  if (!via().about().needs_directory) attach.set_schema(*one.source->schema);
  if (!send_control(words, &one.probe)) return;
  one.attached = true;
  one.owed = one.withheld = false;
  one.counting = 0;
  probing_.push_back(one.source->number);
  changed_ = true;
  publication& source = *one.source;
  source.routes.push_back(this);
  if (source.on_routes && source.routes.size() == 1) source.on_routes();
  count_gates(one);
  if (more_particular(&via(), source.lender)) source.lender = &via();
  source.row->set(column::attached, source.routes.size());
}

// Takes the publisher off the route; the peer learns of it by a Detach, or by our death.
void peer_link::drop_out(attachment& one) {
  if (!one.attached) return;
  one.attached = false;
  one.probe = sample();
  count_gates(one);
  for (auto& [number, each] : one.gates) {
    each.state.forget(steady_ns());
    each.told = false;
    enter(each);
  }
  one.counting = 0;
  publication& source = *one.source;
  std::erase(source.routes, this);
  if (source.on_routes && source.routes.empty()) source.on_routes();
  source.lender = nullptr;
  for (const peer_link* const left : source.routes) {
    if (more_particular(&left->via(), source.lender)) source.lender = &left->via();
  }
  source.row->set(column::attached, source.routes.size());
}

void peer_link::lose_box(std::error_code why) {
  due_.clear();
  probing_.clear();
  owing_.clear();
  for (auto& [number, one] : attachments_) {
    drop_out(one);
    one.owed = false;
    due_.push_back(number);
  }
  // Who is still there will be told again.
  for (farewell& one : farewells_) one.sent = sample();
  farewells_sent_ = 0;
  for (auto& [key, each] : promises_) each.is_due = true;
  reason_ = why.message();
  ways_[at_].verdict = (was_open_ ? "was open, then: " : "tried: ") + reason_;
  was_open_ = false;
  box_.reset();
  changed_ = unsettled_work_ = doubt_ = true;
}

void peer_link::try_next_way(std::int64_t now_ns) {
  while (at_ < ways_.size() && !box_) {
    way& one = ways_[at_];
    if (!one.worth_trying) break;
    auto made = transports_[one.transport]->connect(peer_, one.address);
    changed_ = true;
    if (made) {
      box_ = std::move(*made);
      one.verdict = "opening";
      reason_.clear();
      resume_at_ns_ = INT64_MAX;
      return;
    }
    reason_ = made.error().message();
    one.verdict = "tried: " + reason_;
    ++at_;
  }
  if (box_) return;
  at_ = 0;
  doubt_ = true;
  farewells_.clear();  // who cannot be reached at all is told nothing
  const unsigned doublings = std::min(failures_++, pause_doublings_max);
  resume_at_ns_ = now_ns + (pause_first_ns << doublings);
  if (reason_.empty()) reason_ = "no transport in common";
}

bool peer_link::step(std::int64_t now_ns) {
  if (box_ && box_->state() == link_state::gone) {
    const bool had_opened = was_open_;
    lose_box(box_->reason());
    if (had_opened) {
      at_ = 0;
    } else {
      ++at_;
    }
    // A way that was open and broke is worth a fresh start, after a pause; one that never opened
    // gives its turn to the next.
    resume_at_ns_ = had_opened ? now_ns + pause_first_ns : 0;
  }
  const bool needed = !useless();
  if (!box_ && needed && now_ns >= (resume_at_ns_ == INT64_MAX ? 0 : resume_at_ns_)) {
    try_next_way(now_ns);
  }
  if (open()) {
    if (!std::exchange(was_open_, true)) {
      ways_[at_].verdict = "chosen: it opened, and no cheaper way did";
      failures_ = 0;
      changed_ = true;
    }
    unsettled_work_ = !send_owed();
    keep_books(now_ns);
  }
  return std::exchange(changed_, false);
}

// Sends what is owed, in order of importance. True when nothing is left to send or to wait for.
bool peer_link::send_owed() {
  if (introduction_) {
    wire::Control words;
    *words.mutable_introduce() = *introduction_;
    if (!send_control(words, nullptr)) return false;
    introduction_.reset();
  }
  hear_farewells();
  return send_farewells() && send_attaches() && send_grants() && send_counts() && send_notices() &&
         hear_confirmations() && farewells_.empty();
}

// Where the peer reads what a dead sender has left, it is heard as soon as it is sent.
bool peer_link::send_farewells() {
  const bool survives = via().about().survives_crash;
  while (farewells_sent_ < farewells_.size()) {
    farewell& next = farewells_[farewells_sent_];
    wire::Control words;
    *words.mutable_detach() = next.words;
    if (!send_control(words, survives ? nullptr : &next.sent)) return false;
    if (survives) {
      farewells_.pop_front();
    } else {
      ++farewells_sent_;
    }
  }
  return true;
}

void peer_link::hear_farewells() noexcept {
  for (; farewells_sent_ > 0 && farewells_.front().sent.unique(); --farewells_sent_) {
    farewells_.pop_front();
  }
}

bool peer_link::send_attaches() {
  for (; !due_.empty(); due_.pop_front()) {
    ++steps_;
    const auto at = attachments_.find(due_.front());
    if (at == attachments_.end() || at->second.attached) continue;
    attach(at->second);
    if (!at->second.attached) return false;
  }
  return true;
}

bool peer_link::send_notices() {
  for (; !owing_.empty(); owing_.pop_back()) {
    ++steps_;
    const auto at = attachments_.find(owing_.back());
    if (at == attachments_.end() || !at->second.owed || at->second.withheld) continue;
    if (!send_notice(at->second, at->second.source->head.sequence)) return false;
    at->second.owed = false;
  }
  return true;
}

// The peer lets go of announcements in the order in which they were sent.
bool peer_link::hear_confirmations() noexcept {
  for (; !probing_.empty(); probing_.pop_front()) {
    ++steps_;
    const auto at = attachments_.find(probing_.front());
    if (at == attachments_.end() || !at->second.probe) continue;
    if (!at->second.probe.unique()) return false;
    at->second.probe = sample();
    changed_ = true;
  }
  return true;
}

bool peer_link::send_notice(attachment& one, std::uint64_t last) {
  wire::Control words;
  wire::Notice& notice = *words.mutable_notice();
  notice.set_publisher(one.source->number);
  notice.set_last_sequence(last);
  for (const auto& [number, each] : one.gates) {
    if (each.state.lapsed()) notice.add_lapsed(number);
  }
  if (!send_control(words, nullptr)) return false;
  for (auto& [number, each] : one.gates) each.told = each.state.lapsed();
  return true;
}

bool peer_link::send_control(const wire::Control& words, sample* keep) {
  const std::size_t bytes = words.ByteSizeLong();
  auto lent = via().lend(bytes);
  if (!lent) return false;
  words.SerializeWithCachedSizesToArray(reinterpret_cast<std::uint8_t*>(lent->bytes().data()));
  frame head;
  head.flags = frame_flag::control;
  head.node = self_.value;
  head.sent_ns = wall_ns();
  head.bytes = bytes;
  const sample ready = std::move(*lent).commit(head);
  const auto sent = box_->send(std::span(&ready, 1));
  if (sent.value_or(std::size_t{0}) != 1) return false;
  if (keep) *keep = ready;
  return true;
}

bool peer_link::restless() const noexcept {
  if (!box_) return !useless();
  return unsettled_work_ || box_->state() != link_state::open;
}

bool peer_link::arm() noexcept { return !box_ || box_->arm(); }

bool peer_link::useless() const noexcept {
  return attachments_.empty() && farewells_.empty() && !introduction_ && promises_.empty();
}

bool peer_link::over_network() const noexcept {
  return box_ && via().about().reach == reach::network;
}

void peer_link::keep_books(std::int64_t now_ns) noexcept {
  if (!box_) return;
  const link_figures figures = box_->figures();
  const std::uint64_t unsettled = box_->unsettled();
  if (unsettled < row_.get(column::link_unsettled) || unsettled == 0) {
    row_.set(column::link_moved_ns, static_cast<std::uint64_t>(now_ns));
  }
  row_.set(column::link_taken, figures.taken);
  row_.set(column::link_full, figures.full);
  row_.set(column::link_bytes, figures.bytes);
  row_.set(column::link_copied, figures.copied);
  row_.set(column::link_wakeups, figures.wakeups);
  row_.set(column::link_unsettled, unsettled);
  row_.set(column::link_fallen, figures.fallen);
}

void peer_link::describe(wire::Link& into) const {
  into.set_peer(peer_.value);
  into.set_peer_name(peer_name_);
  for (const auto& [number, one] : attachments_) {
    add_to_runs(is_confirmed(one) ? *into.mutable_attached() : *into.mutable_waiting(), number);
  }
  for (std::size_t i = 0; i < ways_.size(); ++i) {
    wire::Candidate& candidate = *into.add_candidates();
    candidate.set_scheme(ways_[i].scheme);
    candidate.set_address(ways_[i].address);
    candidate.set_cost_ns(ways_[i].cost_ns);
    candidate.set_verdict(ways_[i].verdict);
    candidate.set_chosen(i == at_ && open());
  }
  if (!box_) {
    into.set_state(failures_ > 0 ? "unreachable" : "idle");
    into.set_reason(reason_);
    return;
  }
  into.set_state(open() ? "open" : "opening");
  into.set_proof(box_->describe());
}

}  // namespace bus
