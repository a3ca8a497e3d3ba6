// Nodes that are in no bus directory: they meet by calling, and leave nothing behind.
#include "tests/unit/delivery.hpp"

#include <filesystem>
#include <string>

#include <unistd.h>

using namespace delivery;
using namespace std::chrono_literals;

namespace {

bus::node_options apart(const std::string& name) {
  return {.name = name,
          .transports = {transports::shm(), transports::zmq()},
          .directory = std::string(bus::no_directory)};
}

}  // namespace

TEST_CASE("nodes without a bus directory meet by calling, count, and leave no file") {
  const tests::scratch_directory scratch;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(scratch.path());
  std::string port;
  {
    // Some free port: whoever listens is asked which.
    bus::node_options listening = apart("listener");
    listening.listen = {"tcp://127.0.0.1:*"};
    bus::node there(listening);
    for (const auto& address : there.inside().known().find(there.id())->card.addresses()) {
      if (address.starts_with("zmq:")) port = address.substr(4);
    }
    bus::node_options calling = apart("caller");
    calling.peers = {port.substr(0, port.find(','))};
    bus::node here(calling);
    auto numbers = here.advertise<reading>("numbers");
    auto heard = there.subscribe<reading>("numbers");
    REQUIRE(turn({&here, &there}, [&] { return numbers.matched() == 1 && heard.matched() == 1; }));
    for (std::uint64_t i = 1; i <= 100; ++i) REQUIRE(numbers.publish({i}));
    REQUIRE(turn({&here, &there}, [&] { return heard.accounts().queued == 100; }));
    REQUIRE(drain(heard) == from_to(1, 100));
    REQUIRE(heard.accounts().expected == 100);
    REQUIRE(heard.accounts().delivered == 100);
  }
  std::filesystem::current_path(before);
  REQUIRE(std::filesystem::is_empty(scratch.path()));
}
