// The uncontended pass: one message from a publisher to a subscriber that is awake, over shared
// memory, when nobody has to wait. Both nodes are on one thread, so that nothing is measured but
// our own instructions: no cache line comes from another core, and no system call is made
// (tests/stress/quiet_test.cpp counts them).
//
//   take        publish one, take one            loan   the same, filled in place
//   batch       publish 64, then take them      bytes  as take, by size
//   protobuf    publish and take a message of 64 KiB: one string of bytes, or 6,500 numbers
//   alone       the same, encoded and decoded without a bus: what protobuf itself costs
//   to          publish 32 to so many subscribers; what they do with them is not counted
#include "bus/bus.hpp"
#include "tests/scratch.hpp"
#include "transports/shm/shm.hpp"

#include <array>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <google/protobuf/arena.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/wrappers.pb.h>

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
  constexpr int batch = 64;
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

// --- protobuf

using google::protobuf::BytesValue;
using google::protobuf::ListValue;

constexpr std::size_t large = 64 << 10;

void fill(BytesValue& one) { one.set_value(std::string(large, 'b')); }
void fill(ListValue& one) {
  while (one.ByteSizeLong() < large) {
    for (int i = 0; i < 100; ++i) one.add_values()->set_number_value(i);
  }
}

template <class Message>
void pass_protobuf(benchmark::State& state) {
  pair_of_nodes<Message> two;
  Message message;
  fill(message);
  for (auto each : state) {
    static_cast<void>(each);
    benchmark::DoNotOptimize(two.source.publish(message).taken);
    two.take(state);
  }
}

// Into memory that is there already, and out of it into an arena that is used again, as the bus
// does it.
template <class Message>
void alone_protobuf(benchmark::State& state) {
  Message message;
  fill(message);
  std::vector<std::byte> between(message.ByteSizeLong());
  std::vector<char> room(std::size_t{1} << 20);
  google::protobuf::Arena arena(room.data(), room.size());
  for (auto each : state) {
    static_cast<void>(each);
    const auto bytes = static_cast<int>(message.ByteSizeLong());
    message.SerializeToArray(between.data(), bytes);
    auto* const heard = google::protobuf::Arena::CreateMessage<Message>(&arena);
    if (!heard->ParseFromArray(between.data(), bytes)) state.SkipWithError("not decoded");
    benchmark::DoNotOptimize(heard);
    arena.Reset();
  }
}

// --- fan-out

void publish_to(benchmark::State& state) {
  pair_of_nodes<small> two;
  std::vector<std::unique_ptr<bus::node>> nodes;
  std::vector<bus::subscriber<small>> others;
  const auto subscribers = static_cast<std::size_t>(state.range(0));
  while (others.size() + 1 < subscribers) {
    nodes.push_back(std::make_unique<bus::node>(two.options("hearer")));
    others.push_back(nodes.back()->subscribe<small>("pass"));
  }
  const auto until = bus::deadline::after(10s);
  while (two.source.matched() < subscribers) {
    if (until.passed()) throw std::runtime_error("not matched");
    for (const auto& one : nodes) one->run_for(1ms);
    two.there.run_for(1ms);
    two.here.run_for(1ms);
  }
  constexpr int burst = 32;
  const small message{};
  for (auto each : state) {
    static_cast<void>(each);
    const std::int64_t start_ns = bus::steady_ns();
    for (int i = 0; i < burst; ++i) {
      benchmark::DoNotOptimize(two.source.publish(message).taken);
    }
    state.SetIterationTime(static_cast<double>(bus::steady_ns() - start_ns) * 1e-9);
    for (int i = 0; i < burst; ++i) two.take(state);
    for (auto& one : others) {
      for (int i = 0; i < burst; ++i) {
        if (!one.try_take()) state.SkipWithError("nothing came");
      }
    }
  }
  state.SetItemsProcessed(state.iterations() * burst);
}

BENCHMARK(pass_take);
BENCHMARK(pass_loan);
BENCHMARK(pass_batch);
BENCHMARK(pass_bytes)->Arg(64)->Arg(1024)->Arg(65536);
BENCHMARK_TEMPLATE(pass_protobuf, BytesValue);
BENCHMARK_TEMPLATE(alone_protobuf, BytesValue);
BENCHMARK_TEMPLATE(pass_protobuf, ListValue);
BENCHMARK_TEMPLATE(alone_protobuf, ListValue);
BENCHMARK(publish_to)->Arg(1)->Arg(2)->Arg(4)->Arg(8)->Arg(16)->UseManualTime();

}  // namespace

BENCHMARK_MAIN();
