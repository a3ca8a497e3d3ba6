// Passes the messages of one subscription on to another node of this process: each publisher that
// it meets becomes a publisher over there, a flow.
//
// Nothing is copied, and numbers tell the truth: what was lost on the way to us is a gap over there
// too, and is counted by whoever subscribes. A subscription that blocks, there, blocks its
// publisher here: what cannot go on stays in the queue.
#pragma once

#include "bus/node/core.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace bus {

using source_key = std::pair<node_id, std::uint32_t>;

class conveyor;

// One publisher that is passed on. Several conveyors may bring its messages: each goes once.
struct flow {
  core& to;
  publication& into;
  // Whether messages wait for somebody over there: whoever asked for them is about to be attached.
  bool needs_route = false;
  std::uint64_t shift = 0;        // its number there = its number here + shift, modulo 2^64
  std::uint64_t last = 0;         // passed on: its number here
  unsigned holders = 0;           // conveyors that bring it
  unsigned blocking = 0;          // of these, how many lose nothing: the others leave it to them
  bool is_over = false;           // no more will come:
  std::uint64_t end = 0;          // up to here it was published
  loss cause = loss::queue_full;  // and this became of what is missing

  [[nodiscard]] bool has_way() noexcept {
    if (needs_route && into.routes.empty()) return false;
    return (!needs_route && into.gated == 0) || to.has_room(into);
  }
  void held_by(const conveyor& one) noexcept;
  // False: nobody holds it any more.
  [[nodiscard]] bool let_go_by(const conveyor& one) noexcept;
  // False: it has gone on already.
  bool pass(sample&& one) noexcept;
  // Says up to where it was published, though some of that will never come.
  void close() noexcept {
    into.head.sequence = std::max(into.head.sequence, std::max(last, end) + shift);
    into.row->set(column::published, into.head.sequence);
  }
};

class conveyor {
 public:
  // Who makes the flows. A conveyor tells when it begins and ends to hold one.
  class owner {
   public:
    // Null: this one is not passed on.
    virtual flow* joined(const conveyor& by, const source_event& about) noexcept = 0;
    virtual void left(const conveyor& by, source_key which) noexcept = 0;
    // One was passed on to `to`, or thrown away since nobody passes it on.
    virtual void passed(const core& to) noexcept = 0;
    virtual void thrown_away() noexcept = 0;
    // drain() has something to do.
    virtual void due() noexcept = 0;

   protected:
    ~owner() = default;
  };
  struct setup {
    std::string pattern;
    std::optional<type_info> type = {};  // none: all
    subscription_options options = {};
    wire::Kin on_behalf_of = {};
  };
  // Throws bus::error for a bad pattern. `from` and `tells` outlive it.
  conveyor(core& from, owner& tells, setup wanted);
  ~conveyor();
  conveyor(const conveyor&) = delete;
  conveyor& operator=(const conveyor&) = delete;

  // Passes on what can go.
  void drain() noexcept;
  [[nodiscard]] bool is_due() const noexcept { return is_due_; }
  [[nodiscard]] const core& from() const noexcept { return from_; }
  // It loses nothing.
  [[nodiscard]] bool blocks() const noexcept { return when_full_ == drop::none; }
  // Nothing waits, or what waits cannot go.
  [[nodiscard]] bool is_settled() const noexcept { return queue_->empty() || wait_; }

 private:
  void see_off() noexcept;
  void call() noexcept {
    is_due_ = true;
    tells_.due();
  }

  core& from_;
  owner& tells_;
  drop when_full_;
  std::map<source_key, flow*> flows_;
  std::vector<source_key> over_;  // and perhaps still in the queue
  std::shared_ptr<subscription> queue_;
  std::shared_ptr<room_wait> wait_;
  bool is_due_ = true;
};

}  // namespace bus
