// zmq behind the contract, over the loopback interface.
#include "tests/contract/world.hpp"
#include "transports/zmq/zmq.hpp"

struct zmq_case {
  static bus::transport_maker maker() { return transports::zmq(); }
  static void prepare(bus::transport_setup& setup, const std::string&) {
    setup.listen = {"tcp://127.0.0.1:*"};
  }
};
using contract_cases = std::tuple<zmq_case>;
#include "tests/contract/suite.inc"
