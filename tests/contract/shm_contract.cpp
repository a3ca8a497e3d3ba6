// shm behind the contract.
#include "tests/contract/world.hpp"
#include "transports/shm/shm.hpp"

struct shm_case {
  static constexpr const char* name = "shm";
  static bus::transport_maker maker() { return transports::shm(); }
  static void prepare(bus::transport_setup& setup, const std::string& scratch) {
    setup.directory = scratch;
  }
};
using contract_cases = std::tuple<shm_case>;
#include "tests/contract/suite.inc"
