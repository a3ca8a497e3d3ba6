#include "transports/inproc/exchange.hpp"

#include <new>
#include <utility>

#include <sys/mman.h>

namespace transports {
namespace {

constexpr std::size_t page_bytes = 4096;  // the smallest thing that the kernel wipes

}  // namespace

bus::result<std::unique_ptr<hall>> hall::open() {
  std::unique_ptr<hall> opened(new hall);
  void* const page =
      ::mmap(nullptr, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return bus::unexpected(bus::last_system_error());
  opened->token_ = new (page) std::atomic<std::uint64_t>(0);
  if (::madvise(page, page_bytes, MADV_WIPEONFORK) != 0) {
    return bus::unexpected(bus::last_system_error());
  }
  // Any 64 random bits will do; an id is never 0.
  opened->token_->store(bus::node_id::random().value, std::memory_order_relaxed);
  return opened;
}

hall::~hall() {
  if (token_) ::munmap(token_, page_bytes);
}

bool hall::enter(bus::node_id id, std::shared_ptr<port> entrance) {
  const std::lock_guard lock(control_);
  return entrances_.emplace(id, std::move(entrance)).second;
}

void hall::leave(bus::node_id id) noexcept {
  const std::lock_guard lock(control_);
  entrances_.erase(id);
}

std::shared_ptr<port> hall::find(bus::node_id id) noexcept {
  const std::lock_guard lock(control_);
  const auto found = entrances_.find(id);
  return found == entrances_.end() ? nullptr : found->second;
}

exchange::~exchange() { delete current_.load(std::memory_order_acquire); }

bus::result<hall*> exchange::current() {
  // Pairs with: the exchange of current_ below, release: the hall is whole.
  hall* found = current_.load(std::memory_order_acquire);
  if (found && found->here()) return found;
  auto opened = hall::open();
  if (!opened) return bus::unexpected(opened.error());
  hall* const fresh = opened->get();
  if (current_.compare_exchange_strong(found, fresh, std::memory_order_acq_rel)) {
    // Only now, and by the one who put it there: nobody else reads before_.
    fresh->before_.reset(found);
    return opened->release();
  }
  return found;  // another thread was faster
}

}  // namespace transports
