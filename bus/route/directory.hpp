// The nodes that are known, by their cards, and the question that routing asks all the time: whose
// interests does this topic meet? Cards come from three mouths, and each is believed over the next:
// the bus directory, whose locks prove life (local); the node itself, over a network; and hearsay,
// which is what a node that has met it says of it.
//
// Only what is first-hand is passed on: a node vouches for those in its bus directory and for those
// that speak to it, and for nobody else. So no rumour of a dead node can go round in circles: who
// vouches for it has noticed its death, or soon will.
#pragma once

#include "bus/base/ids.hpp"
#include "bus/topic/match_tree.hpp"
#include "schemas/bus/card.pb.h"

#include <cstddef>
#include <cstdint>
#include <string>
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
  bool speaks = false;   // over a network, for itself; its way into us has not ended

  // Known over a network, and not as a neighbour in our bus directory.
  [[nodiscard]] bool is_remote() const noexcept { return network && !local; }
};

// Whether samples of an advertised type may go to this interest: an interest without a type takes
// all.
[[nodiscard]] bool types_agree(const wire::Type& advertised, const wire::Interest& interest);

// Whether a node publishes and subscribes for one and the same child: it hears itself, and what it
// says does not come back to it. Requires: both are of one node.
[[nodiscard]] bool is_own_voice(const wire::Kin& speaker, const wire::Kin& listener);

class directory {
 public:
  enum class origin : std::uint8_t { local, itself, hearsay };
  // What hearsay may teach us, in all: as many as may call us.
  static constexpr std::size_t hearsay_max = 1000;

  // Takes a card. False: it says nothing new (an older or equal revision, or the word of somebody
  // who is believed less than whom we know it from), or too many are known by hearsay.
  bool upsert(const wire::Card& card, origin from);
  // A node's way into us has ended: what it said of itself is hearsay from now on.
  void fell_silent(node_id id);
  // Forgets a node; false when it was not known.
  bool remove(node_id id);

  // One interest of a node that is known, ours: so that the hundredth costs what the first did.
  void add_interest(node_id id, const wire::Interest& interest);
  void remove_interest(node_id id, std::uint32_t subscription);

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
  void count(const known_node& one, std::ptrdiff_t by) noexcept;
  void index(node_id id, const wire::Card& card);
  [[nodiscard]] std::uint32_t plant(node_id id, int interest, const std::string& pattern);
  void unindex(node_id id, const wire::Card& card);

  std::unordered_map<node_id, known_node> nodes_;
  std::size_t by_hearsay_ = 0;                  // nodes that are neither local nor speak
  match_tree tree_;                             // pattern -> slot
  std::vector<std::pair<node_id, int>> slots_;  // slot -> interest of a node
  std::vector<std::uint32_t> free_slots_;
  std::unordered_map<node_id, std::vector<std::uint32_t>> slots_of_;
};

}  // namespace bus
