// The uncontended pass: one message from a publisher to a subscriber that is awake, over shared
// memory, when nobody has to wait. Both nodes are on one thread, so that nothing is measured but
// our own instructions: no cache line comes from another core, and no system call is made
// (tests/stress/quiet_test.cpp counts them).
//
//   take        publish one, take one            loan   the same, filled in place
//   batch       publish 256, then take them      bytes  as take, by size
#include "bus/bus.hpp"
#include "tests/scratch.hpp"
#include "transports/shm/shm.hpp"

#include <array>
#include <chrono>
#include <stdexcept>
#include <vector>

#include <benchmark/benchmark.h>

namespace {

using namespace std::chrono_literals;

struct small {
  std::array<std::uint64_t, 8> words;
};

template <class T>
struct pair_of_nodes {
  tests::scratch_directory scratch;
  bus::node here{options("talker")};
  bus::node there{options("hearer")};
  bus::publisher<T> source = here.template advertise<T>("pass");
  bus::subscriber<T> heard = there.template subscribe<T>("pass", {.when_full = bus::drop::newest});

  pair_of_nodes() {
    const auto until = bus::deadline::after(10s);
    while (source.matched() == 0) {
      if (until.passed()) throw std::runtime_error("not matched");
      there.run_for(1ms);
      here.run_for(1ms);
    }
  }
  [[nodiscard]] bus::node_options options(const char* name) const {
    bus::node_options made{
        .name = name, .transports = {transports::shm()}, .directory = scratch.path()};
    made.waiting = bus::wait_policy::spin;
    return made;
  }
  void take(benchmark::State& state) {
    if (!heard.try_take()) state.SkipWithError("nothing came");
  }
};

void pass_take(benchmark::State& state) {
  pair_of_nodes<small> two;
  small message{};
  for (auto each : state) {
    static_cast<void>(each);
    ++message.words[0];
    benchmark::DoNotOptimize(two.source.publish(message).taken);
    two.take(state);
  }
}

void pass_loan(benchmark::State& state) {
  pair_of_nodes<small> two;
  for (auto each : state) {
    static_cast<void>(each);
    auto lent = two.source.loan();
    lent->words.fill(1);
    benchmark::DoNotOptimize(two.source.publish(std::move(lent)).taken);
    two.take(state);
  }
}

void pass_batch(benchmark::State& state) {
  pair_of_nodes<small> two;
  constexpr int batch = 256;
  const small message{};
  for (auto each : state) {
    static_cast<void>(each);
    for (int i = 0; i < batch; ++i) {
      benchmark::DoNotOptimize(two.source.publish(message).taken);
    }
    for (int i = 0; i < batch; ++i) two.take(state);
  }
  state.SetItemsProcessed(state.iterations() * batch);
}

void pass_bytes(benchmark::State& state) {
  pair_of_nodes<bus::raw> two;
  const std::vector<std::byte> message(static_cast<std::size_t>(state.range(0)));
  for (auto each : state) {
    static_cast<void>(each);
    benchmark::DoNotOptimize(two.source.publish(message).taken);
    two.take(state);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

BENCHMARK(pass_take);
BENCHMARK(pass_loan);
BENCHMARK(pass_batch);
BENCHMARK(pass_bytes)->Arg(64)->Arg(1024)->Arg(65536);

}  // namespace

BENCHMARK_MAIN();
