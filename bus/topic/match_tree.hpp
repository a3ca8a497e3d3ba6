// Which of very many patterns match this name? The answer's cost depends on the name and on what
// matches it, and not on how many patterns there are.
//
// The patterns are kept as a trie: one node for every distinct beginning of a pattern, one edge for
// every level. Edges are not lists in their nodes but entries of one hash table, keyed by (parent,
// level), so a step costs the same from a node with a million children as from one with two. A
// level is a number: its text is kept once, in the level_pool. `*` and `**` are reserved numbers
// and not texts, so no name, however hostile, can walk along a wildcard's edge by spelling it.
//
// A lookup walks the trie once, carrying a *set of places*: place i of a name is "before level i",
// the place after the last level is its end, and 32 levels have 33 places, which is one word. A
// literal edge keeps the places where the name has that level, `*` keeps all of them, and each
// moves what it kept one place on; `**` adds every later place. A node whose set has the end in it
// matches. Since a node has one parent, it is entered once, with its whole set: `**/a/**/a/**/a`
// reaches its end by very many paths, and yet is visited once and reported once.
//
// So the cost is the number of *nodes reached* (distinct pattern beginnings that match a beginning
// of the name), each with at most one question to the hash table per level of the name and two for
// the wildcards. `work_of` counts both.
//
// Threads: none of its own and no locks. Lookups are const and touch no hidden state: any number of
// them may run at once, as long as nobody inserts or removes. Nothing throws; out of memory aborts.
#pragma once

#include "bus/topic/level_pool.hpp"
#include "bus/topic/name.hpp"
#include "bus/topic/slab.hpp"
#include "bus/topic/slot_table.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>

namespace bus {

struct match_tree_options {
  // How many (pattern, id) entries the tree takes before it refuses. Node numbers have 30 bits and
  // a pattern has at most 32 levels: 2^25 entries can never need more, and larger values mean 2^25.
  std::size_t entries_max = std::size_t{1} << 25U;

  // The secret of the hash tables; 0 draws one from the kernel. Give one only to repeat a test.
  std::uint64_t seed = 0;
};

enum class insertion : std::uint8_t {
  fresh,    // the entry is in, and was not before
  known,    // the entry was in already; nothing changed
  refused,  // not a good pattern: check_pattern says why; nothing changed
  full,     // entries_max is reached; nothing changed
};

// What the tree holds now.
struct match_tree_size {
  std::size_t entries = 0;   // pairs (pattern, id)
  std::size_t patterns = 0;  // distinct patterns
  std::size_t nodes = 0;     // distinct beginnings of patterns
  std::size_t levels = 0;    // distinct literal levels
  std::size_t bytes = 0;     // memory asked from the heap, spare capacity included
};

// What one lookup did. The same tree and name always give the same numbers.
struct match_work {
  std::size_t entries = 0;  // pairs (pattern, id) that match
  std::size_t nodes = 0;    // nodes reached
  std::size_t edges = 0;    // questions asked of the edge table
};

class match_tree {
 public:
  explicit match_tree(match_tree_options options = {}) noexcept;
  ~match_tree();
  match_tree(const match_tree&) = delete;
  match_tree& operator=(const match_tree&) = delete;

  // Adds the entry (pattern, id). The pattern's text is not kept as such: the caller's memory is
  // its own again. The same id may stand under many patterns, and many ids under one.
  [[nodiscard]] insertion insert(std::string_view pattern, std::uint32_t id) noexcept;

  // Takes the entry out and with it every node and level that nothing else needs; false if it was
  // not in. Freed memory is reused; it goes back to the heap as soon as three quarters of the nodes
  // stand empty (the tree then moves into a new one: amortised, a removal pays for less than one
  // insert), and at the latest with the last entry.
  [[nodiscard]] bool remove(std::string_view pattern, std::uint32_t id) noexcept;

  [[nodiscard]] bool contains(std::string_view pattern, std::uint32_t id) const noexcept;

  // Calls visitor(id) once for every entry whose pattern matches `name`, and returns how many that
  // were. The ids of one pattern come in ascending order; an id that stands under two matching
  // patterns comes twice. A bad name (check_name) matches nothing. Never allocates. The visitor
  // must not throw and must not change the tree.
  template <class Visitor>
  std::size_t match(std::string_view name, Visitor&& visitor) const noexcept {
    using callee = std::remove_reference_t<Visitor>;
    const auto call = [](void* context, std::span<const std::uint32_t> ids) {
      for (const std::uint32_t id : ids) (*static_cast<callee*>(context))(id);
    };
    const void* context = std::addressof(visitor);
    return look_up(name, {call, const_cast<void*>(context)}).entries;
  }

  // The same lookup, reporting its cost in place of its findings.
  [[nodiscard]] match_work work_of(std::string_view name) const noexcept;

  // Calls visitor(pattern, id) once for every entry, in no particular order. The pattern's text is
  // valid during the call. The visitor must not throw and must not change the tree.
  template <class Visitor>
  void for_each(Visitor&& visitor) const noexcept {
    char text[name_bytes_max];
    for (std::uint32_t index = 0; index < nodes_.used(); ++index) {
      if (nodes_[index].live == 0) continue;
      for (const std::uint32_t id : ids_of(nodes_[index])) visitor(pattern_of(index, text), id);
    }
  }

  [[nodiscard]] match_tree_size size() const noexcept;
  [[nodiscard]] bool empty() const noexcept { return entries_ == 0; }

 private:
  // 24 bytes. Up to two ids stand in the node itself; more are a sorted array on the heap, whose
  // capacity follows from their count (see the .cpp).
  struct node {
    union {
      std::uint32_t parent;
      std::uint32_t next_free;
    };
    std::uint32_t level;  // of the edge from the parent
    std::uint32_t live : 1;
    std::uint32_t has_any_level : 1;
    std::uint32_t has_any_levels : 1;
    std::uint32_t children : 29;  // literal ones
    std::uint32_t id_count;
    union {
      std::uint32_t few[2];
      std::uint32_t* many;
    };
  };
  static_assert(sizeof(node) == 24);

  struct receiver {
    void (*call)(void* context, std::span<const std::uint32_t> ids);
    void* context;
  };
  struct walk;

  [[nodiscard]] match_work look_up(std::string_view name, receiver found) const noexcept;
  void visit(walk& state, std::uint32_t index, std::uint64_t places) const noexcept;
  void visit_literals(walk& state, std::uint32_t index, std::uint64_t places) const noexcept;

  [[nodiscard]] std::uint32_t edge_tag(std::uint32_t parent, std::uint32_t level) const noexcept;
  [[nodiscard]] std::uint32_t child(std::uint32_t parent, std::uint32_t level) const noexcept;
  [[nodiscard]] std::uint32_t grow_child(std::uint32_t parent, std::string_view text) noexcept;
  [[nodiscard]] std::uint32_t take_node(std::uint32_t parent, std::uint32_t level) noexcept;
  [[nodiscard]] std::uint32_t level_number(std::string_view level) const noexcept;
  [[nodiscard]] std::uint32_t find(std::string_view pattern) const noexcept;
  [[nodiscard]] std::uint32_t plant(std::string_view pattern) noexcept;
  void prune(std::uint32_t index) noexcept;
  void give_memory_back() noexcept;

  [[nodiscard]] std::string_view pattern_of(std::uint32_t index,
                                            std::span<char, name_bytes_max> text) const noexcept;
  [[nodiscard]] static std::span<const std::uint32_t> ids_of(const node& each) noexcept;
  [[nodiscard]] bool add_id(node& each, std::uint32_t id) noexcept;
  [[nodiscard]] bool erase_id(node& each, std::uint32_t id) noexcept;
  void resize_ids(node& each, std::uint32_t count) noexcept;
  void swap(match_tree& other) noexcept;

  std::size_t entries_max_;
  std::uint64_t seed_;
  std::size_t entries_ = 0;
  std::size_t patterns_ = 0;
  std::size_t id_bytes_ = 0;
  slab<node> nodes_;  // number 0 is the root, if there is any entry
  slot_table edges_;
  level_pool levels_;
};

}  // namespace bus
