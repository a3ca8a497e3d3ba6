// The nodes that are known, by their cards, and the question that routing asks all the time: whose
// interests does this topic meet? Cards come from the bus directory (local) or from introductions
// over a network; a node that is known both ways is one node, and its local card is believed.
#pragma once

#include "bus/base/ids.hpp"
#include "bus/topic/match_tree.hpp"
#include "schemas/bus/card.pb.h"

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace bus {

// The protocol version that cards carry. Nodes of another version are listed, and not linked.
inline constexpr std::uint32_t card_version = 1;

struct known_node {
  wire::Card card;
  bool local = false;    // its card lies in our bus directory
  bool network = false;  // it was introduced over a network
};

// Whether samples of an advertised type may go to this interest: an interest without a type takes
// all.
[[nodiscard]] bool types_agree(const wire::Type& advertised, const wire::Interest& interest);

class directory {
 public:
  enum class origin : std::uint8_t { local, network };

  // Takes a card. False: it says nothing new (an older or equal revision, or a network card of a
  // node whose local card we have).
  bool upsert(const wire::Card& card, origin from);
  // Forgets one way of knowing a node; true when it is not known in any other way and is gone.
  bool remove(node_id id, origin from);

  [[nodiscard]] const known_node* find(node_id id) const;
  [[nodiscard]] const std::unordered_map<node_id, known_node>& nodes() const { return nodes_; }

  // Calls visit(node_id, const wire::Interest&) for each interest whose pattern matches `topic`.
  template <class Visitor>
  void for_each_interested(std::string_view topic, Visitor&& visit) const {
    tree_.match(topic, [&](std::uint32_t slot) {
      const auto& [id, index] = slots_[slot];
      visit(id, nodes_.at(id).card.interests(index));
    });
  }

 private:
  void index(node_id id, const wire::Card& card);
  void unindex(node_id id, const wire::Card& card);

  std::unordered_map<node_id, known_node> nodes_;
  match_tree tree_;                             // pattern -> slot
  std::vector<std::pair<node_id, int>> slots_;  // slot -> interest of a node
  std::vector<std::uint32_t> free_slots_;
  std::unordered_map<node_id, std::vector<std::uint32_t>> slots_of_;
};

}  // namespace bus
