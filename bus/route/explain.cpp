// Who has to do with a topic, and which pairs of them are a path: the dead, the hidden and those on
// other machines included. Each path is followed in explain_path.hpp, and explain_verdict.hpp says
// what they mean together.
#include "bus/route/explain.hpp"

#include "bus/route/directory.hpp"
#include "bus/route/explain_path.hpp"
#include "bus/route/explain_verdict.hpp"
#include "bus/route/explain_words.hpp"
#include "bus/topic/name.hpp"
#include "bus/topic/pattern.hpp"

#include <algorithm>
#include <utility>

namespace bus {
namespace {

using namespace explaining;
using path = explanation::path;

class inquiry {
 public:
  inquiry(const census& seen, std::string_view topic) : seen_(seen), found_(seen) {
    told_.topic = topic;
  }

  explanation answer() && {
    if (const auto verdict = check_pattern(told_.topic); !verdict) {
      told_.broken = "names: '" + told_.topic +
                     "' is no topic: " + std::string(reason(verdict.fault)) + " (at byte " +
                     std::to_string(verdict.at) + ')';
      told_.fix = "mend the name";
      return std::move(told_);
    }
    for (const node_report& node : seen_.nodes) meet(node);
    for (const node_report* const source : found_.sources) pair(*source);
    for (const node_report* const source : found_.living) paths_outward(*source);
    for (const node_report* const target : found_.targets) paths_inward(*target);
    return judge(std::move(found_));
  }

 private:
  [[nodiscard]] bool about(const wire::Advertisement& words) const {
    return matches(told_.topic, words.topic());
  }
  [[nodiscard]] bool about(const wire::Interest& words) const {
    return overlaps(told_.topic, words.pattern());
  }

  void meet(const node_report& node) {
    if (node.card_error) {
      if (node.life == liveness::dead) return;
      found_.unreadable = true;
      told_.notes.push_back("the card of node " + to_hex(node.id.value) +
                            " cannot be read: " + node.card_error.message());
      return;
    }
    bool publishes = false;
    bool subscribes = false;
    for (const auto& words : node.card.advertisements()) {
      if (!about(words)) continue;
      publishes = true;
      if (node.life != liveness::dead) told_.publishers.push_back(party_of(node, words));
    }
    for (const auto& words : node.card.interests()) {
      if (!about(words)) continue;
      subscribes = true;
      if (node.life != liveness::dead) told_.subscriptions.push_back(party_of(node, words));
    }
    if (node.life == liveness::dead) {
      if (publishes || subscribes) bury(node, publishes);
      return;
    }
    found_.living.push_back(&node);
    if (publishes) found_.sources.push_back(&node);
    if (subscribes) found_.targets.push_back(&node);
  }

  void bury(const node_report& node, bool publishes) {
    std::string words = called(node) + " is dead; it ";
    words += publishes ? "published" : "subscribed to";
    words += " this";
    for (const ledger_entry& row : node.ledger.entries) {
      if (row.kind != row_kind::publisher) continue;
      for (const auto& each : node.card.advertisements()) {
        if (each.publisher() == row.number && about(each)) {
          words += ", up to sequence " + std::to_string(row.counts[column::published]);
        }
      }
    }
    (publishes ? found_.dead_publisher : found_.dead_subscriber) = words;
    told_.notes.push_back(words + "; `bus gc` removes what it left behind");
  }

  void pair(const node_report& source) {
    for (const auto& words : source.card.advertisements()) {
      if (!about(words)) continue;
      for (const node_report* const target : found_.targets) {
        for (const auto& interest : target->card.interests()) {
          if (!matches(interest.pattern(), words.topic())) continue;
          if (source.id == target->id &&
              is_own_voice(words.on_behalf_of(), interest.on_behalf_of())) {
            continue;
          }
          path& made = told_.paths.emplace_back();
          made.from = party_of(source, words);
          made.to = party_of(*target, interest);
          follow_here(seen_, made, source, words, *target, interest);
        }
      }
    }
  }

  void paths_outward(const node_report& source) {
    for (const auto& words : source.card.advertisements()) {
      if (!about(words)) continue;
      for (const wire::Match& match : matches_of(source, words.publisher())) {
        path_outward(source, words, match);
      }
    }
  }

  void path_outward(const node_report& source, const wire::Advertisement& words,
                    const wire::Match& match) {
    const node_id peer{match.peer()};
    if (seen_.find(peer)) return;
    const wire::Link* link = nullptr;
    for (const wire::Link& one : source.links.links()) {
      if (one.peer() == match.peer()) link = &one;
    }
    path& made = told_.paths.emplace_back();
    made.from = party_of(source, words);
    made.to = party_elsewhere(peer, link ? link->peer_name() : "");
    told_.subscriptions.push_back(made.to);
    follow_outward(seen_, made, source, match, link);
  }

  // A pattern with wildcards hears many topics, and only the subscriber knows which of them come
  // from elsewhere.
  void paths_inward(const node_report& target) {
    for (const wire::Interest& interest : target.card.interests()) {
      if (!about(interest)) continue;
      std::uint64_t unnamed = 0;
      for (const ledger_entry& row : target.ledger.entries) {
        if (row.kind != row_kind::source || row.number != interest.subscription()) continue;
        if (row.counts[column::source_gone] != 0 || seen_.find(row.peer)) continue;
        if (has_wildcard(interest.pattern())) {
          ++unnamed;
          continue;
        }
        path& made = told_.paths.emplace_back();
        made.from = party_elsewhere(row.peer, "");
        made.from.name = interest.pattern();
        made.to = party_of(target, interest);
        told_.publishers.push_back(made.from);
        follow_inward(seen_, made, target, row, interest);
      }
      if (unnamed == 0) continue;
      told_.notes.push_back(called(target) + " hears " + plural(unnamed, "publisher") +
                            " on other machines by " + interest.pattern());
    }
  }

  const census& seen_;
  findings found_;
  explanation& told_ = found_.told;
};

}  // namespace

const explanation::candidate* explanation::path::winner() const noexcept {
  for (const candidate& one : candidates) {
    if (one.chosen) return &one;
  }
  return nullptr;
}

explanation explain(const census& seen, std::string_view topic) {
  return inquiry(seen, topic).answer();
}

}  // namespace bus
