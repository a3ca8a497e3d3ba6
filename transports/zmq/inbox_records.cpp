// What is in the peers' queues: out of them into the sink, and home again when it is let go of.
#include "bus/base/clock.hpp"
#include "transports/zmq/inbox.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace transports::zeromq {
namespace {

// What one peer hands out before the next one's turn.
constexpr std::size_t turn_max = 8;
// Credits go home in batches; a few may wait this long, which costs a quiet sender at most that.
constexpr std::int64_t report_after_ns = 5'000'000;

}  // namespace

// ---------------------------------------------------------------- from the queues into the sink

std::size_t router_inbox::hand_out(std::size_t budget, bus::sink& into) noexcept {
  std::size_t handed = 0;
  while (handed < budget && !turns_.empty()) {
    peer& from = *turns_.front();
    turns_.pop_front();
    const std::size_t turn = std::min(turn_max, budget - handed);
    const std::uint64_t before = from.messages;
    // A step that gives nothing has used up a ZMTP message, so this ends.
    while (from.messages - before < turn && !from.queue.empty()) step(from, into);
    handed += from.messages - before;
    if (!from.queue.empty()) turns_.push_back(&from);
  }
  return handed;
}

// Works on the ZMTP message in front, and hands over at most one sample.
void router_inbox::step(peer& from, bus::sink& into) noexcept {
  bool believable = true;
  if (from.arriving) {
    believable = next_chunk(from, into);
  } else if (from.offset == 0) {
    believable = open_message(from, from.queue.front());
  } else {
    believable = next_record(from, into);
  }
  if (!believable) {
    expel(from, bus::errc::bad_message);
  } else if (from.records_left == 0 && !from.queue.empty()) {
    from.offset = 0;
    from.queue.pop_front();
    --queued_;
  }
}

// Looks at the head of a message that is no chunk.
bool router_inbox::open_message(peer& from, const message& front) noexcept {
  const auto prefix = read<prefix_layout>(front.bytes());
  if (!prefix || prefix->magic != prefix_layout::magic_value ||
      prefix->version != prefix_layout::current_version) {
    return false;
  }
  const auto kind = static_cast<word>(prefix->kind);
  if (kind == word::bye) {
    if (!from.own) say_bye(from.link);
    end(from, bus::errc::closed, true);
    return true;
  }
  if (kind != word::packet && kind != word::begin) return false;
  const auto head = read<packet_layout>(front.bytes());
  if (!head || head->count == 0 || head->first != from.received + 1) return false;
  if (kind == word::packet) {
    from.offset = sizeof *head;
    from.records_left = head->count;
    return true;
  }
  const auto record = read<record_layout>(front.bytes().subspan(sizeof *head));
  return record && head->count == 1 && may_use(from, *record) && begin_large(from, *record);
}

// Whether the sender may send this: a frame to be believed, and within its credits.
bool router_inbox::may_use(peer& from, const record_layout& record) noexcept {
  const std::uint64_t bytes = record.head.bytes;
  if (!bus::check(record.head, hub_->bytes_max())) return false;
  return from.tab.may_use(record.credit, bytes);
}

bool router_inbox::next_record(peer& from, bus::sink& into) noexcept {
  const auto rest = std::as_const(from.queue.front()).bytes().subspan(from.offset);
  auto record = read<record_layout>(rest);
  if (!record || !may_use(from, *record)) return false;
  const std::uint64_t bytes = record->head.bytes;
  const auto payload = rest.subspan(sizeof *record);
  if (payload.size() < padded(bytes)) return false;
  auto lent = memory_->lend(bytes);
  if (!lent) return false;
  if (bytes > 0) std::memcpy(lent->bytes().data(), payload.data(), bytes);
  from.offset += sizeof *record + padded(bytes);
  --from.records_left;
  record->head.node = from.node.value;
  deliver(from, std::move(*lent).commit(record->head), record->credit, into);
  return true;
}

bool router_inbox::begin_large(peer& from, const record_layout& record) noexcept {
  if (record.head.bytes == 0) return false;
  auto lent = memory_->lend(record.head.bytes);
  if (!lent) return false;
  from.arriving.emplace(std::move(*lent));
  from.arriving_head = record.head;
  from.arriving_head.node = from.node.value;
  from.arriving_credit = record.credit;
  from.arrived_bytes = 0;
  return true;
}

bool router_inbox::next_chunk(peer& from, bus::sink& into) noexcept {
  const auto chunk = std::as_const(from.queue.front()).bytes();
  const std::uint64_t missing = from.arriving_head.bytes - from.arrived_bytes;
  if (chunk.empty() || chunk.size() > missing) return false;
  std::memcpy(from.arriving->bytes().data() + from.arrived_bytes, chunk.data(), chunk.size());
  from.arrived_bytes += chunk.size();
  if (chunk.size() < missing) return true;
  bus::sample whole = std::move(*from.arriving).commit(from.arriving_head);
  from.arriving.reset();
  deliver(from, std::move(whole), from.arriving_credit, into);
  return true;
}

void router_inbox::deliver(peer& from, bus::sample memory, std::uint32_t credit,
                           bus::sink& into) noexcept {
  const bus::frame& head = memory.head();
  ++from.received;
  from.messages += std::max(1U, memory.messages());
  from.tab.use(credit, head.bytes);
  // Whether a control message got through is asked by somebody who waits.
  if ((head.flags & bus::frame_flag::control) != 0) from.urgent = true;
  into.accept(homes_->send_out(std::move(memory), from.link, credit));
}

// ---------------------------------------------------------------- what goes home

// Notes the credits of samples that were let go.
void router_inbox::collect() noexcept {
  bus::homecoming::cell* home = homes_->collect();
  while (home) {
    bus::homecoming::cell* const next = home->next;
    peer* const from = find(home->link);
    if (from && from->where == phase::admitted) {
      if (!from->tab.owes()) {
        ++owing_;
        from->due_ns = bus::steady_ns() + report_after_ns;
        due_ns_ = std::min(due_ns_, from->due_ns);
      }
      from->tab.release(home->credit, home->bytes);
    }
    homes_->recycle(*home);
    home = next;
  }
}

// Reports where it matters now: much came home, the sender has little left, or it has waited long.
void router_inbox::report(bool everything) noexcept {
  if (owing_ == 0) return;
  const bus::transport_setup& setup = hub_->setup();
  const std::int64_t now_ns = bus::steady_ns();
  due_ns_ = INT64_MAX;
  for (auto& [link, one] : peers_) {
    if (!one->tab.owes()) continue;
    const bool missed = one->tab.is_missed(setup.link_bytes_max / 4);
    if (everything || missed || one->urgent || now_ns >= one->due_ns) report_to(*one);
    if (one->tab.owes()) due_ns_ = std::min(due_ns_, one->due_ns);
  }
}

void router_inbox::report_to(peer& one) noexcept {
  message report;
  const auto runs = std::as_bytes(one.tab.owed());
  auto head = make<release_layout>(word::release);
  head.runs = static_cast<std::uint32_t>(one.tab.owed().size());
  if (!report.allocate(sizeof head + runs.size())) return;
  std::memcpy(report.bytes().data(), &head, sizeof head);
  std::memcpy(report.bytes().data() + sizeof head, runs.data(), runs.size());
  // A connection that has ended is noticed by its monitor; until then we try again.
  if (!answer(one.link, report)) {
    one.due_ns = bus::steady_ns() + report_after_ns;
    return;
  }
  one.tab.settle();
  one.urgent = false;
  --owing_;
}

}  // namespace transports::zeromq
