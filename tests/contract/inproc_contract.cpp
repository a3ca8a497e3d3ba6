// inproc behind the contract, and what only inproc promises.
#include "tests/contract/world.hpp"
#include "transports/inproc/inproc.hpp"

struct inproc_case {
  static bus::transport_maker maker() { return transports::inproc(); }
  static void prepare(bus::transport_setup&, const std::string&) {}
};
using contract_cases = std::tuple<inproc_case>;
#include "tests/contract/suite.hpp"
