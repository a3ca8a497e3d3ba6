#include "bus/codec/arena.hpp"

#include "bus/base/check.hpp"

#include <array>
#include <atomic>
#include <cstdint>

#include <google/protobuf/arena.h>

namespace bus {

struct arena_shelf::cell {
  explicit cell(state* shelf) : arena(options()), home(shelf) {}

  google::protobuf::ArenaOptions options() noexcept {
    google::protobuf::ArenaOptions made;
    made.initial_block = first_block.data();
    made.initial_block_size = first_block.size();
    return made;
  }

  alignas(64) std::array<char, first_block_bytes> first_block;  // before the arena that uses it
  google::protobuf::Arena arena;
  state* home;
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

arena_lease arena_shelf::take() noexcept {
  if (!state_) state_ = new state;
  // Relaxed: the shelf itself is a user, so the count cannot be on its way to zero.
  state_->users.fetch_add(1, std::memory_order_relaxed);
  for (auto& place : state_->spares) {
    if (place.load(std::memory_order_relaxed) == nullptr) continue;
    // Pairs with: ~arena_lease, release of the place. Only the owner takes: it cannot have gone.
    return arena_lease(*place.exchange(nullptr, std::memory_order_acquire));
  }
  return arena_lease(*new cell(state_));
}

arena_lease::~arena_lease() {
  if (!cell_) return;
  arena_shelf::state* const home = cell_->home;
  cell_->arena.Reset();
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

google::protobuf::Arena& arena_lease::arena() const noexcept {
  BUS_CHECK(cell_ != nullptr);
  return cell_->arena;
}

}  // namespace bus
