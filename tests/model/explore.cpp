#include "tests/model/explore.hpp"

#include "bus/base/check.hpp"
#include "tests/model/region.hpp"

#include <algorithm>
#include <climits>
#include <cstring>
#include <memory>
#include <vector>

#include <xxhash.h>

namespace model {
namespace {

// --- states

using bytes = std::vector<std::byte>;

class photographer {
 public:
  explicit photographer(world& of) : of_(of), spans_(region::spans()), used_(region::used()) {}

  [[nodiscard]] bytes take() {
    // What is made while states are counted would lie elsewhere in each schedule.
    BUS_CHECK(region::used() == used_);
    bytes into;
    into.reserve(last_bytes_ + 4096);
    for (const auto span : spans_) into.insert(into.end(), span.begin(), span.end());
    for (unsigned i = 0; i < of_.actors(); ++i) {
      const fiber::state now = of_.run_of(i).look();
      into.insert(into.end(), now.context.begin(), now.context.end());
      into.insert(into.end(), now.stack.begin(), now.stack.end());
    }
    last_bytes_ = into.size();
    return into;
  }

  void put_back(const bytes& from) const {
    const std::byte* at = from.data();
    for (const auto span : spans_) {
      std::memcpy(span.data(), at, span.size());
      at += span.size();
    }
    for (unsigned i = 0; i < of_.actors(); ++i) at = of_.run_of(i).put_back(at);
    BUS_CHECK(at == from.data() + from.size());
  }

  // Of all but the stacks, which hold, beside what matters, whatever the compiler left in holes.
  [[nodiscard]] std::uint64_t digest_of_memory() const {
    XXH3_64bits_reset(hash_.get());
    for (const auto span : spans_) XXH3_64bits_update(hash_.get(), span.data(), span.size());
    return std::max<std::uint64_t>(XXH3_64bits_digest(hash_.get()), 1);
  }

  [[nodiscard]] std::uint64_t digest() const {
    XXH3_64bits_reset(hash_.get());
    for (const auto span : spans_) XXH3_64bits_update(hash_.get(), span.data(), span.size());
    for (unsigned i = 0; i < of_.actors(); ++i) {
      const fiber::state now = of_.run_of(i).look();
      XXH3_64bits_update(hash_.get(), now.registers, sizeof now.registers);
      XXH3_64bits_update(hash_.get(), now.stack.data(), now.stack.size());
    }
    return std::max<std::uint64_t>(XXH3_64bits_digest(hash_.get()), 1);
  }

 private:
  world& of_;
  std::vector<std::span<std::byte>> spans_;
  std::size_t used_;
  std::size_t last_bytes_ = 0;
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hash_{XXH3_createState(),
                                                                        XXH3_freeState};
};

// The digests of all states met, and how many ways lead from each to an end. Open addressing; 64
// bits: among ten million states, two share a digest once in 400,000 searches.
class known_states {
 public:
  struct entry {
    std::uint64_t digest = 0;  // 0: free
    double ways = 0;
  };

  known_states() : entries_(std::size_t{1} << 16) {}

  // The entry of a state; a new one if it was not known. Valid until the next call.
  entry& meet(std::uint64_t digest) {
    if (count_ * 10 >= entries_.size() * 7) grow();
    entry& one = find(digest);
    if (one.digest == 0) {
      one.digest = digest;
      ++count_;
    }
    return one;
  }
  [[nodiscard]] bool knows(std::uint64_t digest) { return find(digest).digest != 0; }
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }

 private:
  entry& find(std::uint64_t digest) {
    std::size_t at = digest & (entries_.size() - 1);
    while (entries_[at].digest != 0 && entries_[at].digest != digest) {
      at = (at + 1) & (entries_.size() - 1);
    }
    return entries_[at];
  }
  void grow() {
    std::vector<entry> larger(entries_.size() * 2);
    larger.swap(entries_);
    for (const entry& one : larger) {
      if (one.digest != 0) find(one.digest) = one;
    }
  }

  std::vector<entry> entries_;
  std::uint64_t count_ = 0;
};

// What can happen next.
std::vector<move> moves_of(const world& of, unsigned kills_left) {
  std::vector<move> all;
  for (unsigned i = 0; i < of.actors(); ++i) {
    if (of.can_go(i)) all.push_back({i, false});
  }
  for (unsigned i = 0; kills_left > 0 && i < of.processes(); ++i) {
    if (!of.run_of(i).dropped()) all.push_back({i, true});
  }
  return all;
}

struct node {
  bytes photograph;
  std::uint64_t digest = 0;
  std::vector<move> moves;
  std::size_t tried = 0;
  unsigned kills_left = 0;
  double ways = 0;
};

// Depth first: the stack of nodes is one schedule.
class explorer {
 public:
  explorer(world& of, search within) : of_(of), camera_(of), within_(within) {}

  found run() {
    of_.restart(within_.at);
    if (within_.at == points::shared) go_alone(within_.kills_max);
    if (of_.failure()) report();
    of_.tidy();
    enter(within_.kills_max);
    while (!path_.empty() && result_.failure.empty()) advance();
    result_.states = known_.count();
    return std::move(result_);
  }

 private:
  // The world is in a state that was not known.
  void enter(unsigned kills_left) {
    node here{.photograph = camera_.take(),
              .digest = camera_.digest() ^ kills_left,
              .moves = moves_of(of_, kills_left),
              .tried = 0,
              .kills_left = kills_left,
              .ways = 0};
    known_.meet(here.digest);
    path_.push_back(std::move(here));
    settle(path_.back());
    result_.longest = std::max(result_.longest, path_.size() - 1);
    const auto& moves = path_.back().moves;
    const bool rests =
        std::all_of(moves.begin(), moves.end(), [](const move& m) { return m.kill; });
    if (!rests) return;
    // A kill may still set others free, but nobody may need it.
    check_rest(of_);
    if (of_.failure()) return report();
    ++result_.ends;
    result_.ends_hash += path_.back().digest;
    path_.back().ways = 1;
  }

  void advance() {
    node& here = path_.back();
    if (here.tried == here.moves.size()) return leave();
    if (known_.count() > within_.states_max) {
      result_.failure = "more states than were allowed: nothing is shown";
      return;
    }
    const move next = here.moves[here.tried++];
    const unsigned kills_left = here.kills_left - (next.kill ? 1 : 0);
    camera_.put_back(here.photograph);
    if (next.kill) {
      of_.kill(next.who);
    } else {
      resume(next.who);
    }
    if (within_.at == points::shared) go_alone(kills_left);
    ++result_.transitions;
    if (of_.failure()) return report();
    of_.tidy();
    const std::uint64_t digest = camera_.digest() ^ kills_left;
    if (known_.knows(digest)) {
      here.ways += known_.meet(digest).ways;
      return;
    }
    enter(kills_left);
  }

  // One step, and all checks. Nothing is made on the heap by the actors.
  void resume(unsigned who) {
    of_.resume(who);
    of_.check_now();
    of_.run_of(who).forget_returned();
  }

  // For the comparison of searches: what a state is when no step is left that goes alone.
  void settle(const node& here) {
    if (within_.at == points::seen) {
      go_alone(here.kills_left);
      of_.tidy();
    }
    const std::uint64_t digest = camera_.digest_of_memory() ^ here.kills_left;
    if (within_.at == points::seen) camera_.put_back(here.photograph);
    if (settled_.knows(digest)) return;
    settled_.meet(digest);
    ++result_.settled;
    result_.settled_hash += digest;
  }

  // The steps that need not wait for others.
  void go_alone(unsigned kills_left) {
    for (unsigned i = 0; i < of_.actors() && !of_.failure(); ++i) {
      if (!of_.goes_alone(i, kills_left > 0)) continue;
      resume(i);
      i = UINT_MAX;  // it may have set free one of those before it
    }
  }

  void leave() {
    const double ways = path_.back().ways;
    known_.meet(path_.back().digest).ways = ways;
    path_.pop_back();
    if (path_.empty()) {
      result_.schedules = ways;
    } else {
      path_.back().ways += ways;
    }
  }

  // The way to here, played again so that it can be told.
  void report() {
    std::string text = std::string(of_.failure()) + "\n" + where_all_are(of_) + "by:\n";
    for (const node& one : path_) {
      if (one.tried == 0) break;
      camera_.put_back(one.photograph);
      text += "  " + describe(of_, one.moves[one.tried - 1]);
    }
    result_.failure = text;
  }

  world& of_;
  photographer camera_;
  search within_;
  known_states known_;
  known_states settled_;
  std::vector<node> path_;
  found result_;
};

}  // namespace

void check_rest(world& of) {
  if (of.failure()) return;
  if (!of.is_over()) return of.fail("somebody waits for ever");
  of.check_end();
}

std::string where_all_are(const world& of) {
  std::string text;
  for (unsigned i = 0; i < of.actors(); ++i) {
    text += "  " + of.name_of(i) + " is at ";
    (text += of.run_of(i).place()) += '\n';
  }
  return text;
}

std::string describe(const world& of, move next) {
  std::string text = of.name_of(next.who) + (next.kill ? " is killed at " : ": ");
  return (text += of.run_of(next.who).place()) += '\n';
}

found explore(world& of, search within) { return explorer(of, within).run(); }

}  // namespace model
