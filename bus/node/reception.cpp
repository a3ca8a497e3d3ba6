#include "bus/node/reception.hpp"

#include "bus/route/directory.hpp"
#include "bus/topic/name.hpp"
#include "bus/topic/pattern.hpp"

#include <algorithm>

namespace bus {
namespace {

// An introduction carries cards of every node that somebody knows; nothing else comes near this.
constexpr std::size_t control_bytes_max = 64 << 20;

// For whom a publisher waits no longer, what it left out has another name.
loss cause_for(const window& promised, loss cause) noexcept {
  return promised.lapsed && cause == loss::queue_full ? loss::expired : cause;
}

}  // namespace

// Calls visit for each source that the pattern may meet: all, or those of one topic.
template <class Visitor>
void reception::for_each_source(const std::string& pattern, Visitor&& visit) {
  if (has_wildcard(pattern)) {
    for (auto& [key, known] : sources_) visit(known);
    return;
  }
  by_topic_.for_each(pattern, visit);
}

void reception::add(std::shared_ptr<subscription> one) {
  if (one->blocks()) one->on_room = [this, at = one.get()] { offer_places(*at); };
  const std::string& pattern = one->interest().pattern();
  for_each_source(pattern, [&](source& known) {
    if (!known.gone) meet(known, one);
  });
  static_cast<void>(patterns_.insert(pattern, one->number()));
  subscriptions_.emplace(one->number(), std::move(one));
}

void reception::remove(const subscription& one) {
  const std::string& pattern = one.interest().pattern();
  for_each_source(pattern, [&](source& known) {
    for (target& each : known.targets) {
      if (each.to.get() != &one) continue;
      if (each.to->blocks()) {
        if (!known.gone) each.to->credit().leave(each.promised);
        around_.revoke(known.key.first, known.key.second, each.to->number());
      }
      ledger_.release(*each.row);
      ended_.push_back(std::move(each.to));
      to_sweep_.push_back(&known);
    }
  });
  static_cast<void>(patterns_.remove(pattern, one.number()));
  subscriptions_.erase(one.number());
  if (!delivering_) sweep();
}

// Forgets the targets whose subscriptions have ended.
void reception::sweep() noexcept {
  for (source* const known : to_sweep_) {
    std::erase_if(known->targets, [](const target& each) { return !each.to; });
  }
  to_sweep_.clear();
  ended_.clear();
}

std::size_t reception::sources_of(const subscription& one) const {
  return one.row().get(column::sources);
}

source_event reception::event_of(const source& one) noexcept {
  return {.node = one.key.first,
          .publisher = one.key.second,
          .topic = one.topic,
          .type = one.type,
          .last = one.account.last()};
}

// Joins a source and a subscription if pattern and type agree.
void reception::meet(source& one, const std::shared_ptr<subscription>& to) {
  ++steps_;
  if (!matches(to->interest().pattern(), one.topic) || !types_agree(one.type, to->interest()))
    return;
  if (one.key.first == around_.self &&
      is_own_voice(one.on_behalf_of, to->interest().on_behalf_of())) {
    return;
  }
  ledger_row& row = ledger_.take(row_kind::source, to->number(), one.key.first, one.key.second);
  row.set(column::source_sequence, one.account.last());
  one.targets.push_back({.to = to, .row = &row});
  to->row().add(column::sources, 1);
  to->met();
  to->joined_by(event_of(one));
  if (!to->blocks()) return;
  // Nothing is granted before the publisher says that it counts.
  to->credit().join(one.targets.back().promised, one.came);
  to->make_room();
}

// From here on a publisher counts what it sends us.
void reception::count(node_id from, const wire::Count& words) {
  source* const one = find(from, words.publisher());
  if (!one || one->gone || words.number() == 0) return;
  one->counting = words.number();
  one->came = 0;
  for (target& each : one->targets) {
    if (!each.to->blocks()) continue;
    each.counted = true;
    each.to->credit().leave(each.promised);
    each.to->credit().join(each.promised, 0);
    static_cast<void>(each.to->credit().raise(each.promised, 0, each.to->queued()));
    // Also if there is no place: that it is known is worth knowing.
    say_places({from, words.publisher()}, *one, each);
  }
}

// Whether what has just come was promised a place; before anybody counted, any that is spare does.
bool reception::has_place(const source& one, const target& each) noexcept {
  if (!each.counted) return each.to->credit().has_spare(each.to->queued());
  return one.came <= each.promised.limit;
}

void reception::say_places(source_key key, const source& one, const target& each) const {
  wire::Grant words;
  words.set_publisher(key.second);
  words.set_subscription(each.to->number());
  words.set_counting(one.counting);
  words.set_limit(each.promised.limit);
  around_.grant(key.first, words);
}

void reception::offer_places(source_key key, const source& one, target& each) noexcept {
  if (!each.counted) return;
  if (!each.to->credit().raise(each.promised, one.came, each.to->queued())) return;
  try {
    say_places(key, one, each);
  } catch (...) {
    // Out of memory: the publisher waits until its deadline for what the next grant will say.
    if (!trouble_) trouble_ = std::current_exception();
  }
}

// Places of this subscription were left: whom among its publishers shall they be promised to?
void reception::offer_places(const subscription& to) noexcept {
  for_each_source(to.interest().pattern(), [&](source& known) {
    if (known.gone) return;
    for (target& each : known.targets) {
      if (each.to.get() == &to) offer_places(known.key, known, each);
    }
  });
}

reception::source* reception::find(node_id node, std::uint32_t publisher) noexcept {
  const source_key key{node, publisher};
  if (recent_ && recent_key_ == key) return recent_;
  const auto at = sources_.find(key);
  if (at == sources_.end()) return nullptr;
  recent_key_ = key;
  recent_ = &at->second;
  return recent_;
}

reception::provenance reception::provenance_of(node_id node, std::uint32_t publisher) noexcept {
  const source* const one = find(node, publisher);
  return one ? provenance{.topic = &one->topic, .type = &one->type} : provenance{};
}

void reception::charge(source& one, std::uint64_t missing, loss cause) noexcept {
  if (missing == 0) return;
  for (target& each : one.targets) {
    each.to->row().add(column::expected, missing);
    each.to->row().lose(cause_for(each.promised, cause), missing);
    each.row->add(column::source_lost, missing);
    each.row->set(column::source_sequence, one.account.last());
  }
}

void reception::accept(sample&& arrived) noexcept {
  try {
    const frame& head = arrived.head();
    if ((head.flags & frame_flag::control) != 0) {
      control(arrived);
      return;
    }
    source* const from = find(node_id{head.node}, head.publisher);
    if (!from || from->gone) {
      ++strays_;
      if (around_.turned_away) around_.turned_away(arrived.messages());
      return;
    }
    const std::uint32_t messages = arrived.messages();
    if (messages == 0) {
      ++strays_;
      return;
    }
    from->came += messages;
    const auto [stale, missing] = from->account.arrived(head.sequence, messages);
    if (stale == messages) return;
    charge(*from, missing, loss::queue_full);
    deliver(*from, std::move(arrived), messages, static_cast<std::uint32_t>(stale));
  } catch (...) {
    // Out of memory for the words of a control message.
    if (!trouble_) trouble_ = std::current_exception();
  }
}

// Hands a sample to each subscription that it meets. A callback may subscribe, end a subscription
// (its own, too), or throw: none of this is to cost another subscription its sample.
void reception::deliver(source& from, sample&& arrived, std::uint32_t messages,
                        std::uint32_t stale) noexcept {
  const std::size_t count = from.targets.size();  // those who subscribe now begin after this one
  delivering_ = true;
  for (std::size_t i = 0; i < count; ++i) {
    const target& each = from.targets[i];
    if (!each.to) continue;
    subscription& to = *each.to;  // kept in ended_ should it end now
    each.row->set(column::source_sequence, from.account.last());
    each.row->add(column::source_arrived, messages - stale);
    to.row().add(column::expected, messages - stale);
    if (to.blocks() && !has_place(from, each)) {
      to.row().lose(cause_for(each.promised, loss::queue_full), messages - stale);
      continue;
    }
    try {
      if (i + 1 == count) {
        // NOLINTNEXTLINE(bugprone-use-after-move): moved by the last one alone.
        to.accept(std::move(arrived), messages, stale);
      } else {
        to.accept(sample(arrived), messages, stale);
      }
    } catch (...) {
      // A callback's exception is the user's: it comes out of the call that pumped the node.
      if (!trouble_) trouble_ = std::current_exception();
    }
    if (to.blocks() && from.targets[i].to) offer_places(from.key, from, from.targets[i]);
  }
  delivering_ = false;
  if (!ended_.empty()) sweep();
}

void reception::control(const sample& arrived) {
  wire::Control words;
  const auto bytes = arrived.payload();
  if (bytes.size() > control_bytes_max ||
      !words.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    ++strays_;
    return;
  }
  const node_id from{arrived.head().node};
  switch (words.what_case()) {
    case wire::Control::kAttach:
      attach(from, words.attach());
      break;
    case wire::Control::kDetach:
      detach(from, words.detach());
      break;
    case wire::Control::kNotice:
      notice(from, words.notice());
      break;
    case wire::Control::kCount:
      count(from, words.count());
      break;
    case wire::Control::kGrant:
      around_.granted(from, words.grant());
      break;
    case wire::Control::kIntroduce:
      around_.introduced(from, words.introduce());
      break;
    case wire::Control::WHAT_NOT_SET:
      ++strays_;
      break;
  }
}

void reception::notice(node_id from, const wire::Notice& words) {
  source* const one = find(from, words.publisher());
  if (!one) return;
  charge(*one, one->account.published_up_to(words.last_sequence()), loss::queue_full);
  for (target& each : one->targets) {
    each.promised.lapsed = std::find(words.lapsed().begin(), words.lapsed().end(),
                                     each.to->number()) != words.lapsed().end();
  }
}

void reception::attach(node_id from, const wire::Attach& words) {
  if (!check_name(words.topic())) {
    ++strays_;
    return;
  }
  if (around_.admits && !around_.admits(from, words)) return;
  if (!words.schema().empty()) around_.schema_seen(words);
  const source_key key{from, words.publisher()};
  const auto known = sources_.find(key);
  if (known != sources_.end()) {
    // The link was away, or the publisher chose another one. What it published meanwhile is lost.
    source& one = known->second;
    if (words.next_sequence() > 0) {
      charge(one, one.account.published_up_to(words.next_sequence() - 1), loss::no_link);
    }
    // What it was promised it has forgotten.
    leave(one);
    one.gone = false;
    for (target& each : one.targets) {
      each.counted = false;
      each.row->set(column::source_gone, 0);
      each.to->row().add(column::sources, 1);
      each.to->met();
      if (each.to->blocks()) each.to->credit().join(each.promised, 0);
    }
    return;
  }
  source& one = sources_[key];
  one.key = key;
  one.topic = words.topic();
  by_topic_.add(one);
  one.type = words.type();
  one.on_behalf_of = words.on_behalf_of();
  one.account = source_account(words.next_sequence());
  std::vector<std::uint32_t> met;
  patterns_.match(one.topic, [&](std::uint32_t number) { met.push_back(number); });
  // In the order in which they were made, whatever their patterns.
  std::sort(met.begin(), met.end());
  for (const std::uint32_t number : met) meet(one, subscriptions_.at(number));
}

void reception::detach(node_id from, const wire::Detach& words) {
  const auto at = sources_.find({from, words.publisher()});
  if (at == sources_.end()) return;
  const loss cause =
      words.cause() < loss_count ? static_cast<loss>(words.cause()) : loss::queue_full;
  charge(at->second, at->second.account.published_up_to(words.last_sequence()), cause);
  leave(at->second);
  forget(at, cause);
}

void reception::leave(source& one) noexcept {
  if (one.gone) return;
  one.gone = true;
  for (target& each : one.targets) {
    each.row->set(column::source_gone, 1);
    ledger_row& row = each.to->row();
    row.set(column::sources, row.get(column::sources) - 1);
    if (each.to->blocks()) each.to->credit().leave(each.promised);
  }
}

void reception::forget(std::map<source_key, source>::iterator at, loss cause) {
  for (target& each : at->second.targets) {
    each.to->left_by(event_of(at->second), cause);
    ledger_.release(*each.row);
    if (!each.to->blocks()) continue;
    around_.revoke(at->first.first, at->first.second, each.to->number());
  }
  if (recent_ == &at->second) recent_ = nullptr;
  by_topic_.remove(at->second);
  std::erase(to_sweep_, &at->second);
  sources_.erase(at);
}

void reception::left(node_id peer, std::error_code /*reason*/) noexcept {
  for (auto at = sources_.lower_bound({peer, 0}); at != sources_.end() && at->first.first == peer;
       ++at) {
    leave(at->second);
  }
  around_.departed(peer);
}

bool reception::hears(node_id peer) const noexcept {
  for (auto at = sources_.lower_bound({peer, 0}); at != sources_.end() && at->first.first == peer;
       ++at) {
    if (!at->second.gone) return true;
  }
  return false;
}

void reception::bury(node_id dead,
                     const std::function<std::optional<std::uint64_t>(std::uint32_t)>& last_words) {
  auto at = sources_.lower_bound({dead, 0});
  while (at != sources_.end() && at->first.first == dead) {
    const auto next = std::next(at);
    if (const auto last = last_words(at->first.second)) {
      charge(at->second, at->second.account.published_up_to(*last), loss::cut);
    }
    leave(at->second);
    forget(at, loss::cut);
    at = next;
  }
}

}  // namespace bus
