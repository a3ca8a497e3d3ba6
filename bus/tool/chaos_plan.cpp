#include "bus/tool/chaos_plan.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string_view>

namespace bus::tool {
namespace {

using namespace std::chrono_literals;

// Guesses, so that a life is mostly longer than a node takes to come up, and a second sees dozens
// of faults.
constexpr std::int64_t ms = 1'000'000;
constexpr std::int64_t between_faults_ns = 250 * ms;  // of one seat
constexpr std::int64_t stopped_for_ns = 80 * ms;
constexpr std::int64_t away_for_ns = 50 * ms;
constexpr std::int64_t birth_ns = 20 * ms;  // a kill within this meets a node that comes up

template <class T>
T one_of(dice& from, std::initializer_list<T> all) {
  return all.begin()[from.below(all.size())];
}

dice dice_for(const chaos_options& options, std::uint32_t seat, std::uint32_t character) {
  dice mixed(options.seed ^ (std::uint64_t{seat} << 32) ^ character);
  return dice(mixed.next());
}

// One seat's faults, in order; each begins after the one before is over.
class seat_plan {
 public:
  seat_plan(const chaos_options& options, std::uint32_t seat, bool mortal, std::vector<deed>& into)
      : draw_(dice_for(options, seat, UINT32_MAX)), seat_(seat), mortal_(mortal), into_(into) {}

  void fill(std::int64_t from_ns, std::int64_t until_ns) {
    at_ns_ = from_ns;
    until_ns_ = until_ns;
    for (pass(between_faults_ns); at_ns_ < until_ns_; pass(between_faults_ns)) fault();
    // All stand again when it is over, as they were at the beginning.
    at_ns_ = until_ns_;
    if (!mortal_) return;
    add(deed_kind::kill);
    start(0);
  }

 private:
  void fault() {
    const std::uint64_t which = mortal_ ? draw_.below(100) : 50;
    if (which < 45) {
      add(deed_kind::kill);
      come_back();
    } else if (which < 70) {
      add(deed_kind::stop);
      pass(stopped_for_ns);
      add(deed_kind::go_on);
    } else if (which < 80) {
      add(deed_kind::stop);
      pass(stopped_for_ns);
      add(deed_kind::kill);
      come_back();
    } else {
      add(deed_kind::leave);
      come_back();
    }
  }
  void come_back() {
    if (draw_.percent(50)) pass(away_for_ns);
    start(++characters_);
    while (draw_.percent(10)) {
      at_ns_ += static_cast<std::int64_t>(draw_.below(birth_ns));
      add(deed_kind::kill);
      start(++characters_);
    }
  }
  void start(std::uint32_t character) {
    add(deed_kind::start);
    into_.back().character = character;
  }
  void pass(std::int64_t mean_ns) { at_ns_ += draw_.around_ns(mean_ns); }
  void add(deed_kind what) {
    into_.push_back({.at_ns = std::min(at_ns_, until_ns_), .what = what, .seat = seat_});
  }

  dice draw_;
  std::uint32_t seat_;
  bool mortal_;
  std::vector<deed>& into_;
  std::int64_t at_ns_ = 0;
  std::int64_t until_ns_ = 0;
  std::uint32_t characters_ = 0;
};

}  // namespace

std::uint64_t dice::next() noexcept {
  std::uint64_t mixed = (state_ += 0x9e3779b97f4a7c15ULL);
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
  return mixed ^ (mixed >> 31);
}

std::int64_t dice::around_ns(std::int64_t mean_ns) noexcept {
  const double uniform = static_cast<double>(next() >> 11) * 0x1.0p-53;
  const double drawn = -std::log(1 - uniform) * static_cast<double>(mean_ns);
  return std::min(static_cast<std::int64_t>(drawn), 10 * mean_ns);
}

std::string chaos_topic(std::uint32_t seat, std::uint32_t topic) {
  return "chaos/p" + std::to_string(seat) + "/t" + std::to_string(topic);
}

std::string_view name_of(deed_kind what) noexcept {
  switch (what) {
    case deed_kind::start:
      return "started";
    case deed_kind::kill:
      return "killed";
    case deed_kind::stop:
      return "stopped";
    case deed_kind::go_on:
      return "continued";
    case deed_kind::leave:
      return "asked to leave";
  }
  return "";
}

publisher_character publisher_like(const chaos_options& options, std::uint32_t seat,
                                   std::uint32_t character) {
  dice draw = dice_for(options, seat, character);
  publisher_character made;
  made.topics = 1 + static_cast<std::uint32_t>(draw.below(chaos_topics_max));
  made.bytes_max = one_of<std::uint64_t>(draw, {64, 64, 1024, 16 << 10, 256 << 10});
  made.burst = one_of<std::uint32_t>(draw, {1, 4, 64, 500});
  made.rest = one_of<std::chrono::nanoseconds>(draw, {200us, 1ms, 1ms, 5ms});
  made.waits_for_room = draw.percent(50);
  made.lends = draw.percent(50);
  made.waiting = draw.percent(50) ? wait_policy::sleep : wait_policy::spin_then_sleep;
  made.link_depth = one_of<std::uint32_t>(draw, {8, 64, 1024, 1024});
  return made;
}

subscriber_character subscriber_like(const chaos_options& options, std::uint32_t seat,
                                     std::uint32_t character) {
  dice draw = dice_for(options, seat, character);
  subscriber_character made;
  const std::uint64_t count = 1 + draw.below(chaos_subscriptions_max);
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto publisher = static_cast<std::uint32_t>(draw.below(options.publishers));
    chaos_subscription one;
    // The first topic of a publisher is always there, so every pattern meets one.
    one.pattern = one_of<std::string>(
        draw, {"chaos/**", "chaos/*/t0", "chaos/p" + std::to_string(publisher) + "/*",
               chaos_topic(publisher, 0)});
    one.options.depth = one_of<std::uint32_t>(draw, {1, 8, 64, 1024});
    one.options.when_full = draw.percent(50) ? drop::oldest : drop::newest;
    made.subscriptions.push_back(std::move(one));
  }
  made.habit = one_of<chaos_habit>(
      draw, {chaos_habit::take, chaos_habit::callback, chaos_habit::event_loop});
  made.keep = one_of<std::uint32_t>(draw, {0, 0, 3, 50});
  made.waiting = draw.percent(50) ? wait_policy::sleep : wait_policy::spin_then_sleep;
  return made;
}

chaos_plan plan_chaos(const chaos_options& options) {
  chaos_plan plan;
  const auto all_ns = static_cast<std::int64_t>(options.seconds * 1e9);
  plan.calm_ns = std::clamp<std::int64_t>(all_ns / 5, 500 * ms, 3000 * ms);
  plan.last_fault_ns = std::max(all_ns, plan.calm_ns + 500 * ms);
  const std::uint32_t seats = options.publishers + options.subscribers;
  for (std::uint32_t seat = 0; seat < seats; ++seat) {
    plan.deeds.push_back({.at_ns = 0, .what = deed_kind::start, .seat = seat});
    const bool mortal = seat != 0 && seat != options.publishers;
    seat_plan(options, seat, mortal, plan.deeds).fill(plan.calm_ns, plan.last_fault_ns);
  }
  std::stable_sort(plan.deeds.begin(), plan.deeds.end(),
                   [](const deed& one, const deed& other) { return one.at_ns < other.at_ns; });
  plan.lives = static_cast<std::uint32_t>(
      std::count_if(plan.deeds.begin(), plan.deeds.end(),
                    [](const deed& one) { return one.what == deed_kind::start; }));
  return plan;
}

}  // namespace bus::tool
