#include "examples/quakes/desk.hpp"

#include "bus/base/clock.hpp"

#include <utility>

namespace demo {

void count(Tally& into, Entry::Kind kind) {
  if (kind == Entry::KIND_LIVE) into.set_live(into.live() + 1);
  if (kind == Entry::KIND_RECOVERED) into.set_recovered(into.recovered() + 1);
  if (kind == Entry::KIND_TWICE) into.set_twice(into.twice() + 1);
}

desk::desk(bus::node& node, setup wanted)
    : node_(node),
      wanted_(std::move(wanted)),
      journal_(wanted_.journal),
      described_ns_(bus::steady_ns()) {
  for (const Entry& entry : journal_.before()) recall(entry);
  // Before the subscriptions: what is missing can be asked for as soon as it is known.
  quake_listener_ = node_.subscribe<Quake>(
      "quakes/**", [this](const bus::received<Quake>& quake) { hear(quake); });
  if (wanted_.hears_alerts) {
    alert_listener_ = node_.subscribe<Alert>(
        "alerts/*", [this](const bus::received<Alert>& alert) { hear(alert); });
  }
  roll_listener_ = node_.subscribe<Roll>("replay/roll/*",
                                         [this](const bus::received<Roll>& roll) { check(*roll); });
}

void desk::recall(const Entry& entry) {
  const bool is_quake = entry.has_quake() || !entry.key().empty();
  shelf& into = is_quake ? quakes_ : alerts_;
  count(into.tally, entry.kind());
  if (entry.has_quake()) {
    into.known.insert(key_of(entry.quake()));
    note_revision(entry.quake());
    if (wanted_.on_quake) wanted_.on_quake(entry.quake());
  }
  if (entry.has_alert()) into.known.insert(key_of(entry.alert()));
}

bool desk::take(shelf& into, Entry& entry, const std::string& key) {
  const bool is_new = !into.known.contains(key);
  const bool was_asked = into.asked.erase(key) != 0;
  if (is_new) {
    entry.set_kind(was_asked ? Entry::KIND_RECOVERED : Entry::KIND_LIVE);
  } else {
    entry.set_kind(Entry::KIND_TWICE);
  }
  journal_.append(entry);
  into.known.insert(key);
  count(into.tally, entry.kind());
  return is_new;
}

void desk::hear(const bus::received<Quake>& quake) {
  measure(topic_of(*quake), quake.head());
  const std::string key = key_of(*quake);
  Entry entry;
  if (quakes_.known.contains(key)) {
    entry.set_key(key);
  } else {
    *entry.mutable_quake() = *quake;
  }
  if (!take(quakes_, entry, key)) return;
  note_revision(*quake);
  if (wanted_.on_quake) wanted_.on_quake(*quake);
}

void desk::hear(const bus::received<Alert>& alert) {
  measure(topic_of(*alert), alert.head());
  const std::string key = key_of(*alert);
  Entry entry;
  if (alerts_.known.contains(key)) {
    entry.set_alert_key(key);
  } else {
    *entry.mutable_alert() = *alert;
  }
  take(alerts_, entry, key);
}

void desk::measure(const std::string& topic, const bus::frame& head) {
  topics_[topic].latency.add(bus::wall_ns() - head.sent_ns);
}

void desk::note_revision(const Quake& quake) {
  const auto [known, is_new] = latest_.try_emplace(quake.id(), quake.updated_ms());
  if (is_new) return;
  Tally& tally = quakes_.tally;
  if (quake.updated_ms() < known->second) {
    tally.set_stale(tally.stale() + 1);
  } else {
    tally.set_revised(tally.revised() + 1);
    known->second = quake.updated_ms();
  }
}

void desk::check(const Roll& roll) {
  const bool is_alerts = roll.source() == "alerts";
  if (is_alerts && !wanted_.hears_alerts) return;
  shelf& mine = is_alerts ? alerts_ : quakes_;
  Again again;
  for (const std::string& key : roll.keys()) {
    if (mine.known.contains(key)) continue;
    again.add_keys(key);
    mine.asked.insert(key);
  }
  if (again.keys().empty()) return;
  again.set_subscriber(wanted_.name);
  again.set_source(roll.source());
  auto asker = askers_.find(roll.source());
  if (asker == askers_.end()) {
    auto made = node_.advertise<Again>("replay/again/" + roll.source());
    asker = askers_.emplace(roll.source(), std::move(made)).first;
  }
  // Lost or not: the roll is called again, and then so do we.
  static_cast<void>(asker->second.publish(again));
}

void desk::describe(Status& into) {
  *into.mutable_quakes() = quakes_.tally;
  *into.mutable_alerts() = alerts_.tally;
  const std::int64_t now = bus::steady_ns();
  const double seconds = static_cast<double>(now - described_ns_) / 1e9;
  described_ns_ = now;
  for (auto& [topic, one] : topics_) {
    const std::uint64_t count_now = one.latency.count();
    if (seconds > 0) {
      // Half of the old figure, half of the new one: calm enough to be read.
      const auto came = static_cast<double>(count_now - std::exchange(one.counted, count_now));
      one.rate = (one.rate + came / seconds) / 2;
    }
    TopicFigures& words = *into.add_topics();
    words.set_topic(topic);
    words.set_count(count_now);
    words.set_rate(one.rate);
    words.set_p50_us(one.latency.quantile_us(0.50));
    words.set_p99_us(one.latency.quantile_us(0.99));
  }
  const bus::accounts books = quake_listener_->accounts();
  into.set_expected(books.expected);
  into.set_delivered(books.delivered);
  into.set_balanced(books.balanced());
  for (std::size_t i = 0; i < bus::loss_count; ++i) {
    if (books.lost[i] == 0) continue;
    Loss& loss = *into.add_losses();
    loss.set_cause(std::string(bus::name_of(static_cast<bus::loss>(i))));
    loss.set_count(books.lost[i]);
  }
}

}  // namespace demo
