// pipe behind the contract: what is written is copied, and pages are lent.
#include "tests/contract/pipe_switchboard.hpp"
#include "tests/contract/world.hpp"

template <bool lends_pages>
struct pipe_case {
  static bus::transport_maker maker() {
    static const auto board = std::make_shared<contract::switchboard>();
    return contract::switched_pipes(board, lends_pages);
  }
  static void prepare(bus::transport_setup&, const std::string&) {}
};
using contract_cases = std::tuple<pipe_case<false>, pipe_case<true>>;
#include "tests/contract/suite.inc"
