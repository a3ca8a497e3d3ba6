// See the header for the idea. In order: levels and edges, the ids of a node, inserting and
// removing, looking up.
#include "bus/topic/match_tree.hpp"

#include "bus/topic/levels.hpp"
#include "bus/topic/mix.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include <unistd.h>

namespace bus {
namespace {

constexpr std::uint32_t root = 0;
constexpr std::uint32_t nowhere = slot_table::nothing;

// Level numbers count up from 0 and stay below 2^30; these are out of their way.
constexpr std::uint32_t unknown = level_pool::unknown;
constexpr std::uint32_t one_level_number = 0xfffffffe;
constexpr std::uint32_t any_levels_number = 0xfffffffd;

constexpr std::size_t entries_limit = std::size_t{1} << 25U;  // * 32 levels = 2^30 nodes
constexpr std::size_t rebuild_nodes_min = 4096;  // 96 KiB: less is not worth giving back

std::uint64_t draw_seed() noexcept {
  std::uint64_t seed = 0;
  // Without the kernel's randomness the address space's own must do: still not known to a peer.
  if (::getentropy(&seed, sizeof seed) != 0) seed = std::bit_cast<std::uintptr_t>(&draw_seed);
  return seed | 1U;
}

// Room for the ids of one node: two in the node, else the next power of two on the heap.
std::uint32_t id_capacity(std::uint32_t count) noexcept {
  return count <= 2 ? 2 : std::bit_ceil(count);
}

}  // namespace

match_tree::match_tree(match_tree_options options) noexcept
    : entries_max_(std::min(options.entries_max, entries_limit)),
      seed_(options.seed == 0 ? draw_seed() : options.seed),
      levels_(seed_) {}

match_tree::~match_tree() {
  for (std::size_t i = 0; id_bytes_ > 0 && i < nodes_.used(); ++i) {
    if (nodes_[i].live != 0) resize_ids(nodes_[i], 0);
  }
}

void match_tree::swap(match_tree& other) noexcept {
  std::swap(entries_max_, other.entries_max_);
  std::swap(seed_, other.seed_);
  std::swap(entries_, other.entries_);
  std::swap(patterns_, other.patterns_);
  std::swap(id_bytes_, other.id_bytes_);
  nodes_.swap(other.nodes_);
  edges_.swap(other.edges_);
  levels_.swap(other.levels_);
}

// Levels and edges.

std::uint32_t match_tree::level_number(std::string_view level) const noexcept {
  if (level == any_level) return one_level_number;
  if (level == any_levels) return any_levels_number;
  return levels_.find(level);
}

std::uint32_t match_tree::edge_tag(std::uint32_t parent, std::uint32_t level) const noexcept {
  const std::uint64_t key = (std::uint64_t{parent} << 32U) | level;
  return static_cast<std::uint32_t>(mix(key ^ seed_, 0x9e3779b97f4a7c15) >> 32U);
}

std::uint32_t match_tree::child(std::uint32_t parent, std::uint32_t level) const noexcept {
  return edges_.find(edge_tag(parent, level), [&](std::uint32_t index) {
    return nodes_[index].parent == parent && nodes_[index].level == level;
  });
}

std::uint32_t match_tree::take_node(std::uint32_t parent, std::uint32_t level) noexcept {
  const std::uint32_t index = nodes_.take();
  nodes_[index] = node{};
  nodes_[index].live = 1;
  nodes_[index].parent = parent;
  nodes_[index].level = level;
  return index;
}

std::uint32_t match_tree::grow_child(std::uint32_t parent, std::string_view text) noexcept {
  std::uint32_t level = level_number(text);
  if (level != unknown) {
    const std::uint32_t there = child(parent, level);
    if (there != nowhere) return there;
  }
  if (level == one_level_number) {
    nodes_[parent].has_any_level = 1;
  } else if (level == any_levels_number) {
    nodes_[parent].has_any_levels = 1;
  } else {
    level = levels_.hold(text);
    ++nodes_[parent].children;
  }
  const std::uint32_t index = take_node(parent, level);
  edges_.add(edge_tag(parent, level), index);
  return index;
}

std::uint32_t match_tree::find(std::string_view pattern) const noexcept {
  if (entries_ == 0 || !check_pattern(pattern)) return nowhere;
  std::uint32_t at = root;
  for (const std::string_view text : level_list(pattern)) {
    const std::uint32_t level = level_number(text);
    if (level == unknown) return nowhere;
    at = child(at, level);
    if (at == nowhere) return nowhere;
  }
  return at;
}

std::string_view match_tree::pattern_of(std::uint32_t index,
                                        std::span<char, name_bytes_max> text) const noexcept {
  std::size_t start = text.size();  // filled from the back
  for (; index != root; index = nodes_[index].parent) {
    if (start != text.size()) text[--start] = '/';
    const std::uint32_t level = nodes_[index].level;
    std::string_view part = any_level;
    if (level == any_levels_number) part = any_levels;
    if (level != any_levels_number && level != one_level_number) part = levels_.text(level);
    start -= part.size();
    std::memcpy(text.data() + start, part.data(), part.size());
  }
  return {text.data() + start, text.size() - start};
}

// The ids of a node.

std::span<const std::uint32_t> match_tree::ids_of(const node& each) noexcept {
  return {each.id_count <= 2 ? each.few : each.many, each.id_count};
}

// Changes the count, and the ids' home if the capacity for that count is another one. Ids beyond
// the smaller count are undefined after it.
void match_tree::resize_ids(node& each, std::uint32_t count) noexcept {
  const std::uint32_t before = id_capacity(each.id_count);
  const std::uint32_t after = id_capacity(count);
  if (before != after) {
    std::uint32_t* const old = before > 2 ? each.many : nullptr;
    std::uint32_t kept[2];
    const std::uint32_t* source = old;
    if (old == nullptr) source = std::copy_n(each.few, 2, kept) - 2;
    if (after > 2) each.many = new std::uint32_t[after];
    std::uint32_t* const target = after > 2 ? each.many : each.few;
    std::copy_n(source, std::min(each.id_count, count), target);
    id_bytes_ += (after > 2 ? after : 0) * sizeof(std::uint32_t);
    id_bytes_ -= (before > 2 ? before : 0) * sizeof(std::uint32_t);
    delete[] old;
  }
  each.id_count = count;
}

bool match_tree::add_id(node& each, std::uint32_t id) noexcept {
  const auto ids = ids_of(each);
  const auto place = std::lower_bound(ids.begin(), ids.end(), id);
  if (place != ids.end() && *place == id) return false;
  const auto at = place - ids.begin();
  const std::uint32_t count = each.id_count;
  resize_ids(each, count + 1);
  std::uint32_t* const first = each.id_count <= 2 ? each.few : each.many;
  std::move_backward(first + at, first + count, first + count + 1);
  first[at] = id;
  return true;
}

bool match_tree::erase_id(node& each, std::uint32_t id) noexcept {
  const auto ids = ids_of(each);
  const auto place = std::lower_bound(ids.begin(), ids.end(), id);
  if (place == ids.end() || *place != id) return false;
  std::uint32_t* const first = each.id_count <= 2 ? each.few : each.many;
  const auto at = place - ids.begin();
  std::move(first + at + 1, first + each.id_count, first + at);
  resize_ids(each, each.id_count - 1);
  return true;
}

// Inserting and removing.

// The pattern's node, made if it is not there.
std::uint32_t match_tree::plant(std::string_view pattern) noexcept {
  std::uint32_t at = root;
  if (nodes_.live() == 0) at = take_node(nowhere, unknown);
  for (const std::string_view level : level_list(pattern)) at = grow_child(at, level);
  return at;
}

insertion match_tree::insert(std::string_view pattern, std::uint32_t id) noexcept {
  if (!check_pattern(pattern)) return insertion::refused;
  if (entries_ >= entries_max_) return contains(pattern, id) ? insertion::known : insertion::full;
  const std::uint32_t at = plant(pattern);
  if (!add_id(nodes_[at], id)) return insertion::known;
  if (nodes_[at].id_count == 1) ++patterns_;
  ++entries_;
  return insertion::fresh;
}

bool match_tree::remove(std::string_view pattern, std::uint32_t id) noexcept {
  const std::uint32_t at = find(pattern);
  if (at == nowhere || !erase_id(nodes_[at], id)) return false;
  --entries_;
  if (nodes_[at].id_count > 0) return true;
  --patterns_;
  prune(at);
  give_memory_back();
  return true;
}

bool match_tree::contains(std::string_view pattern, std::uint32_t id) const noexcept {
  const std::uint32_t at = find(pattern);
  if (at == nowhere) return false;
  const auto ids = ids_of(nodes_[at]);
  return std::binary_search(ids.begin(), ids.end(), id);
}

// From a node upwards, as long as nothing ends at it and nothing hangs on it.
void match_tree::prune(std::uint32_t index) noexcept {
  while (index != root) {
    node& each = nodes_[index];
    const bool needed = each.id_count > 0 || each.children > 0 || each.has_any_level != 0 ||
                        each.has_any_levels != 0;
    if (needed) return;
    const std::uint32_t parent = each.parent;
    edges_.erase(edge_tag(parent, each.level), index);
    if (each.level == one_level_number) {
      nodes_[parent].has_any_level = 0;
    } else if (each.level == any_levels_number) {
      nodes_[parent].has_any_levels = 0;
    } else {
      levels_.release(each.level);
      --nodes_[parent].children;
    }
    each.live = 0;
    nodes_.put_back(index);
    index = parent;
  }
}

// Blocks and tables do not shrink in place. A tree that uses a quarter of its nodes, or none, moves
// what it has into a new one, the lists of ids as they are. So at least three nodes were freed for
// each that is moved.
void match_tree::give_memory_back() noexcept {
  const bool sparse =
      nodes_.capacity() > rebuild_nodes_min && nodes_.live() < nodes_.capacity() / 4;
  if (entries_ > 0 && !sparse) return;
  match_tree fresh({.entries_max = entries_max_, .seed = seed_});
  char text[name_bytes_max];
  for (std::uint32_t index = 0; entries_ > 0 && index < nodes_.used(); ++index) {
    node& source = nodes_[index];
    if (source.live == 0 || source.id_count == 0) continue;
    node& target = fresh.nodes_[fresh.plant(pattern_of(index, text))];
    target.id_count = std::exchange(source.id_count, 0);
    if (target.id_count <= 2) {
      std::copy_n(source.few, 2, target.few);
    } else {
      target.many = source.many;
    }
  }
  fresh.entries_ = std::exchange(entries_, 0);
  fresh.patterns_ = std::exchange(patterns_, 0);
  fresh.id_bytes_ = std::exchange(id_bytes_, 0);
  swap(fresh);
}

match_tree_size match_tree::size() const noexcept {
  return {.entries = entries_,
          .patterns = patterns_,
          .nodes = nodes_.live(),
          .levels = levels_.size(),
          .bytes = nodes_.bytes() + edges_.bytes() + levels_.bytes() + id_bytes_};
}

// Looking up.

// One lookup's state: the name as level numbers, and what was found so far.
struct match_tree::walk {
  std::array<std::uint32_t, name_levels_max> levels;
  std::uint64_t end = 0;      // the place after the last level
  std::uint64_t literal = 0;  // the places whose level some pattern spells
  receiver found;
  match_work work;

  // Those of `places` at which the name has the same level as at the first of them.
  [[nodiscard]] std::uint64_t alike(std::uint64_t places) const noexcept {
    const std::uint32_t level = levels[static_cast<std::size_t>(std::countr_zero(places))];
    std::uint64_t same = places & -places;
    for (std::uint64_t left = places & (places - 1); left != 0; left &= left - 1) {
      if (levels[static_cast<std::size_t>(std::countr_zero(left))] == level) same |= left & -left;
    }
    return same;
  }
};

match_work match_tree::look_up(std::string_view name, receiver found) const noexcept {
  if (entries_ == 0 || !check_name(name)) return {};
  walk state;
  state.found = found;
  std::size_t depth = 0;
  for (const std::string_view text : level_list(name)) {
    const std::uint32_t level = levels_.find(text);
    if (level != unknown) state.literal |= std::uint64_t{1} << depth;
    state.levels[depth++] = level;
  }
  state.end = std::uint64_t{1} << depth;
  visit(state, root, 1);
  return state.work;
}

match_work match_tree::work_of(std::string_view name) const noexcept {
  return look_up(name, {[](void*, std::span<const std::uint32_t>) {}, nullptr});
}

// `places` is never empty. The recursion is as deep as the deepest pattern: 33 at the most.
void match_tree::visit(walk& state, std::uint32_t index, std::uint64_t places) const noexcept {
  const node& each = nodes_[index];
  ++state.work.nodes;
  if ((places & state.end) != 0 && each.id_count > 0) {
    state.work.entries += each.id_count;
    state.found.call(state.found.context, ids_of(each));
  }
  if (each.has_any_levels != 0) {
    ++state.work.edges;
    const std::uint64_t first = places & -places;
    visit(state, child(index, any_levels_number), (state.end | (state.end - 1)) & ~(first - 1));
  }
  const std::uint64_t ahead = places & (state.end - 1);
  if (ahead == 0) return;
  if (each.has_any_level != 0) {
    ++state.work.edges;
    visit(state, child(index, one_level_number), ahead << 1U);
  }
  if (each.children > 0) visit_literals(state, index, ahead & state.literal);
}

void match_tree::visit_literals(walk& state, std::uint32_t index,
                                std::uint64_t places) const noexcept {
  while (places != 0) {
    const std::uint64_t alike = state.alike(places);
    const std::uint32_t level = state.levels[static_cast<std::size_t>(std::countr_zero(places))];
    places &= ~alike;
    ++state.work.edges;
    const std::uint32_t next = child(index, level);
    if (next != nowhere) visit(state, next, alike << 1U);
  }
}

}  // namespace bus
