// Nodes on several machines, as far as they can tell: each machine is a bus directory of its own,
// and between them there is nothing but loopback TCP.
#pragma once

#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"
#include "transports/zmq/zmq.hpp"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace far_apart {

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;
using std::chrono_literals::operator""us;

struct place {
  std::string machine;
  std::vector<std::string> listen = {};
  std::vector<std::string> peers = {};
};

inline const std::vector<std::string> anywhere = {"tcp://127.0.0.1:*"};

inline std::unique_ptr<bus::node> make_node(const place& where) {
  return std::make_unique<bus::node>(
      bus::node_options{.name = "n",
                        .transports = {transports::shm(), transports::zmq()},
                        .directory = where.machine,
                        .listen = where.listen,
                        .peers = where.peers});
}

// Where a node of this machine listens, as its card says.
inline std::string address_of(const std::string& machine, bus::node_id id) {
  const auto visited = bus::rendezvous::visit(machine);
  const auto card = visited ? visited->read_card(id) : bus::unexpected(visited.error());
  if (!card) throw std::runtime_error("no card in " + machine);
  for (const std::string& address : card->addresses()) {
    if (address.starts_with("zmq:")) return address.substr(4);
  }
  throw std::runtime_error("it listens nowhere");
}

// Turns all nodes until `done`; false after 20 s.
template <class Done>
[[nodiscard]] bool turn(const std::vector<bus::node*>& all, Done done) {
  return crew::eventually(
      [&] {
        for (bus::node* one : all) one->run_for(1ms);
        return done();
      },
      20s);
}

[[nodiscard]] inline bool knows(bus::node& one, bus::node_id whom) {
  return one.inside().known().find(whom) != nullptr;
}

}  // namespace far_apart
