#include "transports/shm/arena.hpp"

#include "transports/shm/layout.hpp"

#include <algorithm>
#include <bit>
#include <new>

#include <sys/mman.h>

namespace transports::shared {
namespace {

using bus::errc;
using bus::unexpected;

constexpr int madvise_populate_write = 23;  // Linux 5.14; not in Debian 12's headers

// Memory is reserved a quarter of what there is at a time, within these: a new page costs 2 to 3
// us, so that 1 MiB is a pause of under a millisecond, and 4 MiB one of three.
constexpr std::uint64_t segment_bytes_min = 1 << 20;
constexpr std::uint64_t segment_bytes_max = 4 << 20;

// The run for `count` chunks, rounded up to one of eight steps in each doubling.
struct run_class {
  std::uint64_t count;
  unsigned number;
};

run_class run_for(std::uint64_t count, std::uint64_t exact) noexcept {
  if (count <= exact) return {count, static_cast<unsigned>(count - 1)};
  const auto power = static_cast<unsigned>(std::bit_width(count - 1));
  const std::uint64_t below = 1ULL << (power - 1);
  const std::uint64_t step = below / 8;
  const std::uint64_t steps = (count - below + step - 1) / step;
  const auto first = static_cast<unsigned>(exact) + 8 * (power - 5);
  return {below + steps * step, first + static_cast<unsigned>(steps - 1)};
}

}  // namespace

constinit thread_local arena* arena::here_ = nullptr;

bus::result<arena::owner> arena::make(std::uint64_t bytes_max) {
  owner made(new arena);
  auto file = make_memory("omnibus-arena", 0);
  if (!file) return unexpected(file.error());
  made->file_ = std::move(*file);
  auto memory = mapping::writable(made->file_.get(), whole_chunks(bytes_max));
  if (!memory) return unexpected(memory.error());
  made->memory_ = std::move(*memory);
  // A forked child must not be able to write here, nor keep the memory when we are gone.
  static_cast<void>(::madvise(made->memory_.at(), made->memory_.bytes(), MADV_DONTFORK));
  // Ours is the only writable mapping that there will ever be.
  if (auto sealed = seal(made->file_.get(), true); !sealed) return unexpected(sealed.error());
  return made;
}

std::uint64_t arena::whole_chunks(std::uint64_t bytes) noexcept {
  const std::uint64_t within = std::clamp(bytes, chunk_bytes, arena_bytes_max);
  return (within + chunk_bytes - 1) / chunk_bytes * chunk_bytes;
}

unsigned arena::larger_class_for(std::uint64_t bytes) noexcept {
  const std::uint64_t slot = bytes + sizeof(bus::frame);
  if (slot > small_bytes_max) {
    return small_classes + run_for((slot + chunk_bytes - 1) / chunk_bytes, exact_runs).number;
  }
  const auto power = static_cast<unsigned>(std::bit_width(slot - 1));  // slot is in (2^p-1, 2^p]
  const bool lower_half = slot <= (3ULL << (power - 2));
  return 2 * (power - 7) - (lower_half ? 1 : 0);
}

std::uint64_t arena::small_bytes(unsigned size_class) noexcept {
  const unsigned power = 7 + (size_class + 1) / 2;
  return size_class % 2 == 0 ? 1ULL << power : 3ULL << (power - 2);
}

std::uint64_t arena::chunks_for(unsigned size_class) const noexcept {
  if (size_class < small_classes) return 1;
  const unsigned number = size_class - small_classes;
  if (number < exact_runs) return number + 1;
  const std::uint64_t below = 1ULL << (4 + (number - exact_runs) / 8);
  const std::uint64_t rounded = below + below / 8 * ((number - exact_runs) % 8 + 1);
  // The largest payload is the whole memory, even if its class would be larger.
  return std::min(rounded, memory_.bytes() / chunk_bytes);
}

bus::result<bus::block*> arena::carve(unsigned size_class) noexcept {
  const std::uint64_t count = chunks_for(size_class);
  collect();
  std::size_t at = find_run(count);
  // Rather use again what lies idle than grow, once it is half of all.
  if (at == none && idle_ > 0 && idle_ * 2 >= chunks_.size()) {
    trim();
    at = find_run(count);
  }
  if (at == none) {
    auto grown = grow(count);
    if (!grown && idle_ > 0) {
      trim();
      at = find_run(count);
      if (at == none) grown = grow(count);
    }
    if (at == none && !grown) return unexpected(grown.error());
    if (at == none) at = find_run(count);
  }
  BUS_CHECK(at != none);
  if (!split(at, size_class)) return unexpected(errc::no_memory);
  bus::block* const given = reuse(size_class);
  BUS_CHECK(given != nullptr);
  return given;
}

std::size_t arena::find_run(std::uint64_t count) noexcept {
  std::uint64_t found = 0;
  bool first = true;
  for (std::size_t i = first_free_; i < chunks_.size();) {
    if (chunks_[i].run != 0) {
      found = 0;
      i += chunks_[i].run;
      continue;
    }
    if (std::exchange(first, false)) first_free_ = i;
    ++i;
    if (++found == count) return i - count;
  }
  if (first) first_free_ = chunks_.size();
  return none;
}

bus::result<void> arena::grow(std::uint64_t count) noexcept {
  const std::uint64_t room = memory_.bytes() / chunk_bytes - chunks_.size();
  // Free chunks at the end are part of the run to be made.
  std::uint64_t trailing = 0;
  for (std::size_t i = first_free_; i < chunks_.size();) {
    trailing = chunks_[i].run == 0 ? trailing + 1 : 0;
    i += std::max(chunks_[i].run, 1U);
  }
  const std::uint64_t needed = count - std::min(count, trailing);
  if (needed > room) return unexpected(errc::no_memory);
  const std::uint64_t segment =
      std::clamp(bytes() / 4, segment_bytes_min, segment_bytes_max) / chunk_bytes;
  std::uint64_t more = std::min(std::max(needed, segment), room);
  auto reserved = extend(file_.get(), bytes(), more * chunk_bytes);
  if (!reserved && more > needed) {
    more = needed;
    reserved = extend(file_.get(), bytes(), more * chunk_bytes);
  }
  if (!reserved) return reserved;
  if (more * chunk_bytes <= segment_bytes_max) {
    // One call instead of a fault for each page; without it, faults do the same later.
    static_cast<void>(
        ::madvise(memory_.at() + bytes(), more * chunk_bytes, madvise_populate_write));
  }
  chunks_.resize(chunks_.size() + more);
  return {};
}

void arena::collect() noexcept {
  // Pairs with: take_back, release of returned_.
  if (!returned_.load(std::memory_order_relaxed)) return;
  cell* came = returned_.exchange(nullptr, std::memory_order_acquire);
  while (came) give(*std::exchange(came, came->next));
}

void arena::trim() noexcept {
  for (cell_list& list : free_) {
    cell** link = &list.first;
    while (cell* const one = *link) {
      if (chunks_[one->chunk].live == 0) {
        *link = one->next;
      } else {
        link = &one->next;
        list.last = one;
      }
    }
  }
  for (std::size_t i = 0; i < chunks_.size();) {
    chunk& one = chunks_[i];
    const std::size_t next = i + std::max(one.run, 1U);
    if (one.run != 0 && one.live == 0) {
      one.cells.reset();
      one.run = 0;
      first_free_ = std::min(first_free_, i);
    }
    i = next;
  }
  idle_ = 0;
}

bool arena::split(std::size_t at, unsigned size_class) noexcept {
  const bool is_small = size_class < small_classes;
  const std::uint64_t run = chunks_for(size_class);
  const std::uint64_t slot = is_small ? small_bytes(size_class) : run * chunk_bytes;
  const std::uint64_t slots = is_small ? chunk_bytes / slot : 1;
  chunk& made = chunks_[at];
  made.cells.reset(new (std::nothrow) cell[slots]);
  if (!made.cells) return false;
  made.run = static_cast<std::uint32_t>(run);
  idle_ += run;
  for (std::uint64_t i = 0; i < slots; ++i) {
    cell& one = made.cells[i];
    one.home = this;
    one.payload = memory_.at() + at * chunk_bytes + i * slot + sizeof(bus::frame);
    one.capacity = slot - sizeof(bus::frame);
    one.chunk = static_cast<std::uint32_t>(at);
    one.size_class = size_class;
    append(one);
  }
  return true;
}

arena::cell* arena::closed_mark() noexcept {
  static cell mark;
  return &mark;
}

void arena::take_back(bus::block& memory) noexcept {
  cell* const home = static_cast<cell*>(&memory);
  if (here_ == this) {
    give(*home);
    return;
  }
  cell* top = returned_.load(std::memory_order_relaxed);
  while (top != closed_mark()) {
    home->next = top;
    // Pairs with: collect and close, acquire of returned_.
    if (returned_.compare_exchange_weak(top, home, std::memory_order_release,
                                        std::memory_order_relaxed)) {
      return;
    }
  }
  // Pairs with: close and itself. The last one sees all that the others wrote.
  if (remaining_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

void arena::close() noexcept {
  // Pairs with: take_back. From here on each slot that comes home counts itself.
  cell* came = returned_.exchange(closed_mark(), std::memory_order_acq_rel);
  while (came) give(*std::exchange(came, came->next));
  const auto out = static_cast<std::int64_t>(lent_);
  if (remaining_.fetch_add(out, std::memory_order_acq_rel) == -out) delete this;
}

}  // namespace transports::shared
