#include "bus/link/homecoming.hpp"

#include <cerrno>
#include <utility>

#include <sys/eventfd.h>
#include <unistd.h>

namespace bus {

result<homecoming::owner> homecoming::make() {
  owner made(new homecoming);
  made->event_ = fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!made->event_) return unexpected(last_system_error());
  return made;
}

homecoming::~homecoming() {
  delete_list(free_);
  delete_list(collect());
}

void homecoming::delete_list(cell* first) noexcept {
  while (first) delete std::exchange(first, first->next);
}

void homecoming::close() noexcept {
  // Pairs with: take_back. The last one out sees all that the others wrote.
  if (users_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

sample homecoming::send_out(sample memory, std::uint32_t link, std::uint32_t credit) {
  cell* const given = free_ ? std::exchange(free_, free_->next) : new cell;
  given->home = this;
  given->link = link;
  given->credit = credit;
  given->bytes = memory.head().bytes;
  given->head = &memory.head();
  given->payload = const_cast<std::byte*>(memory.payload().data());
  given->capacity = given->bytes;
  given->memory = std::move(memory);
  // Relaxed: nobody else knows the cell, and the owner does not close while it sends out.
  given->references.store(1, std::memory_order_relaxed);
  users_.fetch_add(1, std::memory_order_relaxed);
  return sample(*given);
}

void homecoming::take_back(block& memory) noexcept {
  cell* const home = static_cast<cell*>(&memory);
  home->memory = sample();
  home->next = returned_.load(std::memory_order_relaxed);
  // Pairs with: collect, exchange of returned_; and, by the single order of seq_cst, with arm: it
  // sees this cell, or we see it asleep.
  while (!returned_.compare_exchange_weak(home->next, home, std::memory_order_seq_cst,
                                          std::memory_order_relaxed)) {
  }
  if (asleep_.load(std::memory_order_seq_cst) &&
      asleep_.exchange(false, std::memory_order_seq_cst)) {
    const std::uint64_t one = 1;
    while (::write(event_.get(), &one, sizeof one) < 0 && errno == EINTR) {
    }
  }
  close();
}

homecoming::cell* homecoming::collect() noexcept {
  // Relaxed: a look that costs no bus cycle; what is missed is seen at the next one, or by arm.
  if (!returned_.load(std::memory_order_relaxed)) return nullptr;
  // Pairs with: take_back, compare_exchange of returned_.
  cell* came = returned_.exchange(nullptr, std::memory_order_acquire);
  cell* oldest = nullptr;
  while (came) {
    cell* const next = std::exchange(came->next, oldest);
    oldest = std::exchange(came, next);
  }
  return oldest;
}

void homecoming::recycle(cell& home) noexcept { home.next = std::exchange(free_, &home); }

bool homecoming::arm() noexcept {
  // Pairs with: take_back, load of asleep_.
  asleep_.store(true, std::memory_order_seq_cst);
  if (!returned_.load(std::memory_order_seq_cst)) return true;
  disarm();
  return false;
}

void homecoming::disarm() noexcept { asleep_.store(false, std::memory_order_relaxed); }

void homecoming::drain() noexcept {
  std::uint64_t count = 0;
  static_cast<void>(!::read(event_.get(), &count, sizeof count));
}

}  // namespace bus
