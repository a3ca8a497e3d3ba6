#include "bus/route/explain_verdict.hpp"

#include "bus/route/explain_words.hpp"
#include "bus/topic/nearest.hpp"
#include "bus/topic/pattern.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

namespace bus::explaining {
namespace {

class verdict {
 public:
  explicit verdict(findings&& found) : found_(std::move(found)) {}

  explanation answer() && {
    for (const node_report* const node : found_.living) {
      note_refusals(*node);
      note_troubles(*node);
    }
    judge_all();
    return std::move(told_);
  }

 private:
  // Whether other machines can reach it.
  [[nodiscard]] static bool listens(const node_report& node) {
    return std::any_of(
        node.card.addresses().begin(), node.card.addresses().end(),
        [](const std::string& each) { return each.find("tcp://") != std::string::npos; });
  }

  // What a child that is locked in asked for, and did not get.
  void note_refusals(const node_report& node) {
    for (const wire::Refused& one : node.links.refused()) {
      if (!overlaps(told_.topic, one.name())) continue;
      const std::string child = called(one.child());
      const std::string words = called(node) + (child.empty() ? "" : ": its child " + child + ',') +
                                " may not " + one.verb() + ' ' + one.name() + ": " + one.reason();
      if (refused_.empty()) refused_ = words;
      told_.notes.push_back(words);
    }
  }

  void note_troubles(const node_report& node) {
    const bool concerned =
        std::find(found_.sources.begin(), found_.sources.end(), &node) != found_.sources.end() ||
        std::find(found_.targets.begin(), found_.targets.end(), &node) != found_.targets.end();
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

  void judge_all() {
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
    for (const explanation::path& each : told_.paths) {
      told_.how = std::max(told_.how, each.how);
      if (each.how == explanation::state::broken && told_.broken.empty()) {
        const auto& last = each.steps.back();
        told_.broken = last.name + ": " + last.words;
        told_.fix = each.fix;
      }
    }
    if (!told_.fix.empty()) return;
    for (const explanation::path& each : told_.paths) {
      if (told_.fix.empty()) told_.fix = each.fix;
    }
  }

  // One side is missing. The likeliest reason first: it died, it may not be seen, it is elsewhere,
  // or the name has a typing error.
  void lonely(bool no_publisher) {
    const std::string who = no_publisher ? "publishes" : "subscribes to";
    const bool nobody = told_.publishers.empty() && told_.subscriptions.empty();
    const std::string& dead = no_publisher ? found_.dead_publisher : found_.dead_subscriber;
    told_.how = explanation::state::broken;
    if (!dead.empty()) {
      told_.broken = "alive: " + dead;
      told_.fix = "start it again; `bus gc` removes what the dead one left behind";
      return;
    }
    told_.broken = "names: nobody " + who + ' ' + told_.topic +
                   (nobody ? ", and nobody subscribes to it" : "");
    if (!refused_.empty()) {
      told_.broken = "rights: " + refused_;
      told_.fix = "name it in bus::allow, where the child is spawned";
    } else if (const auto like = nearest_name(no_publisher)) {
      told_.fix = "did you mean " + *like + '?';
    } else if (found_.unreadable) {
      told_.broken = "rights: nobody whose card can be read " + who + ' ' + told_.topic;
      told_.fix = "run as the user who owns the bus directory " + found_.seen.directory +
                  ", or share it by a group: chgrp GROUP DIR && chmod 2770 DIR";
    } else if (!unanswered_.empty()) {
      told_.broken += "; " + unanswered_;
      told_.fix = "give it an address, too: OMNIBUS_LISTEN=tcp://*:PORT (links go one way each)";
    } else if (!unreachable_.empty()) {
      told_.broken += "; " + unreachable_;
      told_.fix =
          "see that a node listens there (OMNIBUS_LISTEN), and that no firewall stands "
          "between";
    } else if (found_.seen.directory.empty()) {
      told_.fix = called(*found_.living.front()) +
                  " is in no bus directory, and meets those whom it calls and who call it";
    } else {
      told_.fix = std::string("start the ") + (no_publisher ? "publisher" : "subscriber") +
                  ", with the same bus directory (" + found_.seen.directory + ')';
    }
  }

  // A publisher's name that a subscriber may have meant, or the reverse.
  [[nodiscard]] std::optional<std::string> nearest_name(bool no_publisher) const {
    std::set<std::string> names;
    const bool nobody = told_.publishers.empty() && told_.subscriptions.empty();
    for (const node_report* const node : found_.living) {
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

  findings found_;
  explanation& told_ = found_.told;
  std::string refused_;      // to a child that is locked in
  std::string unreachable_;  // a peer that cannot be reached
  std::string unanswered_;   // a peer that cannot answer
};

}  // namespace

explanation judge(findings&& found) { return verdict(std::move(found)).answer(); }

}  // namespace bus::explaining
