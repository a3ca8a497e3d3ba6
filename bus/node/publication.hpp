// A publisher as routing sees it: a topic, a sequence, and the flat list of links that carry it.
// The list is changed on the control plane only; publishing walks it and asks no questions.
#pragma once

#include "bus/link/frame.hpp"
#include "bus/link/transport.hpp"
#include "bus/route/ledger.hpp"
#include "schemas/bus/card.pb.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace bus {

class peer_link;

struct publication {
  std::uint32_t number = 0;
  std::string topic;
  wire::Type type;
  wire::Kin on_behalf_of;                     // without a name: of nobody else
  std::shared_ptr<const std::string> schema;  // shared by all publishers of the type
  frame head;                      // everything but sequence, stamp and bytes; sequence = last used
  std::vector<peer_link*> routes;  // links on which it is attached
  transport* lender = nullptr;     // the most particular transport on the route
  ledger_row* row = nullptr;
  std::uint32_t gated = 0;  // of the routes, how many lead to a subscription that blocks
  // Called when the first route has come, or the last one has gone; may do no more than note it.
  std::function<void()> on_routes = {};

  // As others are told of it.
  [[nodiscard]] wire::Advertisement advertisement() const {
    wire::Advertisement words;
    words.set_publisher(number);
    words.set_topic(topic);
    *words.mutable_type() = type;
    if (!on_behalf_of.name().empty()) *words.mutable_on_behalf_of() = on_behalf_of;
    return words;
  }
};

using publications = std::map<std::uint32_t, std::unique_ptr<publication>>;  // by number

}  // namespace bus
