#include "tests/model/explore.hpp"

#include <algorithm>
#include <array>
#include <random>
#include <string_view>
#include <vector>

namespace model {
namespace {

class wanderer {
 public:
  wanderer(world& of, walk how) : of_(of), how_(how), random_(how.seed) {
    for (unsigned i = 0; i < of.actors(); ++i) ranks_.push_back(below(1000));
  }

  walked run() {
    of_.restart(points::all);
    // Faults, then, if it is a matter of life, none.
    const std::uint64_t trouble = below(600);
    for (std::uint64_t i = 0; i < trouble && go_on(true); ++i) {
    }
    std::fill(stands_still_.begin(), stands_still_.end(), 0);
    if (how_.is_live) {
      while (go_on(false)) {
      }
      check_rest(of_);
    }
    if (of_.failure()) tell();
    return std::move(result_);
  }

 private:
  static constexpr std::uint64_t steps_max = 200'000;

  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }

  bool go_on(bool in_trouble) {
    if (of_.failure()) return false;
    if (in_trouble && result_.kills < how_.kills_max && below(50) == 0) {
      const auto whom = static_cast<unsigned>(below(of_.processes()));
      if (!of_.run_of(whom).ended() && !of_.run_of(whom).dropped()) {
        ++result_.kills;
        step({whom, true});
        return true;
      }
    }
    if (in_trouble && below(20) == 0) {
      stands_still_[below(of_.actors())] = result_.steps + below(100);
    }
    const int who = choose();
    if (who < 0) return in_trouble && is_anybody_waiting_for_time();
    if (result_.steps >= steps_max) of_.fail("no end after 200,000 steps");
    step({static_cast<unsigned>(who), false});
    return true;
  }

  // Half of the schedules by lot, half by ranks that seldom change: some failures want one actor to
  // be slow for long.
  int choose() {
    int best = -1;
    unsigned count = 0;
    for (unsigned i = 0; i < of_.actors(); ++i) {
      if (!of_.can_go(i) || stands_still_[i] > result_.steps) continue;
      ++count;
      const bool takes = how_.seed % 2 == 0
                             ? below(count) == 0
                             : best < 0 || ranks_[i] > ranks_[static_cast<unsigned>(best)];
      if (takes) best = static_cast<int>(i);
    }
    if (best >= 0 && below(16) == 0) ranks_[static_cast<unsigned>(best)] = below(1000);
    return best;
  }

  bool is_anybody_waiting_for_time() {
    bool any = false;
    for (unsigned i = 0; i < of_.actors(); ++i) {
      any = any || (of_.can_go(i) && stands_still_[i] > result_.steps);
    }
    if (any) ++result_.steps;  // time passes
    return any;
  }

  void step(const move& next) {
    ++result_.steps;
    last_.push_back(next);
    places_.push_back(of_.run_of(next.who).place());
    if (next.kill) return of_.kill(next.who);
    of_.resume(next.who);
    of_.check_now();
  }

  void tell() {
    std::string text = std::string(of_.failure()) + "\n" + where_all_are(of_) + "by:\n";
    for (std::size_t i = 0; i < last_.size(); ++i) {
      text += "  " + of_.name_of(last_[i].who);
      ((text += last_[i].kill ? " is killed at " : ": ") += places_[i]) += '\n';
    }
    result_.failure = text;
  }

  world& of_;
  walk how_;
  std::mt19937_64 random_;
  std::vector<std::uint64_t> ranks_;
  std::array<std::uint64_t, fibers_max> stands_still_{};
  std::vector<move> last_;
  std::vector<std::string_view> places_;
  walked result_;
};

}  // namespace

walked wander(world& of, walk how) {
  wanderer one(of, how);
  return one.run();
}

}  // namespace model
