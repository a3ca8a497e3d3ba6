#include "bus/route/directory.hpp"

#include <algorithm>

namespace bus {

bool types_agree(const wire::Type& advertised, const wire::Interest& interest) {
  if (!interest.has_type()) return true;
  return interest.type().hash() == advertised.hash() && interest.type().name() == advertised.name();
}

bool is_own_voice(const wire::Kin& speaker, const wire::Kin& listener) {
  return !speaker.name().empty() && speaker.name() == listener.name() &&
         speaker.pid() == listener.pid();
}

void directory::count(const known_node& one, std::ptrdiff_t by) noexcept {
  if (!one.local && !one.speaks) by_hearsay_ += static_cast<std::size_t>(by);
}

bool directory::upsert(const wire::Card& card, origin from) {
  const node_id id{card.node()};
  const bool fresh = !nodes_.contains(id);
  if (fresh && from == origin::hearsay && by_hearsay_ >= hearsay_max) return false;
  known_node& known = nodes_[id];
  const bool was_local = known.local;
  const bool spoke = known.speaks;
  if (from == origin::hearsay && (was_local || spoke)) return false;
  if (!fresh) count(known, -1);
  known.local = known.local || from == origin::local;
  known.network = known.network || from != origin::local;
  known.speaks = known.speaks || from == origin::itself;
  count(known, 1);
  if (!fresh) {
    if (from == origin::itself && was_local) return false;
    // Whoever knows better is believed, whatever the others said.
    const bool better = (from == origin::local && !was_local) || (from == origin::itself && !spoke);
    if (card.revision() <= known.card.revision() && !better) return false;
    unindex(id, known.card);
  }
  known.card = card;
  index(id, known.card);
  return true;
}

void directory::fell_silent(node_id id) {
  const auto at = nodes_.find(id);
  if (at == nodes_.end() || !at->second.speaks) return;
  at->second.speaks = false;
  count(at->second, 1);
}

bool directory::remove(node_id id) {
  const auto at = nodes_.find(id);
  if (at == nodes_.end()) return false;
  count(at->second, -1);
  unindex(id, at->second.card);
  nodes_.erase(at);
  return true;
}

const known_node* directory::find(node_id id) const {
  const auto at = nodes_.find(id);
  return at == nodes_.end() ? nullptr : &at->second;
}

void directory::index(node_id id, const wire::Card& card) {
  std::vector<std::uint32_t>& own = slots_of_[id];
  own.clear();
  for (int i = 0; i < card.interests_size(); ++i) {
    own.push_back(plant(id, i, card.interests(i).pattern()));
  }
}

// Puts a pattern into the tree, and returns its slot. One that breaks the rules has none
// (UINT32_MAX) and matches nothing; its owner has been told when it subscribed.
std::uint32_t directory::plant(node_id id, int interest, const std::string& pattern) {
  auto slot = static_cast<std::uint32_t>(slots_.size());
  if (free_slots_.empty()) {
    slots_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  slots_[slot] = {id, interest};
  if (tree_.insert(pattern, slot) == insertion::fresh) return slot;
  free_slots_.push_back(slot);
  return UINT32_MAX;
}

void directory::add_interest(node_id id, const wire::Interest& interest) {
  wire::Card& card = nodes_.at(id).card;
  *card.add_interests() = interest;
  slots_of_[id].push_back(plant(id, card.interests_size() - 1, interest.pattern()));
}

void directory::remove_interest(node_id id, std::uint32_t subscription) {
  auto& all = *nodes_.at(id).card.mutable_interests();
  std::vector<std::uint32_t>& own = slots_of_[id];
  const auto at = std::find_if(all.begin(), all.end(), [&](const wire::Interest& one) {
    return one.subscription() == subscription;
  });
  if (at == all.end()) return;
  const auto index = static_cast<std::size_t>(at - all.begin());
  if (own[index] != UINT32_MAX) {
    static_cast<void>(tree_.remove(at->pattern(), own[index]));
    free_slots_.push_back(own[index]);
  }
  // The last one takes its place.
  all.SwapElements(static_cast<int>(index), all.size() - 1);
  own[index] = own.back();
  if (own[index] != UINT32_MAX) slots_[own[index]].second = static_cast<int>(index);
  all.RemoveLast();
  own.pop_back();
}

void directory::unindex(node_id id, const wire::Card& card) {
  const auto own = slots_of_.find(id);
  if (own == slots_of_.end()) return;
  for (int i = 0; i < card.interests_size(); ++i) {
    const std::uint32_t slot = own->second[static_cast<std::size_t>(i)];
    if (slot == UINT32_MAX) continue;
    static_cast<void>(tree_.remove(card.interests(i).pattern(), slot));
    free_slots_.push_back(slot);
  }
  slots_of_.erase(own);
}

}  // namespace bus
