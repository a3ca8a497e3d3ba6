// Publishers and subscribers made of the production code of slots, lanes and bells. What stands
// here in words of its own is what transports/shm/hub and bus/node/core do around them: whom to
// offer a message and by which way, when to look, how to fall asleep.
//
// Each process is an actor; a subscriber may have a second thread, its keeper, which is one, too.
#pragma once

#include "tests/model/fiber.hpp"
#include "tests/model/plan.hpp"
#include "transports/shm/arena.hpp"
#include "transports/shm/lane_in.hpp"
#include "transports/shm/lane_out.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace model {

class world;

// The bytes of a bell's page that are part of the state.
class bell_page {
 public:
  bell_page() noexcept = default;
  explicit bell_page(const bus::bell& of);
  bell_page(bell_page&& other) noexcept : page_(std::exchange(other.page_, nullptr)) {}
  bell_page& operator=(bell_page&& other) noexcept {
    std::swap(page_, other.page_);
    return *this;
  }
  bell_page(const bell_page&) = delete;
  bell_page& operator=(const bell_page&) = delete;
  ~bell_page();
  [[nodiscard]] bool is_posted() const noexcept;

 private:
  bus::bell_layout* page_ = nullptr;
};

// What a subscriber knows of a sample that is leaving it: for the account.
struct leaving {
  static constexpr std::uint64_t no_slot = UINT64_MAX;
  bool now = false;
  unsigned from = 0;
  std::uint64_t slot = no_slot;  // its offset; none: it came by value
  std::uint64_t position = 0;    // entries of its lane that were read before it, or are it
};

struct actor {
  world* home = nullptr;
  unsigned number = 0;  // among its like
  unsigned whom = 0;    // the other end of the lane that it is busy with
  leaving gives_back;
  fiber run;
};

struct process : actor {
  std::unique_ptr<bus::bell> doorbell;
  bell_page page;
  transports::shared::arena* here = nullptr;  // arena::returning, while it does not run
  bool is_buried = false;                     // dead, and its private memory is gone

  [[nodiscard]] bool is_rung() const noexcept;
  void arm() noexcept;
  void sleep(condition until) noexcept;
};

struct publisher final : process {
  transports::shared::arena::owner slots;
  std::vector<transports::shared::lane_out> lanes;  // by subscriber
  std::vector<bus::ringer> bells;                   // of the subscribers
  std::array<bool, each_max> forgotten{};           // dead, and its samples taken back
  std::uint64_t published = 0;
  bool said_goodbye = false;

  static void live(void* self) noexcept;
  void publish(std::uint64_t sequence) noexcept;
  [[nodiscard]] bus::block* obtain() noexcept;
  void offer(unsigned to, const bus::sample& one) noexcept;
  [[nodiscard]] bool carry(unsigned to, const bus::sample& one) noexcept;
  [[nodiscard]] bool has_cell(unsigned to) noexcept;
  [[nodiscard]] bool has_credit(unsigned to) noexcept;
  std::size_t settle(unsigned to) noexcept;
  std::size_t collect() noexcept;
  void settle_all() noexcept;
  void hear_news() noexcept;
  [[nodiscard]] bool has_news() const noexcept;
  [[nodiscard]] bool is_settled() const noexcept;
  void wait_for_room() noexcept;
  static bool may_go_on(const void* self) noexcept;
  static bool may_wake(const void* self) noexcept;
};

// A sample that a subscriber has, and what it is sure of.
struct kept {
  bus::sample one;
  unsigned from = 0;
  std::uint64_t sequence = 0;
  std::uint64_t position = 0;  // as in leaving
};

struct subscriber final : process, bus::sink {
  std::vector<transports::shared::lane_in::owner> lanes;  // by publisher
  std::array<bool, each_max> heard{};                     // that it has ended
  std::array<bool, each_max> closed{};                    // and it was read to the end
  std::array<std::uint64_t, each_max> last{};
  std::array<kept, 40> held;  // the oldest first; with a keeper, all credits and values of a lane
  unsigned held_count = 0;

  static void live(void* self) noexcept;
  void accept(bus::sample&& one) noexcept override;
  void left(bus::node_id, std::error_code) noexcept override {}
  void verify(const kept& one) noexcept;
  // On the thread of `by`: the subscriber itself, or its keeper.
  void let_go(actor& by) noexcept;
  void look_where_it_was(const kept& one, const std::byte* payload) noexcept;
  [[nodiscard]] bool all_closed() const noexcept;
  [[nodiscard]] bool look_at_all() noexcept;
  [[nodiscard]] bool look_at(unsigned from) noexcept;
  void wait_for_arrival() noexcept;
  [[nodiscard]] bool has_ended(unsigned from) const noexcept;
  static bool may_go_on(const void* self) noexcept;
  static bool may_wake(const void* self) noexcept;
};

// The user's thread, which has all samples that came, and drops them at its own pace. It dies with
// its subscriber.
struct keeper final : actor {
  static void live(void* self) noexcept;
  static bool may_go_on(const void* self) noexcept;
};

}  // namespace model
