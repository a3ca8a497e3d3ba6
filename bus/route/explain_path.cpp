#include "bus/route/explain_path.hpp"

#include "bus/base/error_code.hpp"
#include "bus/route/directory.hpp"
#include "bus/route/explain_words.hpp"
#include "bus/route/runs.hpp"

#include <algorithm>
#include <optional>
#include <utility>

namespace bus::explaining {
namespace {

using mark = explanation::mark;
using path = explanation::path;

bool says(const wire::Link& link, errc why) {
  const std::string word = make_error_code(why).message();
  if (link.reason().find(word) != std::string::npos) return true;
  return std::any_of(link.candidates().begin(), link.candidates().end(), [&](const auto& one) {
    return one.verdict().find(word) != std::string::npos;
  });
}

// One path, step by step. Each member returns whether the next step is worth a look.
class walk {
 public:
  walk(const census& seen, path& into) : seen_(seen), path_(into) {}

  void here(const node_report& source, const wire::Advertisement& words, const node_report& target,
            const wire::Interest& interest) {
    publisher_ = words.publisher();
    read_publisher(source);
    ok("names", words.topic() + " meets " + interest.pattern());
    if (!version(source) || !version(target) || !types(words.type(), interest)) return;
    const std::optional<wire::Match> match = find_match(source, target.id);
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

  [[nodiscard]] std::optional<wire::Match> find_match(const node_report& source,
                                                      node_id peer) const {
    for (const wire::Match& one : matches_of(source, publisher_)) {
      if (one.peer() == peer.value && one.subscription() == 0) return one;
    }
    return std::nullopt;
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
    if (says(*link, errc::denied) || says(*link, errc::stranger)) {
      return broken("link", "no rights: " + words,
                    "run both as one user, or share the bus directory by a group: chgrp GROUP DIR "
                    "&& chmod 2770 DIR");
    }
    if (says(*link, errc::no_memory)) {
      return broken("link", words,
                    "one side was refused shared memory: give that process more (ulimit -v, "
                    "ulimit -f, its cgroup's memory.max), and ask `bus doctor` there");
    }
    if (says(*link, errc::quota)) {
      return broken("link", words,
                    "close links or nodes of this user, or give the peer more descriptors "
                    "(ulimit -n)");
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

  // Wakeups that a signal should have made and an eventfd did, as the sender's ledger counts them.
  [[nodiscard]] static std::string fallen(const node_report& source, const node_report& target) {
    const ledger_entry* const row = find_entry(source.ledger, row_kind::link, 0, target.id);
    const std::uint64_t count = row ? row->counts[column::link_fallen] : 0;
    if (count == 0) return {};
    return ", " + std::to_string(count) + " wakeups fell to event: signals are refused";
  }

  bool link_is_open(const wire::Link* link, const node_report& source, const node_report& target,
                    const std::optional<wire::Match>& match) {
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
                     (link->proof().empty() ? "" : ": " + link->proof()) + fallen(source, target));
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

  bool attached(const std::optional<wire::Match>& match, const ledger_entry* heard,
                const node_report& source, const node_report& target) {
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
    room(source, target, interest);
    if (!taken(source, target)) return;
    balance(*heard, *books, interest);
  }

  // Whether a subscription that blocks holds its publisher up, as that one's books say.
  void room(const node_report& source, const node_report& target, const wire::Interest& interest) {
    const auto* const gate =
        find_entry(source.ledger, row_kind::gate, publisher_, target.id, interest.subscription());
    if (!gate) return;
    const auto& counts = gate->counts;
    const auto since_ns = static_cast<std::int64_t>(counts[column::gate_since_ns]);
    is_blocked_ = since_ns != 0;
    if (!is_blocked_) {
      ok("room", "it blocks; it was waited for " + plural(counts[column::gate_waits], "time") +
                     ", " + seconds_of(static_cast<std::int64_t>(counts[column::gate_waited_ns])) +
                     " in all");
      return;
    }
    std::string words = "blocked by " + called(target) + " for " +
                        seconds_of(seen_.steady_ns - since_ns) + ": its subscription " +
                        std::to_string(interest.subscription()) + " has no place for the next";
    if (counts[column::gate_lapsed] != 0) {
      words += "; its deadline of " + seconds_of(interest.block_for_ns()) + " is over, and " +
               plural(counts[column::gate_expired], "sample") + " went on without it";
    }
    step("room", mark::warning, std::move(words));
    path_.fix = "take() faster there, or give it more subscription_options::depth";
  }

  // Whether the subscriber takes what it is sent. That it holds some is no sign of illness as long
  // as it has counted them all: the publisher looks at its links only when it has something to do.
  bool taken(const node_report& source, const node_report& target) {
    if (source.id == target.id && !path_.from.here) return true;
    const std::int64_t still_ns = note_unsettled(source, target.id);
    if (path_.received >= path_.sent || path_.unsettled == 0) return true;
    // What a full queue holds is not let go of, and the rest was not sent.
    if (is_blocked_ && !target.looks_stopped) return true;
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
  bool is_blocked_ = false;
};

}  // namespace

void follow_here(const census& seen, path& into, const node_report& source,
                 const wire::Advertisement& words, const node_report& target,
                 const wire::Interest& interest) {
  walk(seen, into).here(source, words, target, interest);
}

std::vector<wire::Match> matches_of(const node_report& source, std::uint32_t publisher) {
  std::vector<wire::Match> all;
  for (const wire::Match& one : source.links.matches()) {
    if (one.publisher() == publisher) all.push_back(one);
  }
  for (const wire::Link& link : source.links.links()) {
    const bool is_attached = in_runs(link.attached(), publisher);
    if (!is_attached && !in_runs(link.waiting(), publisher)) continue;
    wire::Match& one = all.emplace_back();
    one.set_publisher(publisher);
    one.set_peer(link.peer());
    one.set_attached(is_attached);
    one.set_verdict(is_attached ? "attached" : "waiting for the link");
  }
  return all;
}

void follow_outward(const census& seen, path& into, const node_report& source,
                    const wire::Match& match, const wire::Link* link) {
  walk(seen, into).outward(source, match, link);
}

void follow_inward(const census& seen, path& into, const node_report& target,
                   const ledger_entry& heard, const wire::Interest& interest) {
  walk(seen, into).inward(target, heard, interest);
}

}  // namespace bus::explaining
