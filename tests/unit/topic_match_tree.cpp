// The tree against a plain list of entries, its memory, and its cost counted in steps (not
// seconds).
#include "bus/topic/match_tree.hpp"
#include "bus/topic/pattern.hpp"
#include "tests/unit/topic_reference.hpp"

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

using bus::insertion;
using bus::match_tree;

namespace {

using ids = std::vector<std::uint32_t>;

ids found(const match_tree& tree, const std::string& name) {
  ids all;
  const std::size_t count = tree.match(name, [&](std::uint32_t id) { all.push_back(id); });
  REQUIRE(count == all.size());
  REQUIRE(tree.work_of(name).entries == count);
  std::sort(all.begin(), all.end());
  return all;
}

void add(match_tree& tree, const std::string& pattern, std::uint32_t id) {
  REQUIRE(tree.insert(pattern, id) == insertion::fresh);
}

std::string repeat(const std::string& part, std::size_t times) {
  std::string text;
  for (std::size_t i = 0; i < times; ++i) text += part;
  return text;
}

// The k-th of many: four levels, 32 children each, as a fleet's topics are.
std::string numbered(std::size_t k) {
  std::string text = "f";
  text += std::to_string(k % 32);
  text += "/r";
  text += std::to_string(k / 32 % 32);
  text += "/s";
  text += std::to_string(k / 1024 % 32);
  text += "/c";
  text += std::to_string(k / 32768);
  return text;
}

}  // namespace

TEST_CASE("an empty tree finds nothing, removes nothing and holds no memory") {
  match_tree tree;
  CHECK(found(tree, "a").empty());
  CHECK_FALSE(tree.remove("a", 1));
  CHECK_FALSE(tree.contains("a", 1));
  CHECK(tree.empty());
  CHECK(tree.size().bytes == 0);
}

TEST_CASE("a bad pattern is refused and changes nothing") {
  match_tree tree;
  for (const char* pattern : {"", "/", "a//b", "a/", "a*", "a/***", "\xff", "a\n"}) {
    CHECK(tree.insert(pattern, 1) == insertion::refused);
    CHECK_FALSE(tree.remove(pattern, 1));
  }
  CHECK(tree.insert(std::string(256, 'x'), 1) == insertion::refused);
  CHECK(tree.insert(repeat("a/", 32) + "a", 1) == insertion::refused);
  CHECK(tree.size().nodes == 0);
}

TEST_CASE("a bad name finds nothing, even where its text is in the tree") {
  match_tree tree;
  add(tree, "**", 1);
  add(tree, "a/*", 2);
  for (const char* name : {"", "*", "a/*", "**", "a//b", "a/", "/a", "\xff", "a/\x01"}) {
    CHECK(found(tree, name).empty());
  }
  CHECK(found(tree, repeat("a/", 32) + "a").empty());
  CHECK(found(tree, "a/b") == ids{1, 2});
}

TEST_CASE("the longest and the deepest patterns are kept and found") {
  match_tree tree;
  const std::string longest(255, 'x');
  const std::string deepest = repeat("a/", 31) + "a";
  const std::string stars = repeat("*/", 31) + "*";
  const std::string all_stars = repeat("**/", 31) + "**";
  add(tree, longest, 1);
  add(tree, deepest, 2);
  add(tree, stars, 3);
  add(tree, all_stars, 4);
  CHECK(found(tree, longest) == ids{1, 4});
  CHECK(found(tree, deepest) == ids{2, 3, 4});
  std::set<std::string> texts;
  tree.for_each([&](std::string_view pattern, std::uint32_t) { texts.emplace(pattern); });
  CHECK(texts == std::set<std::string>{longest, deepest, stars, all_stars});
}

TEST_CASE("an entry is in once, however often it is inserted") {
  match_tree tree;
  add(tree, "a/**", 7);
  CHECK(tree.insert("a/**", 7) == insertion::known);
  CHECK(tree.size().entries == 1);
  CHECK(tree.remove("a/**", 7));
  CHECK_FALSE(tree.remove("a/**", 7));
  CHECK(tree.empty());
}

TEST_CASE("a full tree refuses what is new and knows what it has") {
  match_tree tree({.entries_max = 2});
  add(tree, "a", 1);
  add(tree, "b/*", 1);
  CHECK(tree.insert("c", 1) == insertion::full);
  CHECK(tree.insert("a", 2) == insertion::full);
  CHECK(tree.insert("a", 1) == insertion::known);
  CHECK(tree.size().nodes == 4);
  CHECK(tree.remove("a", 1));
  CHECK(tree.insert("c", 1) == insertion::fresh);
}

TEST_CASE("an id is reported once for each of its matching patterns, over however many paths") {
  match_tree tree;
  add(tree, "**/a/**", 1);
  add(tree, "**/a/**/a/**", 1);
  add(tree, "**/**", 2);
  CHECK(found(tree, "a/a/a/a") == ids{1, 1, 2});
  CHECK(found(tree, "b/a") == ids{1, 2});
  CHECK(found(tree, "b") == ids{2});
}

TEST_CASE("many ids under one pattern come in order and leave one by one") {
  match_tree tree;
  const std::uint32_t seed = reference::seed();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  ids all(1'000);
  for (std::uint32_t i = 0; i < all.size(); ++i) all[i] = i * 3;
  ids shuffled = all;
  std::shuffle(shuffled.begin(), shuffled.end(), random);
  for (const std::uint32_t id : shuffled) add(tree, "camera/*", id);
  ids seen;
  tree.match("camera/front", [&](std::uint32_t id) { seen.push_back(id); });
  CHECK(seen == all);
  CHECK(tree.size().patterns == 1);
  std::shuffle(shuffled.begin(), shuffled.end(), random);
  while (!shuffled.empty()) {
    REQUIRE(tree.remove("camera/*", shuffled.back()));
    REQUIRE_FALSE(tree.contains("camera/*", shuffled.back()));
    shuffled.pop_back();
    REQUIRE(tree.match("camera/front", [](std::uint32_t) {}) == shuffled.size());
  }
  CHECK(tree.size().bytes == 0);
}

TEST_CASE("removing a pattern leaves those above, below and beside it") {
  match_tree tree;
  add(tree, "a", 1);
  add(tree, "a/b", 2);
  add(tree, "a/b/c", 3);
  add(tree, "a/*", 4);
  add(tree, "a/**", 5);
  REQUIRE(tree.remove("a/b", 2));
  CHECK(found(tree, "a") == ids{1, 5});
  CHECK(found(tree, "a/b") == ids{4, 5});
  CHECK(found(tree, "a/b/c") == ids{3, 5});
  REQUIRE(tree.remove("a/b/c", 3));
  REQUIRE(tree.remove("a/*", 4));
  REQUIRE(tree.remove("a/**", 5));
  CHECK(tree.size().nodes == 2);  // the root and a
  CHECK(tree.size().levels == 1);
}

// A random history of inserts and removals, against a std::set of entries.
TEST_CASE("the tree agrees with the reference and with matches, through inserts and removals") {
  const std::uint32_t seed = reference::seed();
  INFO("seed " << seed);
  reference::maker make(seed);
  for (int round = 0; round < 40; ++round) {
    match_tree tree;
    std::set<std::pair<std::string, std::uint32_t>> entries;
    for (int step = 0; step < 600; ++step) {
      const std::pair entry{make.pattern(5), static_cast<std::uint32_t>(make.below(6))};
      if (make.below(3) < 2) {
        const bool fresh = entries.insert(entry).second;
        const auto expected = fresh ? insertion::fresh : insertion::known;
        REQUIRE(tree.insert(entry.first, entry.second) == expected);
      } else {
        const auto& victim =
            entries.empty() || make.below(2) == 0
                ? entry
                : *std::next(entries.begin(),
                             static_cast<std::ptrdiff_t>(make.below(entries.size())));
        const auto copy = victim;
        REQUIRE(tree.remove(copy.first, copy.second) == (entries.erase(copy) == 1));
      }
      if (step % 20 != 0) continue;
      const std::string name = make.name(6);
      ids expected;
      for (const auto& [pattern, id] : entries) {
        const bool hit = reference::matches(reference::split(pattern), reference::split(name));
        REQUIRE(bus::matches(pattern, name) == hit);
        if (hit) expected.push_back(id);
      }
      std::sort(expected.begin(), expected.end());
      CAPTURE(name, round, step);
      REQUIRE(found(tree, name) == expected);
    }
    std::set<std::pair<std::string, std::uint32_t>> listed;
    tree.for_each([&](std::string_view pattern, std::uint32_t id) {
      REQUIRE(listed.emplace(std::string(pattern), id).second);
    });
    REQUIRE(listed == entries);
    for (const auto& [pattern, id] : entries) REQUIRE(tree.remove(pattern, id));
    REQUIRE(tree.size().bytes == 0);
  }
}

// Every beginning of **/a/**/a/... is a pattern, the name is a/a/a/...: the number of ways to match
// is a binomial coefficient, beyond any patience. The number of nodes is what is visited.
TEST_CASE("patterns with 16 times ** visit each node once and report each entry once") {
  match_tree tree;
  std::string pattern;
  for (std::uint32_t i = 0; i < 16; ++i) {
    pattern += i == 0 ? "**/a" : "/**/a";
    add(tree, pattern, i);
  }
  const std::string name = repeat("a/", 31) + "a";
  const auto work = tree.work_of(name);
  CHECK(work.entries == 16);
  CHECK(work.nodes == 33);  // the root, and 16 times ** and a
  CHECK(work.edges <= 33);
  for (int i = 0; i < 10'000; ++i) REQUIRE(tree.work_of(name).nodes == 33);
  CHECK(tree.work_of(repeat("b/", 31) + "b").nodes == 2);
}

// All 2^14 patterns **/x/**/y/... whose letters are a selection of the name's, in its order.
TEST_CASE("a name that 16384 patterns match costs in proportion, and not in their ways to match") {
  match_tree tree;
  const std::string letters = "abcdefghijklmn";
  for (std::uint32_t chosen = 1; chosen < 1U << 14U; ++chosen) {
    std::string pattern = "**";
    for (std::uint32_t i = 0; i < 14; ++i) {
      if ((chosen >> i & 1U) != 0) pattern += std::string("/") + letters[i] + "/**";
    }
    add(tree, pattern, chosen);
  }
  std::string name = "a";
  for (std::uint32_t i = 1; i < 14; ++i) name += std::string("/") + letters[i];
  const auto work = tree.work_of(name);
  CHECK(work.entries == (1U << 14U) - 1);
  CHECK(work.nodes <= tree.size().nodes);
}

TEST_CASE("a lookup takes the same steps among a thousand patterns and among a million") {
  match_tree tree;
  add(tree, "f1/*/s1/c0", 1);
  add(tree, "f1/**", 2);
  add(tree, "**/c0", 3);
  const std::string name = "f1/r2/s1/c0";
  std::size_t inserted = 0;
  std::vector<std::size_t> nodes;
  std::vector<std::size_t> edges;
  for (const std::size_t total : {32'768U, 100'000U, 1'000'000U}) {
    for (; inserted < total; ++inserted) add(tree, numbered(inserted), 9);
    const auto work = tree.work_of(name);
    CHECK(work.entries == 4);
    nodes.push_back(work.nodes);
    edges.push_back(work.edges);
  }
  CHECK(nodes == std::vector<std::size_t>(3, nodes[0]));
  CHECK(edges == std::vector<std::size_t>(3, edges[0]));
  CHECK(nodes[0] <= 16);
  CHECK(tree.work_of("f1/r2/unheard/c0").entries == 2);
}

TEST_CASE("a million entries come and go, memory returns, and the tree starts again") {
  constexpr std::uint32_t count = 1'000'000;
  match_tree tree;
  std::size_t bytes_before = 0;
  for (int round = 0; round < 2; ++round) {
    for (std::uint32_t k = 0; k < count; ++k) {
      if (tree.insert(numbered(k), k) != insertion::fresh) FAIL("insert " << k);
    }
    const auto full = tree.size();
    CHECK(full.patterns == count);
    CHECK(full.bytes < 64UL * count);
    if (round == 0) bytes_before = full.bytes;
    CHECK(full.bytes == bytes_before);
    for (std::uint32_t k = 0; k < count; ++k) {
      if (k == count * 9 / 10) CHECK(tree.size().bytes < full.bytes / 2);
      if (!tree.remove(numbered(k), k)) FAIL("remove " << k);
    }
    CHECK(tree.empty());
    CHECK(tree.size().bytes == 0);
  }
}

// 200,000 removals and inserts at a constant number of entries: freed memory is used again.
TEST_CASE("churn at a constant size does not grow the tree") {
  match_tree tree;
  constexpr std::uint32_t standing = 20'000;
  for (std::uint32_t k = 0; k < standing; ++k) add(tree, numbered(k), k);
  const std::size_t bytes = tree.size().bytes;
  for (std::uint32_t k = standing; k < 220'000; ++k) {
    if (!tree.remove(numbered(k - standing), k - standing)) FAIL("remove " << k);
    if (tree.insert(numbered(k), k) != insertion::fresh) FAIL("insert " << k);
  }
  CHECK(tree.size().entries == standing);
  CHECK(tree.size().bytes <= bytes + bytes / 8);
}

TEST_CASE("levels of every length are kept apart, inline and on the heap") {
  match_tree tree;
  for (std::uint32_t length = 1; length <= 255; ++length) {
    add(tree, std::string(length, 'x'), length);
    if (length > 9) add(tree, std::string(length - 1, 'x') + "y", length);
  }
  for (std::uint32_t length = 1; length <= 255; ++length) {
    REQUIRE(found(tree, std::string(length, 'x')) == ids{length});
  }
  for (std::uint32_t length = 1; length <= 255; length += 2) {
    REQUIRE(tree.remove(std::string(length, 'x'), length));
  }
  CHECK(found(tree, std::string(33, 'x')).empty());
  CHECK(found(tree, std::string(34, 'x')) == ids{34});
}
