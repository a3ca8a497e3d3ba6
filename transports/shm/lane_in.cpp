#include "transports/shm/lane_in.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

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
  new (answers_.at()) answers_layout{answers_layout::magic_value, layout_version, depth_, 0};
  bits_ = reinterpret_cast<std::atomic<std::uint64_t>*>(answers_.at() + answers_layout::bits_at);

  // Zero pages are `depth` blocks without references; those never used are never touched.
  auto cells = mapping::zeroes(depth_ * sizeof(cell));
  if (!cells) return unexpected(cells.error());
  private_ = std::move(*cells);
  cells_ = reinterpret_cast<cell*>(private_.at());

  auto opened = bus::ringer::open(std::move(offered.bell));
  if (!opened) return unexpected(opened.error());
  ringer_ = std::make_unique<bus::ringer>(std::move(*opened));
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

bool lane_in::arrived(std::uint64_t number) const noexcept {
  // Pairs with: lane_out::push, release of mark.
  const std::uint64_t mark = entries_[number & (depth_ - 1)].mark.load(std::memory_order_acquire);
  return lap_of(mark) == static_cast<std::uint32_t>((number >> depth_log2_) + 1);
}

// Starts loading the frames of what has arrived: atomics in between would else serialise the
// misses.
void lane_in::prefetch() noexcept {
  fetched_ = std::max(fetched_, next_);
  while (fetched_ < next_ + prefetch_ahead && arrived(fetched_)) {
    // Relaxed and unchecked: a prefetch of a wrong address does nothing.
    const std::uint64_t offset =
        entries_[fetched_ & (depth_ - 1)].offset.load(std::memory_order_relaxed);
    if (offset < known_bytes_) {
      __builtin_prefetch(payloads_ + offset);
      __builtin_prefetch(payloads_ + std::min(offset + sizeof(bus::frame), known_bytes_ - 1));
    }
    ++fetched_;
  }
}

std::size_t lane_in::take(std::uint64_t number, bus::sink& into) noexcept {
  const entry_layout& place = entries_[number & (depth_ - 1)];
  // Relaxed, and once each: arrived() has acquired the mark, and a stranger who changes either now
  // meets the checks below.
  const std::uint32_t credit = credit_of(place.mark.load(std::memory_order_relaxed));
  const std::uint64_t offset = place.offset.load(std::memory_order_relaxed);
  if (credit >= depth_ || offset % slot_align != 0 || offset >= arena_.bytes()) return 0;
  cell& one = cells_[credit];
  // Pairs with: take_back, release of references.
  if (one.references.load(std::memory_order_acquire) != 0) return 0;

  if (offset >= known_bytes_ && (!measure() || offset >= known_bytes_)) return 0;
  std::memcpy(&one.copy, payloads_ + offset, sizeof one.copy);
  const std::uint64_t room_max = arena_.bytes() - offset - sizeof(bus::frame);
  if (!bus::check(one.copy, room_max)) return 0;
  const std::uint64_t end = offset + sizeof(bus::frame) + one.copy.bytes;
  if (end > known_bytes_ && (!measure() || end > known_bytes_)) return 0;

  one.copy.node = sender_.value;
  one.tag = credit;
  one.home = this;
  one.head = &one.copy;
  one.payload = const_cast<std::byte*>(payloads_ + offset + sizeof(bus::frame));
  one.capacity = one.copy.bytes;
  // Relaxed: the sample goes to others only by ways that synchronise.
  one.references.store(1, std::memory_order_relaxed);
  ++accepted_;
  bus::sample arrived(one);
  // A batch whose table does not hold is one message that nobody can read.
  const std::size_t messages = std::max(1U, arrived.messages());
  into.accept(std::move(arrived));
  return messages;
}

std::size_t lane_in::poll(std::size_t budget, bus::sink& into) noexcept {
  std::size_t taken = 0;
  while (taken < budget && !empty()) {
    prefetch();
    const std::size_t messages = take(next_, into);
    if (messages == 0) {
      broken_ = true;
      break;
    }
    ++next_;
    taken += messages;
  }
  return taken;
}

void lane_in::take_back(bus::block& memory) noexcept {
  const std::uint32_t credit = memory.tag;
  // Pairs with: take, acquire of references; before the bit, which lets the sender use the credit.
  memory.references.store(0, std::memory_order_release);
  // Pairs with: lane_out::scan, load of the bits. And seq_cst with lane_out::ask: either the sender
  // sees the bit, or we see that it asks.
  bits_[credit / 64].fetch_xor(1ULL << credit % 64, std::memory_order_seq_cst);
  if (lane_head_->want_room.load(std::memory_order_seq_cst) != 0) {
    const std::lock_guard<std::mutex> one_at_a_time(ringing_);
    static_cast<void>(ringer_->ring());
  }
  // Pairs with: close and itself. The last one sees all that the others did.
  if (remaining_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

void lane_in::close() noexcept {
  const std::int64_t accepted = accepted_;
  // Pairs with: take_back.
  if (remaining_.fetch_add(accepted, std::memory_order_acq_rel) == -accepted) delete this;
}

}  // namespace transports::shared
