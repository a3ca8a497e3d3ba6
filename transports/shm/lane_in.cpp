#include "transports/shm/lane_in.hpp"

#include "bus/base/step.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <utility>

#include <sys/mman.h>

namespace transports::shared {
namespace {

using bus::errc;
using bus::unexpected;

constexpr int madvise_populate_read = 22;  // Linux 5.14; not in Debian 12's headers
// What is mapped ahead when a peer's arena has grown. More is left to page faults.
constexpr std::uint64_t populate_bytes_max = 8 << 20;

}  // namespace

bus::result<lane_in::owner> lane_in::make(offer&& offered) {
  owner made(new lane_in);
  if (auto mapped = made->map(std::move(offered)); !mapped) return unexpected(mapped.error());
  return made;
}

bus::result<void> lane_in::map(offer&& offered) {
  const std::uint64_t arena_bytes = offered.arena_bytes;
  if (!std::has_single_bit(offered.depth) || offered.depth > depth_max ||
      arena_bytes > arena_bytes_max || arena_bytes % page_bytes != 0 || arena_bytes == 0) {
    return unexpected(errc::corrupt);
  }
  sender_ = offered.sender;
  depth_ = offered.depth;
  depth_log2_ = static_cast<std::uint32_t>(std::countr_zero(depth_));

  const auto lane_size = inspect(offered.lane.get());
  if (!lane_size) return unexpected(lane_size.error());
  if (*lane_size != lane_bytes(depth_)) return unexpected(errc::corrupt);
  auto lane = mapping::readable(offered.lane.get(), *lane_size);
  if (!lane) return unexpected(lane.error());
  lane_ = std::move(*lane);
  lane_head_ = reinterpret_cast<const lane_layout*>(lane_.at());
  entries_ = reinterpret_cast<const entry_layout*>(lane_.at() + lane_layout::entries_at);
  cells_ = reinterpret_cast<const cell_layout*>(lane_.at() + cells_at(depth_));
  cell_mask_ = cells_for(depth_) - 1;
  referred_ = referred_before_ = lane_.at();
  if (lane_head_->magic != lane_layout::magic_value) return unexpected(errc::corrupt);
  if (lane_head_->version != layout_version) return unexpected(errc::incompatible);
  if (lane_head_->depth != depth_ || lane_head_->entry_bytes != sizeof(entry_layout)) {
    return unexpected(errc::corrupt);
  }

  arena_file_ = std::move(offered.arena);
  auto arena = mapping::readable(arena_file_.get(), arena_bytes);
  if (!arena) return unexpected(arena.error());
  arena_ = std::move(*arena);
  payloads_ = arena_.at();
  if (!measure()) return unexpected(errc::corrupt);

  auto answers_file = make_memory("omnibus-answers", answers_bytes(depth_));
  if (!answers_file) return unexpected(answers_file.error());
  answers_file_ = std::move(*answers_file);
  auto answers = mapping::writable(answers_file_.get(), answers_bytes(depth_));
  if (!answers) return unexpected(answers.error());
  answers_ = std::move(*answers);
  if (auto sealed = seal(answers_file_.get(), false); !sealed) return sealed;
  bus::step("answers.make.head");
  answers_head_ =
      new (answers_.at()) answers_layout{answers_layout::magic_value, layout_version, depth_, 0, 0};
  bits_ = reinterpret_cast<std::atomic<std::uint64_t>*>(answers_.at() + answers_layout::bits_at);

  // Zero pages are `depth` blocks at home; those never used are never touched.
  auto slots = mapping::zeroes(depth_ * sizeof(slot_cell));
  if (!slots) return unexpected(slots.error());
  auto values = mapping::zeroes(depth_ * sizeof(value_cell));
  if (!values) return unexpected(values.error());
  private_slots_ = std::move(*slots);
  private_values_ = std::move(*values);
  slots_ = reinterpret_cast<slot_cell*>(private_slots_.at());
  values_ = reinterpret_cast<value_cell*>(private_values_.at());

  auto opened = bus::ringer::open(std::move(offered.bell));
  if (!opened) return unexpected(opened.error());
  ringer_ = std::make_unique<bus::ringer>(std::move(*opened));
  doorbell_ = offered.doorbell;
  return {};
}

// Learns the arena's size from the kernel. The seal says that it only grows.
bool lane_in::measure() noexcept {
  const auto bytes = inspect(arena_file_.get());
  if (!bytes) return false;
  const std::uint64_t usable = std::min(*bytes, arena_.bytes()) / page_bytes * page_bytes;
  if (usable > known_bytes_ && usable - known_bytes_ <= populate_bytes_max) {
    static_cast<void>(
        ::madvise(arena_.at() + known_bytes_, usable - known_bytes_, madvise_populate_read));
  }
  known_bytes_ = usable;
  return true;
}

bool lane_in::entry_arrived(std::uint64_t number) const noexcept {
  // Pairs with: lane_out::push, release of mark.
  const std::uint64_t mark = entries_[number & (depth_ - 1)].mark.load(std::memory_order_acquire);
  return lap_of(mark) == static_cast<std::uint32_t>((number >> depth_log2_) + 1);
}

bool lane_in::cell_arrived() const noexcept {
  const cell_layout& one = cells_[cells_read_ & cell_mask_];
  // In a dialogue its second line is on its way, too, when the mark comes, and the payload that it
  // will refer to. In a stream this would take lines away from a sender that is writing them.
  if (expected_) {
    __builtin_prefetch(one.payload + sizeof(std::uint64_t));
    __builtin_prefetch(expected_);
  }
  // Pairs with: lane_out::push_by_value, release of mark.
  return one.mark.load(std::memory_order_acquire) == join(cells_read_ + 1, entries_read_);
}

lane_in::arrival lane_in::look() const noexcept {
  if (cell_arrived()) return arrival::cell;
  if (!entry_arrived(entries_read_)) return arrival::none;
  // Relaxed: the mark that was just acquired makes it valid.
  const std::uint64_t place =
      entries_[entries_read_ & (depth_ - 1)].place.load(std::memory_order_relaxed);
  if (comes_after(place, cells_read_)) return arrival::entry;
  // Cells before an entry were published before it, so they are seen now.
  return cell_arrived() ? arrival::cell : arrival::broken;
}

bool lane_in::empty() const noexcept {
  if (broken_) return true;
  const arrival next = look();
  if (next != arrival::cell || !starved_) return next == arrival::none;
  // Whoever gives one back rings, unless we are awake: then we see it here.
  for (std::uint32_t i = 0; i < depth_; ++i) {
    if (is_home(i)) return false;
  }
  return true;
}

// Starts loading the frames of what has arrived: atomics in between would else serialise the
// misses.
void lane_in::prefetch() noexcept {
  fetched_ = std::max(fetched_, entries_read_);
  while (fetched_ < entries_read_ + prefetch_ahead && entry_arrived(fetched_)) {
    // Relaxed and unchecked: a prefetch of a wrong address does nothing.
    const std::uint64_t offset =
        value_of(entries_[fetched_ & (depth_ - 1)].place.load(std::memory_order_relaxed));
    if (offset < known_bytes_) {
      __builtin_prefetch(payloads_ + offset);
      __builtin_prefetch(payloads_ + std::min(offset + sizeof(bus::frame), known_bytes_ - 1));
    }
    ++fetched_;
  }
}

std::size_t lane_in::take_entry(bus::sink& into) noexcept {
  bus::step("lane.take.entry");
  const entry_layout& entry = entries_[entries_read_ & (depth_ - 1)];
  // Relaxed, and once each: look() has acquired the mark, and a stranger who changes either now
  // meets the checks below.
  const std::uint32_t credit = credit_of(entry.mark.load(std::memory_order_relaxed));
  bus::step("lane.take.offset");
  const std::uint64_t offset = value_of(entry.place.load(std::memory_order_relaxed));
  slot_cell* const one = slot_of(credit, offset);
  if (!one) return 0;
  bus::step("lane.take.frame");
  std::memcpy(&one->copy, payloads_ + offset, sizeof one->copy);
  ++entries_read_;
  return hand_over(*one, offset, into);
}

// The block for a sample that holds this credit. Null when a stranger names what cannot be.
lane_in::slot_cell* lane_in::slot_of(std::uint32_t credit, std::uint64_t offset) noexcept {
  if (credit >= depth_ || offset % slot_align != 0 || offset >= arena_.bytes()) return nullptr;
  slot_cell& one = slots_[credit];
  // Pairs with: take_back, release of references.
  if (one.references.load(std::memory_order_acquire) != 0) return nullptr;
  if (offset >= known_bytes_ && (!measure() || offset >= known_bytes_)) return nullptr;
  one.tag = credit;
  return &one;
}

// A sample in the arena, whose frame is in `one`. Returns how many messages; 0 when its payload is
// not all there.
std::size_t lane_in::hand_over(slot_cell& one, std::uint64_t offset, bus::sink& into) noexcept {
  const std::uint64_t room_max = arena_.bytes() - offset - sizeof(bus::frame);
  if (!bus::check(one.copy, room_max)) return 0;
  const std::uint64_t end = offset + sizeof(bus::frame) + one.copy.bytes;
  if (end > known_bytes_ && (!measure() || end > known_bytes_)) return 0;
  one.copy.node = sender_.value;
  one.home = this;
  one.head = &one.copy;
  one.payload = const_cast<std::byte*>(payloads_ + offset + sizeof(bus::frame));
  one.capacity = one.copy.bytes;
  // Relaxed: the sample goes to others only by ways that synchronise.
  one.references.store(1, std::memory_order_relaxed);
  ++slots_accepted_;
  bus::step("lane.take.accept");
  bus::sample arrived(one);
  // A batch whose table does not hold is one message that nobody can read.
  const std::size_t messages = std::max(1U, arrived.messages());
  into.accept(std::move(arrived));
  return messages;
}

inline bool lane_in::is_home(std::uint32_t index) const noexcept {
  // Pairs with: release_value: the last owner's reads come before.
  return values_[index].where.load(std::memory_order_acquire) == stage::home;
}

inline lane_in::value_cell* lane_in::use(std::uint32_t index) noexcept {
  value_cell& one = values_[index];
  if (index >= values_used_) {
    prepare(one);
    values_used_ = index + 1;
  }
  value_hint_ = index + 1 == depth_ ? 0 : index + 1;
  return &one;
}

// A place for the next message by value; poll() begins at the first one if that is home, since it
// is in the cache.
inline lane_in::value_cell* lane_in::find_home() noexcept {
  return is_home(value_hint_) ? use(value_hint_) : search_home();
}

lane_in::value_cell* lane_in::search_home() noexcept {
  for (std::uint32_t tried = 0, at = value_hint_; tried < depth_; ++tried) {
    if (is_home(at)) return use(at);
    at = at + 1 == depth_ ? 0 : at + 1;
  }
  // All are out: whoever gives one back is to ring.
  for (std::uint32_t i = 0; i < depth_; ++i) {
    stage seen = stage::out;
    values_[i].where.compare_exchange_strong(seen, stage::wanted, std::memory_order_acq_rel);
    if (seen == stage::home) return use(i);
  }
  starved_ = true;
  return nullptr;
}

// The frame of the cell to be read next. Its node and version are ours to say.
inline bus::frame lane_in::frame_of(const cell_layout& from, std::uint64_t bytes) const noexcept {
  return {.version = bus::frame::current_version,
          .flags = from.flags,
          .publisher = from.publisher,
          .node = sender_.value,
          .topic_hash = from.topic_hash,
          .type_hash = from.type_hash,
          .sequence = from.sequence,
          .sent_ns = from.sent_ns,
          .correlation = from.correlation,
          .bytes = bytes};
}

std::size_t lane_in::take_reference(bus::sink& into) noexcept {
  const cell_layout& from = cells_[cells_read_ & cell_mask_];
  bus::step("lane.take.reference");
  reference_layout to;
  std::memcpy(&to, from.payload, sizeof to);
  slot_cell* const one = slot_of(to.credit, to.offset);
  if (!one) return 0;
  referred_before_ = std::exchange(referred_, payloads_ + to.offset + sizeof(bus::frame));
  __builtin_prefetch(referred_);
  one->copy = frame_of(from, to.bytes);
  ++cells_read_;
  return hand_over(*one, to.offset, into);
}

// How many messages: 1, or 0 when a rule is broken.
inline std::size_t lane_in::take_value(value_cell& one, std::uint16_t bytes,
                                       bus::sink& into) noexcept {
  const cell_layout& from = cells_[cells_read_ & cell_mask_];
  bus::step("lane.take.value");
  // All at once, whatever the size: cheaper than to ask.
  std::memcpy(one.payload_copy, from.payload, sizeof one.payload_copy);
  one.copy = frame_of(from, bytes);
  if (!bus::check(one.copy, sizeof one.payload_copy)) return 0;
  one.capacity = bytes;
  // Relaxed, both: as in hand_over.
  one.references.store(1, std::memory_order_relaxed);
  one.where.store(stage::out, std::memory_order_relaxed);
  ++cells_read_;
  into.accept(bus::sample(one));
  return 1;
}

// The cell to be read next. Empty: there is no place for it now.
inline std::optional<std::size_t> lane_in::take_cell(bus::sink& into) noexcept {
  const std::uint16_t bytes = cells_[cells_read_ & cell_mask_].bytes;
  if (bytes == cell_layout::by_reference) return take_reference(into);
  value_cell* const one = find_home();
  if (!one) return std::nullopt;
  return take_value(*one, bytes, into);
}

std::size_t lane_in::poll(std::size_t budget, bus::sink& into) noexcept {
  const bool in_dialogue = expected_ != nullptr;
  if (is_home(0)) value_hint_ = 0;
  starved_ = false;
  std::size_t taken = 0;
  while (taken < budget && !broken_) {
    const arrival next = look();
    if (next == arrival::none) break;
    std::optional<std::size_t> messages = 0;
    if (next == arrival::cell) {
      messages = take_cell(into);
    } else if (next == arrival::entry) {
      prefetch();
      messages = take_entry(into);
    }
    if (!messages) break;
    broken_ = *messages == 0;
    taken += *messages;
    // Nothing more will come before we have answered: the next look would wait for a line that the
    // sender has, and the answer with it.
    if (in_dialogue) break;
    if (cells_read_ - cells_told_ >= tell_after) tell();
  }
  if (taken == 0) {
    idle_ = true;
    report();
    return 0;
  }
  // What came alone, after we had looked in vain, may be half of a dialogue.
  expected_ = taken == 1 && idle_ ? referred_before_ : nullptr;
  idle_ = false;
  // The cell of a question is given back after the answer.
  if (!expected_ || cell_mask_ + 1 < cells_max) report();
  return taken;
}

// Gives back the cells that were read. In a long poll the sender is to find some meanwhile.
void lane_in::tell() noexcept {
  cells_told_ = cells_read_;
  bus::step("lane.tell.cells");
  // Release, as in report(), which comes later and looks whether the sender waits.
  answers_head_->cells_read.store(cells_read_, std::memory_order_release);
}

void lane_in::report() noexcept {
  if (cells_read_ == cells_reported_) return;
  cells_reported_ = cells_told_ = cells_read_;
  bus::step("lane.report.cells");
  // Pairs with: lane_out::scan_cells. And seq_cst with lane_out::ask, as in take_back.
  answers_head_->cells_read.store(cells_read_, std::memory_order_seq_cst);
  ring_sender_if_asked();
}

void lane_in::trim() noexcept {
  // Zero pages are blocks at home. Whoever lets go of a value does not touch it after it is home.
  std::uint32_t kept = values_used_;
  while (kept > 0 && is_home(kept - 1)) --kept;
  kept = std::min((kept + values_a_page - 1) / values_a_page * values_a_page, values_used_);
  private_values_.forget(kept * sizeof(value_cell));
  values_used_ = values_kept_ = kept;
  value_hint_ = 0;
  // Of slots this is known only when nobody is left who might be letting go of one. Pairs with:
  // leave.
  slots_trimmed_ = slots_accepted_;
  if (remaining_.load(std::memory_order_acquire) == owners_share - slots_accepted_) {
    private_slots_.forget(0);
  }
}

void lane_in::ring_sender_if_asked() noexcept {
  bus::step("lane.release.look");
  if (lane_head_->want_room.load(std::memory_order_seq_cst) == 0) return;
  const std::lock_guard<std::mutex> one_at_a_time(ringing_);
  static_cast<void>(ringer_->ring());
}

void lane_in::take_back(bus::block& memory) noexcept {
  const std::uint32_t credit = memory.tag;
  if (credit == by_value) return release_value(static_cast<value_cell&>(memory));
  bus::step("lane.release.cell");
  // Pairs with: take_entry, acquire of references; before the bit, which lets the sender use the
  // credit.
  memory.references.store(0, std::memory_order_release);
  bus::step("lane.release.bit");
  // Pairs with: lane_out::scan, load of the bits. And seq_cst with lane_out::ask: either the sender
  // sees the bit, or we see that it asks.
  bits_[credit / 64].fetch_xor(1ULL << credit % 64, std::memory_order_seq_cst);
  ring_sender_if_asked();
  leave();
}

void lane_in::release_value(value_cell& home) noexcept {
  stage seen = stage::out;
  // Pairs with: find_home, acquire of `where`.
  if (home.where.compare_exchange_strong(seen, stage::home, std::memory_order_acq_rel)) return;
  if (seen == stage::wanted) {
    // The lane may not go while we ring: until `where` says home, this sample keeps it, and then we
    // do.
    remaining_.fetch_add(1, std::memory_order_relaxed);
    seen = home.where.exchange(stage::home, std::memory_order_acq_rel);
    {
      const std::lock_guard<std::mutex> one_at_a_time(ringing_);
      if (doorbell_) static_cast<void>(doorbell_->ring());
    }
    leave();
  }
  if (seen == stage::closing) leave();
}

// Pairs with: close and itself. The last one sees all that the others did.
void lane_in::leave() noexcept {
  if (remaining_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

void lane_in::close() noexcept {
  {
    const std::lock_guard<std::mutex> one_at_a_time(ringing_);
    doorbell_ = nullptr;
  }
  std::int64_t still_out = slots_accepted_;
  for (std::uint32_t i = 0; i < values_used_; ++i) {
    stage seen = stage::out;
    // Pairs with: release_value: each is counted by us, or was home before.
    while (seen != stage::home && !values_[i].where.compare_exchange_weak(
                                      seen, stage::closing, std::memory_order_acq_rel)) {
    }
    still_out += seen == stage::home ? 0 : 1;
  }
  // Pairs with: leave.
  const std::int64_t share = owners_share - still_out;
  if (remaining_.fetch_sub(share, std::memory_order_acq_rel) == share) delete this;
}

}  // namespace transports::shared
