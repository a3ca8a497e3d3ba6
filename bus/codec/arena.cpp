#include "bus/codec/arena.hpp"

#include "bus/base/check.hpp"

#include <array>
#include <atomic>
#include <cstdint>

#include <google/protobuf/arena.h>
#include <google/protobuf/message_lite.h>

namespace bus {

struct arena_shelf::cell {
  explicit cell(state* shelf) : arena(options()), home(shelf) {}

  void empty() noexcept {
    arena.Reset();
    message = nullptr;
    uses = 0;
  }

  google::protobuf::ArenaOptions options() noexcept {
    google::protobuf::ArenaOptions made;
    made.initial_block = first_block.data();
    made.initial_block_size = first_block.size();
    return made;
  }

  alignas(64) std::array<char, first_block_bytes> first_block;  // before the arena that uses it
  google::protobuf::Arena arena;
  state* home;
  google::protobuf::MessageLite* message = nullptr;  // on the arena, from an earlier lease
  const google::protobuf::MessageLite* prototype = nullptr;
  unsigned uses = 0;
  bool is_large = false;
};

struct arena_shelf::state {
  state() = default;
  state(const state&) = delete;
  state& operator=(const state&) = delete;
  ~state() {
    // Relaxed: the last user has synchronised with all others, see let_go.
    for (auto& place : spares) delete place.load(std::memory_order_relaxed);
  }

  // The shelf, and each lease that is out.
  std::atomic<std::uint32_t> users{1};
  std::array<std::atomic<cell*>, spares_max> spares{};
};

void arena_shelf::let_go(state* from) noexcept {
  // Pairs with itself: the last user sees what the others did to the spares.
  if (from->users.fetch_sub(1, std::memory_order_acq_rel) == 1) delete from;
}

arena_shelf::~arena_shelf() {
  if (state_) let_go(state_);
}

arena_lease arena_shelf::take(std::size_t payload_bytes) noexcept {
  if (!state_) state_ = new state;
  // Relaxed: the shelf itself is a user, so the count cannot be on its way to zero.
  state_->users.fetch_add(1, std::memory_order_relaxed);
  cell* taken = nullptr;
  for (auto& place : state_->spares) {
    // Relaxed: only a hint. Only the owner takes, so what is there stays until it does.
    if (place.load(std::memory_order_relaxed) == nullptr) continue;
    // Pairs with: ~arena_lease, release of the place.
    taken = place.exchange(nullptr, std::memory_order_acquire);
    break;
  }
  if (!taken) taken = new cell(state_);
  taken->is_large = payload_bytes > kept_bytes_max;
  return arena_lease(*taken);
}

arena_lease::~arena_lease() {
  if (!cell_) return;
  arena_shelf::state* const home = cell_->home;
  if (++cell_->uses == arena_shelf::uses_max || cell_->is_large) cell_->empty();
  for (auto& place : home->spares) {
    arena_shelf::cell* nobody = nullptr;
    // Pairs with: take, acquire of the place.
    if (place.load(std::memory_order_relaxed) == nullptr &&
        place.compare_exchange_strong(nobody, cell_, std::memory_order_release,
                                      std::memory_order_relaxed)) {
      cell_ = nullptr;
      break;
    }
  }
  delete cell_;
  arena_shelf::let_go(home);
}

google::protobuf::MessageLite& arena_lease::message_like(
    const google::protobuf::MessageLite& prototype) const noexcept {
  BUS_CHECK(cell_ != nullptr);
  if (!cell_->message || cell_->prototype != &prototype) {
    cell_->empty();
    cell_->message = prototype.New(&cell_->arena);
    cell_->prototype = &prototype;
  }
  return *cell_->message;
}

}  // namespace bus
