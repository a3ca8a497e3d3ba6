// One path, from a publisher to a subscription: the steps that a message passes, in their order, up
// to the first broken one and its fix (explain.hpp has the list). Which pairs are a path is decided
// in explain.cpp; what all of them mean together, in explain_verdict.hpp.
#pragma once

#include "bus/route/explain.hpp"

#include <cstdint>
#include <vector>

namespace bus::explaining {

// Each fills `into`, whose parties are set already, from what `seen` has of the two nodes.

// Both nodes have their files in this bus directory. Requires: the pattern matches the topic.
void follow_here(const census& seen, explanation::path& into, const node_report& source,
                 const wire::Advertisement& words, const node_report& target,
                 const wire::Interest& interest);
// Whom a publisher meets, as its node's links have it.
[[nodiscard]] std::vector<wire::Match> matches_of(const node_report& source,
                                                  std::uint32_t publisher);
// The subscriber is on another machine; `link` may be null.
void follow_outward(const census& seen, explanation::path& into, const node_report& source,
                    const wire::Match& match, const wire::Link* link);
// The publisher is on another machine; `heard` is what the subscriber has counted of it.
void follow_inward(const census& seen, explanation::path& into, const node_report& target,
                   const ledger_entry& heard, const wire::Interest& interest);

}  // namespace bus::explaining
