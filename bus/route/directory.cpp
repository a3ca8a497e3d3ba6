#include "bus/route/directory.hpp"

namespace bus {

bool types_agree(const wire::Type& advertised, const wire::Interest& interest) {
  if (!interest.has_type()) return true;
  return interest.type().hash() == advertised.hash() && interest.type().name() == advertised.name();
}

bool directory::upsert(const wire::Card& card, origin from) {
  const node_id id{card.node()};
  auto [at, fresh] = nodes_.try_emplace(id);
  known_node& known = at->second;
  const bool was_local = known.local;
  (from == origin::local ? known.local : known.network) = true;
  if (!fresh) {
    if (from == origin::network && was_local) return false;
    const bool first_local = from == origin::local && !was_local;
    if (card.revision() <= known.card.revision() && !first_local) return false;
    unindex(id, known.card);
  }
  known.card = card;
  index(id, known.card);
  return true;
}

bool directory::remove(node_id id, origin from) {
  const auto at = nodes_.find(id);
  if (at == nodes_.end()) return false;
  (from == origin::local ? at->second.local : at->second.network) = false;
  if (at->second.local || at->second.network) return false;
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
  own.assign(static_cast<std::size_t>(card.interests_size()), UINT32_MAX);
  for (int i = 0; i < card.interests_size(); ++i) {
    std::uint32_t slot = static_cast<std::uint32_t>(slots_.size());
    if (free_slots_.empty()) {
      slots_.emplace_back();
    } else {
      slot = free_slots_.back();
      free_slots_.pop_back();
    }
    slots_[slot] = {id, i};
    // A pattern that breaks the rules matches nothing; its owner has been told when it subscribed.
    if (tree_.insert(card.interests(i).pattern(), slot) == insertion::fresh) {
      own[static_cast<std::size_t>(i)] = slot;
    } else {
      free_slots_.push_back(slot);
    }
  }
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
