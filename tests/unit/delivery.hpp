// The stage of the tests of backpressure: nodes of one bus directory over one transport, numbers
// that travel, and a look into the books. One thread turns all nodes, so that what stands still
// does so because the test says so.
#pragma once

#include "bus/bus.hpp"
#include "tests/scratch.hpp"
#include "transports/inproc/inproc.hpp"
#include "transports/shm/shm.hpp"
#include "transports/zmq/zmq.hpp"

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>

#include <asio/io_context.hpp>
#include <catch2/catch.hpp>

namespace delivery {

using std::chrono_literals::operator""h;
using std::chrono_literals::operator""s;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""us;

struct reading {
  std::uint64_t number;
};

constexpr auto patience = 30s;
// Longer than any test: whoever is waited for so long is waited for.
constexpr std::chrono::nanoseconds for_ever = 1h;

// Nodes of one bus directory, over one transport alone.
class bench {
 public:
  explicit bench(const std::string& scheme) : scheme_(scheme) {}

  bus::node make(const std::string& name, asio::io_context* context = nullptr) const {
    return make(bus::node_options{.name = name, .transports = {}, .context = context});
  }
  bus::node make(bus::node_options options) const {
    options.directory = scratch_.path();
    if (scheme_ == "inproc") options.transports = {transports::inproc()};
    if (scheme_ == "shm") options.transports = {transports::shm()};
    if (scheme_ == "zmq") {
      options.transports = {transports::zmq()};
      options.listen = {"tcp://127.0.0.1:*"};
    }
    return bus::node(std::move(options));
  }
  [[nodiscard]] const std::string& directory() const { return scratch_.path(); }

 private:
  tests::scratch_directory scratch_;
  std::string scheme_;
};

inline std::string any_scheme() { return GENERATE(std::string("inproc"), "shm", "zmq"); }

template <class Done>
bool turn(std::initializer_list<bus::node*> all, Done&& done) {
  const auto until = bus::deadline::after(patience);
  while (!done()) {
    if (until.passed()) return false;
    for (bus::node* one : all) one->run_for(100us);
  }
  return true;
}

// The publisher's books about a subscription that blocks: the only one, or the sum of all.
inline bus::ledger_entry gate_of(const bench& world, bus::node_id publisher) {
  const bus::fd opened(::open(world.directory().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto books = bus::read_ledger(opened.get(), publisher);
  REQUIRE(books);
  for (const bus::ledger_entry& row : books->entries) {
    if (row.kind == bus::row_kind::gate) return row;
  }
  FAIL("no row for a gate");
  return {};
}

// The next `count` numbers, or those that came in time. Turns the subscriber's node.
inline std::vector<std::uint64_t> collect(bus::subscriber<reading>& from, std::uint64_t count) {
  std::vector<std::uint64_t> numbers;
  const auto until = bus::deadline::after(patience);
  while (numbers.size() < count && !until.passed()) {
    if (const auto one = from.take(1ms)) numbers.push_back((*one)->number);
  }
  return numbers;
}

// Those that are here.
inline std::vector<std::uint64_t> drain(bus::subscriber<reading>& from) {
  return collect(from, from.accounts().queued);
}

inline std::vector<std::uint64_t> from_to(std::uint64_t first, std::uint64_t last) {
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t i = first; i <= last; ++i) numbers.push_back(i);
  return numbers;
}

constexpr bus::subscription_options blocking(std::uint32_t depth,
                                             std::chrono::nanoseconds block_for = for_ever) {
  return {.depth = depth, .when_full = bus::drop::none, .block_for = block_for};
}

// Publishes 1, 2, 3 ... until a subscription has no place; returns how many it had places for.
inline std::uint64_t fill(bus::publisher<reading>& numbers) {
  std::uint64_t sent = 0;
  while (numbers.has_room()) {
    REQUIRE(numbers.publish({++sent}));
    REQUIRE(sent < 10'000);
  }
  return sent;
}

}  // namespace delivery
