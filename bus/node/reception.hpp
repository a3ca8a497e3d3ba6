// The receiving half of a node: which publishers are attached to us, whose subscriptions they meet,
// and whether the numbers come out. Every sample is found by (node, publisher); every gap in a
// publisher's sequence is charged to the subscriptions that it meets, with a cause:
//
//   a gap between two samples, or before a Notice   queue_full   the link had no room
//   a gap found when a link comes back              no_link
//   published by one that died, and never came      cut          read from the dead node's ledger
//   either of the first two, after the publisher said that a subscription's deadline was over
//                                                   expired      for that subscription
//
// Subscriptions that block (drop::none) grant their publishers places, and get only what they
// have granted one to: see bus/route/credit.hpp.
#pragma once

#include "bus/base/ids.hpp"
#include "bus/link/inbox.hpp"
#include "bus/node/ledger_file.hpp"
#include "bus/node/subscription.hpp"
#include "bus/route/ledger.hpp"
#include "bus/topic/match_tree.hpp"
#include "bus/topic/topic_index.hpp"
#include "schemas/bus/control.pb.h"

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace bus {

class reception final : public sink {
 public:
  // What the reception asks of the node around it.
  struct surroundings {
    node_id self;
    std::function<void(node_id from, const wire::Introduce&)> introduced;
    std::function<void(const wire::Attach&)> schema_seen;
    // A peer's way into us has ended; bury() it when it is proved dead.
    std::function<void(node_id)> departed;
    // A subscription of ours has places for a publisher of that node: say so.
    std::function<void(node_id to, const wire::Grant&)> grant;
    // It has nothing more to say to that publisher.
    std::function<void(node_id to, std::uint32_t publisher, std::uint32_t subscription)> revoke;
    // One of theirs has places for a publisher of ours.
    std::function<void(node_id from, const wire::Grant&)> granted;
    // Whether a publisher may attach itself, and what came of those who may not; empty: all may.
    std::function<bool(node_id from, const wire::Attach&)> admits = {};
    std::function<void(std::uint64_t messages)> turned_away = {};
  };
  reception(ledger_file& ledger, surroundings around)
      : ledger_(ledger), around_(std::move(around)) {}

  void add(std::shared_ptr<subscription> one);
  void remove(const subscription& one);

  void accept(sample&& arrived) noexcept override;
  void left(node_id peer, std::error_code reason) noexcept override;

  // Whether a publisher of that node is attached and may still bring something: what a dead node
  // had sent is in its lane until left().
  [[nodiscard]] bool hears(node_id peer) const noexcept;
  // The node is dead, and `last_words` tells what its publishers had published: what never came is
  // charged, and the node forgotten. Nothing is charged for publishers of which nothing is known.
  void bury(node_id dead,
            const std::function<std::optional<std::uint64_t>(std::uint32_t)>& last_words);

  // How many publishers are attached to this subscription now.
  [[nodiscard]] std::size_t sources_of(const subscription& one) const;
  // What a publisher that is attached to us said of itself; both null when it is not attached. The
  // pointers are good until the node turns again.
  struct provenance {
    const std::string* topic = nullptr;
    const wire::Type* type = nullptr;
  };
  [[nodiscard]] provenance provenance_of(node_id node, std::uint32_t publisher) noexcept;
  // Rethrows what a callback threw while samples were handed out, once.
  void rethrow_trouble() {
    if (trouble_) std::rethrow_exception(std::exchange(trouble_, nullptr));
  }
  // Samples from publishers that never attached; a sign of a peer that breaks the rules.
  [[nodiscard]] std::uint64_t strays() const noexcept { return strays_; }
  // Pairs of a publisher and a subscription that were looked at to match them, so far.
  [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }

 private:
  struct target {
    std::shared_ptr<subscription> to;  // empty: ended while samples were handed out; to be swept
    ledger_row* row;
    window promised = {};  // if it blocks
    bool counted = false;  // and the publisher counts for it
  };
  using source_key = std::pair<node_id, std::uint32_t>;
  struct source {
    source_key key;
    std::string topic;
    wire::Type type;
    wire::Kin on_behalf_of;
    source_account account;
    std::vector<target> targets;
    // For those that block: which counting it is, and what came in it.
    std::uint64_t counting = 0;
    std::uint64_t came = 0;
    bool gone = false;
  };

  void deliver(source& from, sample&& arrived, std::uint32_t messages,
               std::uint32_t stale) noexcept;
  void sweep() noexcept;
  void control(const sample& arrived);
  void attach(node_id from, const wire::Attach& words);
  void detach(node_id from, const wire::Detach& words);
  void meet(source& one, const std::shared_ptr<subscription>& to);
  [[nodiscard]] static source_event event_of(const source& one) noexcept;
  template <class Visitor>
  void for_each_source(const std::string& pattern, Visitor&& visit);
  void charge(source& one, std::uint64_t missing, loss cause) noexcept;
  void notice(node_id from, const wire::Notice& words);
  void offer_places(source_key key, const source& one, target& each) noexcept;
  void count(node_id from, const wire::Count& words);
  [[nodiscard]] static bool has_place(const source& one, const target& each) noexcept;
  void say_places(source_key key, const source& one, const target& each) const;
  void offer_places(const subscription& to) noexcept;
  void leave(source& one) noexcept;
  void forget(std::map<source_key, source>::iterator at, loss cause);
  [[nodiscard]] source* find(node_id node, std::uint32_t publisher) noexcept;

  ledger_file& ledger_;
  surroundings around_;
  std::unordered_map<std::uint32_t, std::shared_ptr<subscription>> subscriptions_;  // by number
  match_tree patterns_;  // their patterns; the number is the id
  std::map<source_key, source> sources_;
  topic_index<source> by_topic_;
  // The source of the sample before: most arrive in runs.
  source_key recent_key_{};
  source* recent_ = nullptr;
  // While samples are handed out, what ends is kept until nobody looks at it any more.
  bool delivering_ = false;
  std::vector<std::shared_ptr<subscription>> ended_;
  std::vector<source*> to_sweep_;  // that had those as targets
  std::uint64_t steps_ = 0;
  std::uint64_t strays_ = 0;
  std::exception_ptr trouble_;
};

}  // namespace bus
