// How fast and how large is the match tree, and what does a lookup's cost depend on?
//
// Every figure is measured with 1,000 to 1,000,000 patterns in the tree, so that a row can be read
// across. The patterns of a tree of depth d are the numbers 0, 1, 2, ... written in base
// ceil(n^(1/d)), one digit a level, which spreads them over all levels; a level reads like "s7d12"
// (stage 7, digit 12). Looked-up names are drawn at random from the patterns beforehand.
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
#include <map>
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

void* operator new(std::size_t size) {
  void* const memory = std::malloc(size);
  if (memory == nullptr) std::abort();
  heap_bytes += malloc_usable_size(memory) + malloc_header;
  return memory;
}

void operator delete(void* memory) noexcept {
  if (memory != nullptr) heap_bytes -= malloc_usable_size(memory) + malloc_header;
  std::free(memory);
}

void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }

namespace {

constexpr std::uint32_t seed = 20240501;
constexpr std::size_t names_looked_up = 4096;

std::size_t base_of(std::size_t patterns, std::size_t depth) {
  const double root = std::pow(static_cast<double>(patterns), 1.0 / static_cast<double>(depth));
  return std::max<std::size_t>(2, static_cast<std::size_t>(std::ceil(root - 1e-9)));
}

std::string numbered(std::size_t k, std::size_t base, std::size_t depth) {
  std::string text;
  for (std::size_t level = 0; level < depth; ++level, k /= base) {
    if (level > 0) text += '/';
    text += "s" + std::to_string(level) + "d" + std::to_string(k % base);
  }
  return text;
}

std::vector<std::string> spread(std::size_t patterns, std::size_t depth) {
  std::vector<std::string> all(patterns);
  const std::size_t base = base_of(patterns, depth);
  for (std::size_t k = 0; k < patterns; ++k) all[k] = numbered(k, base, depth);
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
  for (const std::string& pattern : {name, start + "/*", first + "/**", std::string("**")}) {
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
  for (auto _ : state) {
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
  for (const std::string& pattern : patterns) {
    order.emplace_back(pattern, static_cast<std::uint32_t>(order.size()));
  }
  std::shuffle(order.begin(), order.end(), std::mt19937(seed + 1));
  for (auto _ : state) {
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
  for (auto _ : state) {
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
  std::vector<std::string> names(patterns.begin(),
                                 patterns.begin() + (wanted == 1 ? names_looked_up / 4 : 1));
  // With a hundred matches there is one name, or else the names' patterns would match each other;
  // with one match, 1024 names, so that the caches do not hold just the one path.
  if (wanted == 100) {
    add_hundred(tree, names[0]);
    if (!tree.remove(names[0], 0)) state.SkipWithError("the name's own entry is missing");
  }
  look_up(state, tree, names);
}

void mixed(benchmark::State& state) {
  const std::size_t depth = argument(state, 1);
  const std::size_t base = base_of(argument(state, 0), depth);
  std::mt19937 random(seed);
  bus::match_tree tree;
  for (std::uint32_t id = 0; tree.size().patterns < argument(state, 0); ++id) {
    std::string pattern;
    for (std::size_t level = 0; level < depth; ++level) {
      if (level > 0) pattern += '/';
      const auto kind = random() % 20;
      if (kind == 0) pattern += "**";
      if (kind == 1 || kind == 2) pattern += "*";
      if (kind > 2) pattern += "s" + std::to_string(level) + "d" + std::to_string(random() % base);
    }
    benchmark::DoNotOptimize(tree.insert(pattern, id));
  }
  std::vector<std::string> names;
  while (names.size() < names_looked_up) names.push_back(numbered(random(), base, depth));
  look_up(state, tree, names);
}

void private_tails(benchmark::State& state) {
  const std::size_t depth = argument(state, 1);
  std::vector<std::string> patterns(argument(state, 0));
  for (std::size_t k = 0; k < patterns.size(); ++k) {
    patterns[k] = "fleet/robot" + std::to_string(k);
    for (std::size_t level = 2; level < depth; ++level) patterns[k] += "/s" + std::to_string(level);
  }
  std::size_t bytes = 0;
  for (auto _ : state) {
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
