// What `bus chaos` will do, as a pure function of its seed: who is killed, stopped, continued, sent
// away and started again, and when; and how each party behaves in each of its lives. A run that
// failed is repeated by its seed, as far as the machine's own timing allows.
//
// Parties have seats: publishers first, then subscribers. Every start is a *life* with a number of
// its own, which its messages carry, so that nobody can be taken for a predecessor. The first seat
// of either part is stopped and never killed: it sees everything from the beginning to the end.
//
//   calm, all in their first character -> faults -> all in their first character again
//
// The end is as the beginning, so that the throughput of both can be compared.
#pragma once

#include "bus/node/qos.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bus::tool {

struct chaos_options {
  double seconds = 10;  // from the first start to the last fault
  std::uint64_t seed = 0;
  std::string transport = "shm";  // shm or zmq
  std::uint32_t publishers = 3;
  std::uint32_t subscribers = 3;
  bool json = false;
};

// Repeatable draws (SplitMix64, Steele, Lea and Flood 2014).
class dice {
 public:
  explicit dice(std::uint64_t seed) noexcept : state_(seed) {}
  [[nodiscard]] std::uint64_t next() noexcept;
  [[nodiscard]] std::uint64_t below(std::uint64_t limit) noexcept { return next() % limit; }
  [[nodiscard]] bool percent(std::uint64_t chance) noexcept { return below(100) < chance; }
  // Mostly short, sometimes long: exponential, at most ten times the mean.
  [[nodiscard]] std::int64_t around_ns(std::int64_t mean_ns) noexcept;

 private:
  std::uint64_t state_;
};

enum class chaos_part : std::uint8_t { publisher, subscriber };
[[nodiscard]] inline chaos_part part_of(const chaos_options& options, std::uint32_t seat) noexcept {
  return seat < options.publishers ? chaos_part::publisher : chaos_part::subscriber;
}

inline constexpr std::uint32_t chaos_topics_max = 3;         // of one publisher
inline constexpr std::uint32_t chaos_subscriptions_max = 2;  // of one subscriber
[[nodiscard]] std::string chaos_topic(std::uint32_t seat, std::uint32_t topic);

struct publisher_character {
  std::uint32_t topics = 1;
  std::uint64_t bytes_max = 64;
  std::uint32_t burst = 1;  // messages between two rests
  std::chrono::nanoseconds rest{};
  bool waits_for_room = false;  // else it overruns slow subscribers, and their losses are counted
  bool lends = false;           // writes in place instead of handing bytes over
  wait_policy waiting = wait_policy::sleep;
  std::uint32_t link_depth = 1024;
};

struct chaos_subscription {
  std::string pattern;
  subscription_options options;
};
enum class chaos_habit : std::uint8_t { take, callback, event_loop };
struct subscriber_character {
  std::vector<chaos_subscription> subscriptions;
  chaos_habit habit = chaos_habit::take;
  std::uint32_t keep = 0;  // messages held while further ones come
  wait_policy waiting = wait_policy::sleep;
};

// `character` 0 is the one for the beginning and the end.
[[nodiscard]] publisher_character publisher_like(const chaos_options& options, std::uint32_t seat,
                                                 std::uint32_t character);
[[nodiscard]] subscriber_character subscriber_like(const chaos_options& options, std::uint32_t seat,
                                                   std::uint32_t character);

enum class deed_kind : std::uint8_t { start, kill, stop, go_on, leave };
[[nodiscard]] std::string_view name_of(deed_kind what) noexcept;
struct deed {
  std::int64_t at_ns = 0;
  deed_kind what = deed_kind::start;
  std::uint32_t seat = 0;
  std::uint32_t character = 0;  // of a start
};

struct chaos_plan {
  std::vector<deed> deeds;   // in the order of their times
  std::uint32_t lives = 0;   // starts in all
  std::int64_t calm_ns = 0;  // before the first fault
  std::int64_t last_fault_ns = 0;
};
[[nodiscard]] chaos_plan plan_chaos(const chaos_options& options);

}  // namespace bus::tool
