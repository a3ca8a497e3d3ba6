#include "bus/route/explain.hpp"

#include "bus/base/error_code.hpp"
#include "bus/route/directory.hpp"
#include "bus/topic/name.hpp"
#include "bus/topic/nearest.hpp"
#include "bus/topic/pattern.hpp"

#include <algorithm>
#include <optional>
#include <set>

namespace bus {
namespace {

using path = explanation::path;
using party = explanation::party;
using mark = explanation::mark;

std::string plural(std::uint64_t count, const std::string& noun) {
  return std::to_string(count) + ' ' + noun + (count == 1 ? "" : "s");
}

std::string called(const node_report& node) {
  const std::string name = node.card.name().empty() ? "node" : node.card.name();
  return name + " (" + to_hex(node.id.value) + ')';
}

std::string shown(const wire::Type& type) {
  if (type.hash() == 0) return type.name().empty() ? "raw" : type.name();
  return type.name() + " (" + to_hex(type.hash()) + ')';
}

bool says_denied(const wire::Link& link) {
  const std::string word = make_error_code(errc::denied).message();
  if (link.reason().find(word) != std::string::npos) return true;
  return std::any_of(link.candidates().begin(), link.candidates().end(), [&](const auto& one) {
    return one.verdict().find(word) != std::string::npos;
  });
}

party party_of(const node_report& node, const wire::Advertisement& words) {
  return {.node = node.id,
          .node_name = node.card.name(),
          .pid = node.card.pid(),
          .number = words.publisher(),
          .name = words.topic(),
          .type = words.type().name(),
          .type_hash = words.type().hash(),
          .here = true};
}

party party_of(const node_report& node, const wire::Interest& words) {
  return {.node = node.id,
          .node_name = node.card.name(),
          .pid = node.card.pid(),
          .number = words.subscription(),
          .name = words.pattern(),
          .type = words.has_type() ? words.type().name() : "any",
          .type_hash = words.has_type() ? words.type().hash() : 0,
          .here = true};
}

party party_elsewhere(node_id node, std::string node_name) {
  return {.node = node,
          .node_name = std::move(node_name),
          .pid = 0,
          .number = 0,
          .name = {},
          .type = "unknown",
          .type_hash = 0,
          .here = false};
}

// One path, step by step. Each member returns whether the next step is worth a look.
class walk {
 public:
  walk(const census& seen, path& into) : seen_(seen), path_(into) {}

  void all(const node_report& source, const wire::Advertisement& words, const node_report& target,
           const wire::Interest& interest) {
    publisher_ = words.publisher();
    read_publisher(source);
    ok("names", words.topic() + " meets " + interest.pattern());
    if (!version(source) || !version(target) || !types(words.type(), interest)) return;
    const wire::Match* const match = find_match(source, target.id);
    const wire::Link* const link = find_link(source, target.id);
    // What the subscriber has counted is proof enough, whatever an older links file says.
    const ledger_entry* const heard =
        find_entry(target.ledger, row_kind::source, interest.subscription(), source.id, publisher_);
    describe(link);
    if (!link_is_open(link, source, target, match)) return;
    if (!attached(match, heard, source, target)) return;
    received(heard, source, target, interest);
  }

  // The subscriber is on another machine.
  void outward(const node_report& source, const wire::Match& match, const wire::Link* link) {
    publisher_ = match.publisher();
    read_publisher(source);
    ok("names", "met over a network");
    if (match.verdict().rfind("types differ", 0) == 0) {
      broken("types", match.verdict(), "build both sides with the same schema");
      return;
    }
    describe(link);
    if (!link || link->state() != "open") {
      unreachable(link);
      return;
    }
    ok("link", "open");
    if (!match.attached()) {
      broken("attached", "the peer has not let go of the announcement yet",
             "ask again in a moment; if it stays, see whether the peer is stopped");
      return;
    }
    ok("attached", "the peer has taken the announcement");
    note_unsettled(source, path_.to.node);
    step("received", mark::unknown, "its books are on its own machine: run `bus why` there");
    path_.how = path_.sent == 0 ? explanation::state::matched : explanation::state::flowing;
  }

  // The publisher is on another machine.
  void inward(const node_report& target, const ledger_entry& heard,
              const wire::Interest& interest) {
    ok("names", "met over a network");
    ok("attached", "it has announced itself");
    path_.sent = heard.counts[column::source_sequence];
    received(&heard, target, target, interest);
  }

 private:
  void step(std::string name, mark how, std::string words) {
    path_.steps.push_back({std::move(name), how, std::move(words)});
  }
  void ok(std::string name, std::string words) {
    step(std::move(name), mark::ok, std::move(words));
  }
  bool broken(std::string name, std::string words, std::string fix) {
    step(std::move(name), mark::broken, std::move(words));
    path_.how = explanation::state::broken;
    path_.fix = std::move(fix);
    return false;
  }

  void read_publisher(const node_report& source) {
    if (const auto* const row = find_entry(source.ledger, row_kind::publisher, publisher_)) {
      path_.sent = row->counts[column::published];
    }
  }

  [[nodiscard]] const wire::Match* find_match(const node_report& source, node_id peer) const {
    for (const wire::Match& one : source.links.matches()) {
      if (one.publisher() == publisher_ && one.peer() == peer.value && one.subscription() == 0) {
        return &one;
      }
    }
    return nullptr;
  }
  static const wire::Link* find_link(const node_report& source, node_id peer) {
    for (const wire::Link& one : source.links.links()) {
      if (one.peer() == peer.value) return &one;
    }
    return nullptr;
  }

  bool version(const node_report& node) {
    if (node.card.version() == card_version) return true;
    return broken("version",
                  called(node) + " speaks version " + std::to_string(node.card.version()) +
                      " of the protocol, this program version " + std::to_string(card_version),
                  "run the same release of Omnibus on both sides");
  }

  bool types(const wire::Type& ours, const wire::Interest& interest) {
    if (types_agree(ours, interest)) {
      ok("types", shown(ours) + (interest.has_type() ? " on both sides" : ", and it takes any"));
      return true;
    }
    const wire::Type& theirs = interest.type();
    const bool same_name = ours.name() == theirs.name();
    return broken("types",
                  "types differ: published is " + shown(ours) + ", subscribed is " + shown(theirs),
                  same_name ? "the name is the same and the schema is not: build both sides from "
                              "the same schema"
                            : "subscribe to " + ours.name() + ", or publish " + theirs.name() +
                                  " on a topic of its own");
  }

  void describe(const wire::Link* link) {
    if (!link) return;
    path_.proof = link->proof();
    for (const wire::Candidate& one : link->candidates()) {
      path_.candidates.push_back(
          {one.scheme(), one.address(), one.cost_ns(), one.verdict(), one.chosen()});
    }
  }

  bool unreachable(const wire::Link* link) {
    if (!link) {
      return broken("link", "the publisher has no link to it yet",
                    "ask again in a moment; if it stays, see that both use the same bus directory");
    }
    std::string words = link->state() + (link->reason().empty() ? "" : ": " + link->reason());
    if (says_denied(*link)) {
      return broken("link", "no rights: " + words,
                    "run both as one user, or share the bus directory by a group: chgrp GROUP DIR "
                    "&& chmod 2770 DIR");
    }
    if (link->state() == "opening" || link->state() == "idle") {
      return broken("link", words,
                    "ask again in a moment; if it stays, see whether the peer is stopped");
    }
    if (std::none_of(link->candidates().begin(), link->candidates().end(),
                     [](const auto& one) { return !one.address().empty(); })) {
      return broken("link", words,
                    "they have no transport in common: start both with transports::standard()");
    }
    return broken("link", words,
                  "see that the peer runs, that its addresses (above) can be reached from here, "
                  "and that no firewall stands between");
  }

  bool link_is_open(const wire::Link* link, const node_report& source, const node_report& target,
                    const wire::Match* match) {
    if (source.links_error) {
      step("link", mark::unknown,
           "the decisions of " + called(source) +
               " cannot be read: " + source.links_error.message());
      return true;
    }
    if (!link || !match) {
      if (source.looks_stopped) return stopped("link", source, "has not noticed the subscription");
      return unreachable(nullptr);
    }
    if (link->state() == "open") {
      const auto* const won = path_.winner();
      ok("link", (won ? won->scheme + ", " : "") + "open" +
                     (link->proof().empty() ? "" : ": " + link->proof()));
      return true;
    }
    if (link->state() == "opening" && target.looks_stopped) {
      return stopped("link", target, "has not answered");
    }
    return unreachable(link);
  }

  bool stopped(std::string name, const node_report& node, const std::string& what) {
    const std::string pid = std::to_string(node.card.pid());
    if (node.looks_stopped) {
      return broken(std::move(name),
                    called(node) + ' ' + what + "; its process " + pid + " is stopped, says /proc",
                    "let it go on: kill -CONT " + pid);
    }
    return broken(std::move(name), called(node) + ' ' + what,
                  "see what the thread of that node does (process " + pid +
                      "): a node takes only while take(), run() or an event loop turns it");
  }

  // Notes what the peer holds; how long it has let go of nothing, in nanoseconds, 0 if unknown.
  std::int64_t note_unsettled(const node_report& source, node_id peer) {
    const auto* const row = find_entry(source.ledger, row_kind::link, 0, peer);
    if (!row) return 0;
    path_.unsettled = row->counts[column::link_unsettled];
    if (path_.unsettled == 0) return 0;
    return seen_.steady_ns - static_cast<std::int64_t>(row->counts[column::link_moved_ns]);
  }

  bool attached(const wire::Match* match, const ledger_entry* heard, const node_report& source,
                const node_report& target) {
    const std::int64_t still_ns = note_unsettled(source, target.id);
    if (heard || (match && match->attached())) {
      ok("attached", "the subscriber has taken the announcement");
      return true;
    }
    if (path_.unsettled > 0 && still_ns > stopped_after_ns) {
      return stopped("attached", target, "has not taken the announcement");
    }
    return broken("attached", match ? match->verdict() : "not announced yet",
                  "ask again in a moment; if it stays, see whether the subscriber is stopped");
  }

  void received(const ledger_entry* heard, const node_report& source, const node_report& target,
                const wire::Interest& interest) {
    const auto* const books =
        find_entry(target.ledger, row_kind::subscription, interest.subscription());
    if (!heard || !books) {
      step("received", mark::unknown,
           target.ledger_error ? "the books of " + called(target) +
                                     " cannot be read: " + target.ledger_error.message()
                               : "the subscriber has not counted anything of this publisher");
      path_.how = explanation::state::matched;
      return;
    }
    path_.received = heard->counts[column::source_sequence];
    path_.received_known = true;
    for (std::size_t i = 0; i < loss_count; ++i) {
      path_.lost[i] = books->counts[column::lost + i];
    }
    if (!taken(source, target)) return;
    balance(*heard, *books, interest);
  }

  // Whether the subscriber takes what it is sent. That it holds some is no sign of illness as long
  // as it has counted them all: the publisher looks at its links only when it has something to do.
  bool taken(const node_report& source, const node_report& target) {
    if (source.id == target.id && !path_.from.here) return true;
    const std::int64_t still_ns = note_unsettled(source, target.id);
    if (path_.received >= path_.sent || path_.unsettled == 0) return true;
    if (still_ns <= stopped_after_ns) {
      ok("taken", plural(path_.unsettled, "sample") + " on the way");
      return true;
    }
    return stopped("taken", target,
                   "has let go of nothing for " + std::to_string(still_ns / 1'000'000'000) +
                       " s, and holds " + plural(path_.unsettled, "sample"));
  }

  void balance(const ledger_entry& heard, const ledger_entry& books,
               const wire::Interest& interest) {
    const std::uint64_t arrived = heard.counts[column::source_arrived];
    const std::uint64_t lost = heard.counts[column::source_lost];
    std::string words = plural(arrived, "sample") + " arrived, " + std::to_string(lost) +
                        " lost on the way; last sequence " + std::to_string(path_.received) +
                        " of " + std::to_string(path_.sent);
    if (arrived == 0 && lost > 0) {
      broken("received", words, loss_fix());
      return;
    }
    path_.how = arrived > 0 ? explanation::state::flowing : explanation::state::matched;
    if (arrived == 0 && path_.sent <= path_.received) words = "nothing published since it attached";
    const std::uint64_t queued = books.counts[column::queued];
    const bool full = interest.depth() > 0 && queued >= interest.depth();
    const bool losing = std::any_of(path_.lost.begin(), path_.lost.end(),
                                    [](std::uint64_t count) { return count > 0; });
    if (full) words += "; its queue is full (" + std::to_string(queued) + "): nobody takes from it";
    step("received", full || losing ? mark::warning : mark::ok, std::move(words));
    if (losing) path_.fix = loss_fix();
    if (full) path_.fix = "take() more often, or subscribe with a callback";
  }

  [[nodiscard]] std::string loss_fix() const {
    const auto lost_by = [this](loss cause) { return path_.lost[static_cast<std::size_t>(cause)]; };
    if (lost_by(loss::decode_error) > 0) return "the publisher sends bytes that its type forbids";
    if (lost_by(loss::queue_full) + lost_by(loss::overwritten) > 0) {
      return "it was slower than its publishers: take() faster, or give it more "
             "subscription_options::depth or node_options::link_depth";
    }
    if (lost_by(loss::too_big) > 0) return "the link does not carry samples of that size";
    if (lost_by(loss::cut) > 0) return "a publisher died with samples that nobody else has";
    return "the link was down; `bus info` has the numbers";
  }

  const census& seen_;
  path& path_;
  std::uint32_t publisher_ = 0;
};

// The whole answer.
class inquiry {
 public:
  inquiry(const census& seen, std::string_view topic) : seen_(seen) { told_.topic = topic; }

  explanation answer() && {
    if (const auto verdict = check_pattern(told_.topic); !verdict) {
      told_.broken = "names: '" + told_.topic +
                     "' is no topic: " + std::string(reason(verdict.fault)) + " (at byte " +
                     std::to_string(verdict.at) + ')';
      told_.fix = "mend the name";
      return std::move(told_);
    }
    for (const node_report& node : seen_.nodes) meet(node);
    for (const node_report* const source : sources_) pair(*source);
    for (const node_report* const source : living_) paths_outward(*source);
    for (const node_report* const target : targets_) paths_inward(*target);
    for (const node_report* const node : living_) note_troubles(*node);
    judge();
    return std::move(told_);
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
      unreadable_ = true;
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
    living_.push_back(&node);
    if (publishes) sources_.push_back(&node);
    if (subscribes) targets_.push_back(&node);
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
    (publishes ? dead_publisher_ : dead_subscriber_) = words;
    told_.notes.push_back(words + "; `bus gc` removes what it left behind");
  }

  void pair(const node_report& source) {
    for (const auto& words : source.card.advertisements()) {
      if (!about(words)) continue;
      for (const node_report* const target : targets_) {
        for (const auto& interest : target->card.interests()) {
          if (!matches(interest.pattern(), words.topic())) continue;
          path& made = told_.paths.emplace_back();
          made.from = party_of(source, words);
          made.to = party_of(*target, interest);
          walk(seen_, made).all(source, words, *target, interest);
        }
      }
    }
  }

  void paths_outward(const node_report& source) {
    for (const wire::Match& match : source.links.matches()) {
      const node_id peer{match.peer()};
      if (seen_.find(peer)) continue;
      const auto words = std::find_if(
          source.card.advertisements().begin(), source.card.advertisements().end(),
          [&](const auto& one) { return one.publisher() == match.publisher() && about(one); });
      if (words == source.card.advertisements().end()) continue;
      const wire::Link* link = nullptr;
      for (const wire::Link& one : source.links.links()) {
        if (one.peer() == match.peer()) link = &one;
      }
      path& made = told_.paths.emplace_back();
      made.from = party_of(source, *words);
      made.to = party_elsewhere(peer, link ? link->peer_name() : "");
      told_.subscriptions.push_back(made.to);
      walk(seen_, made).outward(source, match, link);
    }
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
        walk(seen_, made).inward(target, row, interest);
      }
      if (unnamed == 0) continue;
      told_.notes.push_back(called(target) + " hears " + plural(unnamed, "publisher") +
                            " on other machines by " + interest.pattern());
    }
  }

  // Whether other machines can reach it.
  [[nodiscard]] static bool listens(const node_report& node) {
    return std::any_of(
        node.card.addresses().begin(), node.card.addresses().end(),
        [](const std::string& each) { return each.find("tcp://") != std::string::npos; });
  }

  void note_troubles(const node_report& node) {
    const bool concerned = std::find(sources_.begin(), sources_.end(), &node) != sources_.end() ||
                           std::find(targets_.begin(), targets_.end(), &node) != targets_.end();
    if (!concerned && !(told_.publishers.empty() || told_.subscriptions.empty())) return;
    for (const wire::Link& link : node.links.links()) {
      if (link.peer() != 0) continue;
      if (link.state() == "open") {
        if (listens(node)) continue;
        unanswered_ = called(node) + " reaches " + link.peer_name() +
                      ", which cannot answer: " + called(node) + " listens nowhere";
        told_.notes.push_back(unanswered_);
        continue;
      }
      const std::string words = called(node) + " cannot reach " + link.peer_name() + " (" +
                                link.state() + (link.reason().empty() ? "" : ": " + link.reason()) +
                                ')';
      if (unreachable_.empty()) unreachable_ = words;
      told_.notes.push_back(words);
    }
    for (const std::string& trouble : node.links.troubles()) {
      told_.notes.push_back(called(node) + ": " + trouble);
    }
  }

  void judge() {
    if (told_.publishers.empty()) {
      lonely(true);
    } else if (told_.subscriptions.empty()) {
      lonely(false);
    } else if (told_.paths.empty()) {
      told_.broken = "names: no subscription meets a published name";
      told_.fix = "compare the names above";
    }
    if (!told_.broken.empty()) return;
    told_.how = explanation::state::flowing;
    for (const path& each : told_.paths) {
      told_.how = std::max(told_.how, each.how);
      if (each.how == explanation::state::broken && told_.broken.empty()) {
        const auto& last = each.steps.back();
        told_.broken = last.name + ": " + last.words;
        told_.fix = each.fix;
      }
    }
    if (!told_.fix.empty()) return;
    for (const path& each : told_.paths) {
      if (told_.fix.empty()) told_.fix = each.fix;
    }
  }

  // One side is missing. The likeliest reason first: it died, it may not be seen, it is elsewhere,
  // or the name has a typing error.
  void lonely(bool no_publisher) {
    const std::string who = no_publisher ? "publishes" : "subscribes to";
    const bool nobody = told_.publishers.empty() && told_.subscriptions.empty();
    const std::string& dead = no_publisher ? dead_publisher_ : dead_subscriber_;
    told_.how = explanation::state::broken;
    if (!dead.empty()) {
      told_.broken = "alive: " + dead;
      told_.fix = "start it again; `bus gc` removes what the dead one left behind";
      return;
    }
    told_.broken = "names: nobody " + who + ' ' + told_.topic +
                   (nobody ? ", and nobody subscribes to it" : "");
    if (const auto like = nearest_name(no_publisher)) {
      told_.fix = "did you mean " + *like + '?';
    } else if (unreadable_) {
      told_.broken = "rights: nobody whose card can be read " + who + ' ' + told_.topic;
      told_.fix = "run as the user who owns the bus directory " + seen_.directory +
                  ", or share it by a group: chgrp GROUP DIR && chmod 2770 DIR";
    } else if (!unanswered_.empty()) {
      told_.broken += "; " + unanswered_;
      told_.fix = "give it an address, too: OMNIBUS_LISTEN=tcp://*:PORT (links go one way each)";
    } else if (!unreachable_.empty()) {
      told_.broken += "; " + unreachable_;
      told_.fix =
          "see that a node listens there (OMNIBUS_LISTEN), and that no firewall stands "
          "between";
    } else {
      told_.fix = std::string("start the ") + (no_publisher ? "publisher" : "subscriber") +
                  ", with the same bus directory (" + seen_.directory + ')';
    }
  }

  // A publisher's name that a subscriber may have meant, or the reverse.
  [[nodiscard]] std::optional<std::string> nearest_name(bool no_publisher) const {
    std::set<std::string> names;
    const bool nobody = told_.publishers.empty() && told_.subscriptions.empty();
    for (const node_report* const node : living_) {
      if (no_publisher) {
        for (const auto& words : node->card.advertisements()) names.insert(words.topic());
      }
      if (no_publisher && !nobody) continue;
      for (const auto& words : node->card.interests()) {
        if (!has_wildcard(words.pattern())) names.insert(words.pattern());
      }
    }
    const auto found = nearest(told_.topic, names);
    if (!found) return std::nullopt;
    return std::string(*found);
  }

  const census& seen_;
  explanation told_;
  std::vector<const node_report*> living_;
  std::vector<const node_report*> sources_;
  std::vector<const node_report*> targets_;
  std::string dead_publisher_;
  std::string dead_subscriber_;
  std::string unreachable_;
  std::string unanswered_;
  bool unreadable_ = false;
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
