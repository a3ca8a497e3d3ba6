// Why does, or does not, a message get from here to there? A pure function from what the files of
// the bus directory say (census.hpp) to an answer that people and programs can read.
//
// Each pair of a publisher and a subscription is a path, and a path is a row of steps, in the order
// in which a message would pass them:
//
//   names    the subscription's pattern matches the topic
//   alive    both nodes live
//   version  both speak the same protocol
//   types    the subscription takes what is published
//   link     one of the transports has opened
//   attached the peer has let go of the announcement, so the link carries
//   room     a subscription that blocks has a place for the next one
//   taken    the peer lets go of what it is sent
//   received the numbers come out at the subscription
//
// The first one that is broken ends the row, and brings its fix. What lies beyond this machine has
// its books elsewhere; there the row ends with what can be known here.
#pragma once

#include "bus/base/ids.hpp"
#include "bus/route/census.hpp"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bus {

// How long a peer may hold what it was sent, and take nothing of it, before it counts as stopped.
inline constexpr std::int64_t stopped_after_ns = 1'000'000'000;

struct explanation {
  // In this order: the worst of the paths is the answer as a whole.
  enum class state : std::uint8_t {
    flowing,  // messages have arrived
    matched,  // everything is ready, and nothing has been published yet
    broken,
  };

  // A publisher or a subscription.
  struct party {
    node_id node;
    std::string node_name;
    std::uint32_t pid = 0;     // 0: unknown
    std::uint32_t number = 0;  // 0: unknown, since its card is on another machine
    std::string name;          // the topic, or the pattern
    std::string type;          // "any" for a subscription that takes all
    std::uint64_t type_hash = 0;
    bool here = true;          // its files are in this bus directory
    std::string on_behalf_of;  // the child that its node has locked in, for which it is
  };

  enum class mark : std::uint8_t { ok, warning, broken, unknown };
  struct step {
    std::string name;
    mark how = mark::ok;
    std::string words;
  };

  struct candidate {
    std::string scheme;
    std::string address;
    std::uint64_t cost_ns = 0;
    std::string verdict;
    bool chosen = false;
  };

  struct path {
    party from;
    party to;
    std::vector<step> steps;
    std::vector<candidate> candidates;  // cheapest first
    std::string proof;                  // who is at the other end, as the kernel says
    std::uint64_t sent = 0;             // the last sequence published
    std::uint64_t received = 0;         // the last one accounted for; see received_known
    bool received_known = false;
    std::uint64_t unsettled = 0;                   // sent, and not let go of
    std::array<std::uint64_t, loss_count> lost{};  // of the subscription, by cause
    state how = state::flowing;
    std::string fix;  // when broken or warned of

    // The candidate that won; null when none did.
    [[nodiscard]] const candidate* winner() const noexcept;
  };

  std::string topic;
  state how = state::broken;
  std::vector<party> publishers;
  std::vector<party> subscriptions;
  std::vector<path> paths;
  // The first broken step of all, and what to do about it; empty when nothing is broken.
  std::string broken;
  std::string fix;
  // What else is worth knowing: leftovers of the dead, cards that cannot be read, peers that cannot
  // be reached.
  std::vector<std::string> notes;
};

[[nodiscard]] std::string_view name_of(explanation::state how) noexcept;
[[nodiscard]] std::string_view name_of(explanation::mark how) noexcept;

// `topic` may be a pattern: then it is about every topic that it matches. Never fails: a name that
// breaks the rules is the first broken step.
[[nodiscard]] explanation explain(const census& seen, std::string_view topic);

// The same for people: some lines, the last of which ends with a newline.
[[nodiscard]] std::string to_text(const explanation& told);

}  // namespace bus
