#include "bus/node/conveyor.hpp"

#include "bus/link/relay.hpp"

#include <algorithm>

namespace bus {

void flow::held_by(const conveyor& one) noexcept {
  ++holders;
  blocking += one.blocks() ? 1 : 0;
}

bool flow::let_go_by(const conveyor& one) noexcept {
  blocking -= one.blocks() ? 1 : 0;
  return --holders > 0;
}

bool flow::pass(sample&& one) noexcept {
  const frame original = one.message_head();
  if (original.sequence <= last) return false;
  last = original.sequence;
  into.head.sequence = original.sequence + shift - 1;
  frame head = to.next_frame(into, original.flags);
  head.sent_ns = original.sent_ns;
  head.correlation = original.correlation;
  head.bytes = original.bytes;
  if (into.routes.empty()) {
    static_cast<void>(to.publish_to_nobody(into, head.bytes));
    return true;
  }
  sample ours = relay(std::move(one), head);
  // Without memory for its frame it is a gap in the numbers, and is counted as one.
  if (ours) static_cast<void>(to.send(into, std::move(ours)));
  return true;
}

conveyor::conveyor(core& from, owner& tells, setup wanted)
    : from_(from), tells_(tells), when_full_(wanted.options.when_full) {
  relaying how{.on_behalf_of = std::move(wanted.on_behalf_of)};
  how.joined = [this](const source_event& about) {
    const source_key key{about.node, about.publisher};
    if (queue_) see_off();
    if (std::erase(over_, key) != 0) {  // it is back before its last words went on
      flows_[key]->is_over = false;
    } else if (flow* const one = tells_.joined(*this, about)) {
      flows_[key] = one;
    }
  };
  how.left = [this](const source_event& about, loss cause) {
    const auto known = flows_.find({about.node, about.publisher});
    if (known == flows_.end()) return;
    known->second->is_over = true;
    known->second->end = about.last;
    known->second->cause = cause;
    over_.push_back(known->first);
    call();
  };
  queue_ = from_.subscribe(wanted.pattern, wanted.type ? &*wanted.type : nullptr, wanted.options,
                           {}, std::move(how));
  queue_->on_arrival = [this] { call(); };
}

conveyor::~conveyor() {
  from_.retire(queue_);
  for (const auto& [key, one] : flows_) tells_.left(*this, key);
}

void conveyor::drain() noexcept {
  is_due_ = false;
  wait_.reset();
  while (!queue_->empty()) {
    const frame& next = queue_->front();
    const auto known = flows_.find({node_id{next.node}, next.publisher});
    flow* const one = known == flows_.end() ? nullptr : known->second;
    const bool is_another_s = one && !blocks() && one->blocking > 0;
    if (one && !is_another_s && !one->has_way()) {
      try {
        wait_ = one->to.expect_room(one->into, [this] { call(); });
      } catch (...) {
        is_due_ = true;  // out of memory: looked at again in the next turn
      }
      break;
    }
    sample taken = queue_->take();
    queue_->settle();
    if (!one) tells_.thrown_away();
    if (one && !is_another_s && one->pass(std::move(taken))) tells_.passed(one->to);
  }
  see_off();
}

// Of whom nothing more will come, and nothing waits: their end goes on.
void conveyor::see_off() noexcept {
  std::erase_if(over_, [this](const source_key& key) {
    if (queue_->holds(key.first, key.second)) return false;
    flows_.erase(key);
    tells_.left(*this, key);
    return true;
  });
}

}  // namespace bus
