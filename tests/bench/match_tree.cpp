// How fast and how large is the match tree, and what does a lookup's cost depend on?
//
// Every figure is measured with 1,000 to 1,000,000 patterns in the tree, so that a row can be read
// across. The patterns of a tree of depth d are the numbers 0, 1, 2, ... written with d digits, one
// a level, in as even a base as gives enough of them; a level reads like "s7d12" (stage 7, digit
// 12). Looked-up names are drawn at random from the patterns beforehand.
//
//   insert, remove   one pattern, in random order; bytes_per_pattern is what malloc handed out
//                    (malloc_usable_size plus its 8-byte header), not what the tree believes
//   lookup           argument `matches`: 1 (only the name itself is a pattern) or 100 (25 ids under
//                    each of four patterns: the name, its last level *, first/**, and **)
//   mixed            one level in ten is *, one in twenty is **: what a lookup costs when very much
//                    matches; read it with its counters `matches` and `nodes` per lookup
//   private          patterns that share only their first level: the worst for memory
#include "bus/topic/match_tree.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <malloc.h>

#include <benchmark/benchmark.h>

namespace {

std::size_t heap_bytes = 0;
constexpr std::size_t malloc_header = 8;

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
  void* const memory = std::malloc(size);
  if (memory == nullptr) std::abort();
  heap_bytes += malloc_usable_size(memory) + malloc_header;
  return memory;
}

[[gnu::noinline]] void operator delete(void* memory) noexcept {
  if (memory != nullptr) heap_bytes -= malloc_usable_size(memory) + malloc_header;
  std::free(memory);
}

void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }

namespace {

constexpr std::uint32_t seed = 20240501;
constexpr std::size_t names_looked_up = 4096;

// How many children each level has: as equal as can be, the narrower ones first, and their product
// just enough for `patterns`.
std::vector<std::size_t> fan_out(std::size_t patterns, std::size_t depth) {
  std::vector<std::size_t> children(depth);
  std::size_t left = patterns;
  for (std::size_t level = depth; level > 0; --level) {
    const double root = std::pow(static_cast<double>(left), 1.0 / static_cast<double>(level));
    const auto here = static_cast<std::size_t>(std::ceil(root - 1e-9));
    children[level - 1] = here;
    left = (left + here - 1) / here;
  }
  return children;
}

void append_level(std::string& text, std::size_t level, std::size_t digit) {
  if (level > 0) text += '/';
  text += 's';
  text += std::to_string(level);
  text += 'd';
  text += std::to_string(digit);
}

// The last level is the least significant digit.
std::string numbered(std::size_t k, const std::vector<std::size_t>& children) {
  std::vector<std::size_t> digits(children.size());
  for (std::size_t level = children.size(); level > 0; k /= children[--level]) {
    digits[level - 1] = k % children[level - 1];
  }
  std::string text;
  for (std::size_t level = 0; level < digits.size(); ++level) {
    append_level(text, level, digits[level]);
  }
  return text;
}

std::vector<std::string> spread(std::size_t patterns, std::size_t depth) {
  std::vector<std::string> all(patterns);
  const auto children = fan_out(patterns, depth);
  for (std::size_t k = 0; k < patterns; ++k) all[k] = numbered(k, children);
  std::shuffle(all.begin(), all.end(), std::mt19937(seed));
  return all;
}

void fill(bus::match_tree& tree, const std::vector<std::string>& patterns) {
  std::uint32_t id = 0;
  for (const std::string& pattern : patterns) benchmark::DoNotOptimize(tree.insert(pattern, id++));
}

// Twenty-five ids under each of four patterns that match `name`, the name itself among them.
void add_hundred(bus::match_tree& tree, const std::string& name) {
  const std::string start = name.substr(0, name.rfind('/'));
  const std::string first = name.substr(0, name.find('/'));
  const std::string last_is_any = start + "/*";
  const std::string rest_is_any = first + "/**";
  for (const std::string& pattern : {name, last_is_any, rest_is_any, std::string("**")}) {
    for (std::uint32_t id = 0; id < 25; ++id) {
      benchmark::DoNotOptimize(tree.insert(pattern, 0x80000000U + id));
    }
  }
}

std::size_t argument(const benchmark::State& state, std::size_t i) {
  return static_cast<std::size_t>(state.range(i));
}

void count_patterns(benchmark::State& state, std::size_t patterns) {
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(patterns));
}

void insert(benchmark::State& state) {
  const auto patterns = spread(argument(state, 0), argument(state, 1));
  std::size_t bytes = 0;
  for ([[maybe_unused]] auto _ : state) {
    const std::size_t before = heap_bytes;
    auto tree = std::make_unique<bus::match_tree>();
    fill(*tree, patterns);
    bytes = heap_bytes - before;
    state.PauseTiming();
    tree.reset();
    state.ResumeTiming();
  }
  count_patterns(state, patterns.size());
  std::size_t text = 0;
  for (const std::string& pattern : patterns) text += pattern.size();
  const auto count = static_cast<double>(patterns.size());
  state.counters["bytes_per_pattern"] = static_cast<double>(bytes) / count;
  state.counters["text_per_pattern"] = static_cast<double>(text) / count;
}

void remove(benchmark::State& state) {
  auto patterns = spread(argument(state, 0), argument(state, 1));
  std::vector<std::pair<std::string, std::uint32_t>> order;
  order.reserve(patterns.size());
  for (const std::string& pattern : patterns) {
    order.emplace_back(pattern, static_cast<std::uint32_t>(order.size()));
  }
  std::shuffle(order.begin(), order.end(), std::mt19937(seed + 1));
  for ([[maybe_unused]] auto _ : state) {
    state.PauseTiming();
    bus::match_tree tree;
    fill(tree, patterns);
    state.ResumeTiming();
    for (const auto& [pattern, id] : order) benchmark::DoNotOptimize(tree.remove(pattern, id));
    if (tree.size().bytes != 0) state.SkipWithError("the tree kept memory");
  }
  count_patterns(state, patterns.size());
}

void look_up(benchmark::State& state, const bus::match_tree& tree,
             const std::vector<std::string>& names) {
  std::size_t i = 0;
  std::uint64_t sum = 0;
  for ([[maybe_unused]] auto _ : state) {
    tree.match(names[i++ % names.size()], [&](std::uint32_t id) { sum += id; });
  }
  benchmark::DoNotOptimize(sum);
  bus::match_work work;
  for (const std::string& name : names) {
    const auto one = tree.work_of(name);
    work.entries += one.entries;
    work.nodes += one.nodes;
    work.edges += one.edges;
  }
  const auto count = static_cast<double>(names.size());
  state.counters["matches"] = static_cast<double>(work.entries) / count;
  state.counters["nodes"] = static_cast<double>(work.nodes) / count;
  state.counters["edges"] = static_cast<double>(work.edges) / count;
  state.SetItemsProcessed(state.iterations());
}

void lookup(benchmark::State& state) {
  const auto patterns = spread(argument(state, 0), argument(state, 1));
  const std::size_t wanted = argument(state, 2);
  bus::match_tree tree;
  fill(tree, patterns);
  // With a hundred matches there is one name, or else the names' patterns would match each other;
  // with one match, many, so that the caches do not hold just the one path.
  auto names = patterns;
  names.resize(wanted == 1 ? std::min(names_looked_up, names.size()) : 1);
  if (wanted == 100) {
    if (!tree.remove(names[0], 0)) state.SkipWithError("the name's own entry is missing");
    add_hundred(tree, names[0]);
  }
  look_up(state, tree, names);
}

void mixed(benchmark::State& state) {
  const std::size_t depth = argument(state, 1);
  const auto children = fan_out(argument(state, 0), depth);
  std::mt19937 random(seed);
  bus::match_tree tree;
  for (std::uint32_t id = 0; tree.size().patterns < argument(state, 0); ++id) {
    std::string pattern;
    for (std::size_t level = 0; level < depth; ++level) {
      const auto kind = random() % 20;
      if (kind > 2) append_level(pattern, level, random() % (children[level] + 1));
      if (kind <= 2 && level > 0) pattern += '/';
      if (kind == 0) pattern += "**";
      if (kind == 1 || kind == 2) pattern += "*";
    }
    benchmark::DoNotOptimize(tree.insert(pattern, id));
  }
  std::vector<std::string> names;
  while (names.size() < names_looked_up) names.push_back(numbered(random(), children));
  look_up(state, tree, names);
}

void private_tails(benchmark::State& state) {
  const std::size_t depth = argument(state, 1);
  std::vector<std::string> patterns(argument(state, 0));
  for (std::size_t k = 0; k < patterns.size(); ++k) {
    append_level(patterns[k], 0, 0);
    append_level(patterns[k], 1, k);
    for (std::size_t level = 2; level < depth; ++level) append_level(patterns[k], level, 0);
  }
  std::size_t bytes = 0;
  for ([[maybe_unused]] auto _ : state) {
    const std::size_t before = heap_bytes;
    bus::match_tree tree;
    fill(tree, patterns);
    bytes = heap_bytes - before;
  }
  count_patterns(state, patterns.size());
  state.counters["bytes_per_pattern"] =
      static_cast<double>(bytes) / static_cast<double>(patterns.size());
}

const std::vector<std::int64_t> sizes{1'000, 10'000, 100'000, 1'000'000};
const std::vector<std::int64_t> depths{2, 4, 8, 16};

}  // namespace

BENCHMARK(insert)->ArgNames({"patterns", "depth"})->ArgsProduct({sizes, depths})->MinTime(0.2);
BENCHMARK(remove)->ArgNames({"patterns", "depth"})->ArgsProduct({sizes, depths})->MinTime(0.2);
BENCHMARK(lookup)
    ->ArgNames({"patterns", "depth", "matches"})
    ->ArgsProduct({sizes, depths, {1, 100}})
    ->MinTime(0.2);
BENCHMARK(mixed)->ArgNames({"patterns", "depth"})->ArgsProduct({sizes, {4, 8}})->MinTime(0.2);
BENCHMARK(private_tails)
    ->ArgNames({"patterns", "depth"})
    ->ArgsProduct({{1'000'000}, {2, 4, 8}})
    ->MinTime(0.2);

BENCHMARK_MAIN();
