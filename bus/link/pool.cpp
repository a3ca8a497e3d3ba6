#include "bus/link/pool.hpp"

#include <bit>
#include <cstdlib>
#include <new>

namespace bus {

struct pool::cell : block {
  cell* next = nullptr;
  unsigned size_class = 0;
};

namespace {

constexpr std::size_t header_bytes = 128;  // the cell and the frame, each in whole cache lines
static_assert(header_bytes % payload_align == 0);
// Larger pages are several of these.
constexpr std::size_t page_bytes = 4096;
// From here on, what came home last is lent first, since it is still in a cache: 64 KiB through a
// pipe went a quarter faster. Smaller ones come home many at once, which costs less.
constexpr std::uint64_t hot_bytes = 4096;

}  // namespace

pool::owner pool::make(std::uint64_t bytes_max, start payloads, std::function<void()> on_return) {
  return owner(new pool(bytes_max, payloads, std::move(on_return)));
}

pool::~pool() {
  collect();
  for (cell* list : free_) free_list(list);
}

void pool::close() noexcept {
  if (users_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

std::size_t pool::bytes_before(std::uint64_t capacity) const noexcept {
  return payloads_ == start::page && capacity >= page_bytes ? page_bytes : header_bytes;
}

void pool::free_list(cell* first) const noexcept {
  while (first) {
    cell* const next = first->next;
    void* const at = first->payload - bytes_before(first->capacity);
    first->~cell();
    std::free(at);
    first = next;
  }
}

// Moves what other threads gave back into the free lists.
void pool::collect() noexcept {
  // Pairs with: take_back, release of returned_.
  cell* came = returned_.exchange(nullptr, std::memory_order_acquire);
  while (came) {
    cell* const next = came->next;
    came->next = free_[came->size_class];
    free_[came->size_class] = came;
    came = next;
  }
}

// Gives every cached block back to the heap.
void pool::trim() noexcept {
  for (unsigned size_class = 0; size_class < classes; ++size_class) {
    for (cell* one = free_[size_class]; one; one = one->next) bytes_ -= one->capacity;
    free_list(free_[size_class]);
    free_[size_class] = nullptr;
  }
}

pool::cell* pool::allocate(unsigned size_class) noexcept {
  const std::uint64_t capacity = 1ULL << (size_class + smallest_log2);
  static_assert(sizeof(cell) + sizeof(frame) <= header_bytes);
  if (bytes_ + capacity > bytes_max_) trim();
  if (bytes_ + capacity > bytes_max_) return nullptr;
  const std::size_t before = bytes_before(capacity);
  const std::size_t alignment = before == page_bytes ? page_bytes : payload_align;
  void* const at = std::aligned_alloc(alignment, before + capacity);
  if (!at) return nullptr;
  std::byte* const payload = static_cast<std::byte*>(at) + before;
  cell* const made = new (payload - header_bytes) cell;
  made->home = this;
  made->payload = payload;
  made->capacity = capacity;
  made->size_class = size_class;
  bytes_ += capacity;
  return made;
}

pool::cell* pool::take(unsigned size_class) noexcept {
  // Pairs with: take_back, compare_exchange of returned_.
  const bool has_returned = returned_.load(std::memory_order_seq_cst) != nullptr;
  const bool is_hot = (1ULL << (size_class + smallest_log2)) >= hot_bytes;
  if (has_returned && (!free_[size_class] || is_hot)) collect();
  cell* const given = free_[size_class];
  if (!given) return allocate(size_class);
  free_[size_class] = given->next;
  return given;
}

bool pool::came_home() noexcept {
  // Pairs with: take_back.
  if (!refused_ || wanted_.load(std::memory_order_seq_cst)) return false;
  refused_ = false;
  return true;
}

result<loan> pool::lend(std::uint64_t bytes) noexcept {
  if (bytes > bytes_max_) return unexpected(errc::too_big);
  const std::uint64_t smallest = 1ULL << smallest_log2;
  const auto size_class =
      bytes <= smallest ? 0U : static_cast<unsigned>(std::bit_width(bytes - 1)) - smallest_log2;
  if (size_class >= classes) return unexpected(errc::too_big);
  cell* given = take(size_class);
  if (!given) {
    // Pairs with: take_back, by the single order of seq_cst: it sees that we want memory, or we see
    // what it gave back.
    wanted_.store(true, std::memory_order_seq_cst);
    given = take(size_class);
    refused_ = !given;
    if (refused_) return unexpected(errc::no_memory);
    // Relaxed: a needless call is only that.
    wanted_.store(false, std::memory_order_relaxed);
  }
  // Relaxed: nobody else knows the block, and the pool cannot close while its owner lends.
  given->references.store(1, std::memory_order_relaxed);
  users_.fetch_add(1, std::memory_order_relaxed);
  return loan(*given);
}

void pool::take_back(block& memory) noexcept {
  cell* const home = static_cast<cell*>(&memory);
  // Pairs with: collect, exchange of returned_; and with lend, store of wanted_.
  home->next = returned_.load(std::memory_order_relaxed);
  while (!returned_.compare_exchange_weak(home->next, home, std::memory_order_seq_cst,
                                          std::memory_order_relaxed)) {
  }
  if (wanted_.load(std::memory_order_seq_cst) &&
      wanted_.exchange(false, std::memory_order_seq_cst) && on_return_) {
    on_return_();
  }
  // Pairs with: close. The last one out sees all that the others wrote.
  if (users_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

}  // namespace bus
