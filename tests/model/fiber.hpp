// One actor: a body of code that runs on a stack of its own, gives way at every step, and can be
// dropped there for ever. All actors share one thread, so a schedule is a list of numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace model {

inline constexpr unsigned fibers_max = 16;

// What an actor waits for; asked by the scheduler whenever it looks for somebody who can go on.
using condition = bool (*)(const void* whom);

class fiber {
 public:
  using body = void (*)(void* whom);

  // Will run `what(whom)` from the beginning when it is resumed, on the stack of this number. Drops
  // what it ran before. Requires: stack < fibers_max, and nobody else's.
  void begin(unsigned stack, body what, void* whom) noexcept;
  // Runs it until its next step, pause, wait, or end. Requires: can_go().
  void resume() noexcept;
  // It will never run again: its process was killed.
  void drop() noexcept {
    begun_ = dropped_ = true;
    ended_ = false;
    wanted_ = nullptr;
    place_ = "dead";
    place_bytes_ = 4;
  }

  [[nodiscard]] bool ended() const noexcept { return ended_; }
  [[nodiscard]] bool dropped() const noexcept { return dropped_; }
  [[nodiscard]] bool can_go() const noexcept {
    return !ended_ && !dropped_ && (!wanted_ || wanted_(whom_));
  }
  // The step before which it stands, or what it called its pause.
  [[nodiscard]] std::string_view place() const noexcept { return {place_, place_bytes_}; }

  // --- for the running fiber
  // A scheduling point of the actor's own.
  static void pause(std::string_view place) noexcept;
  // Goes on only when `until` holds.
  static void wait(std::string_view place, condition until) noexcept;
  [[nodiscard]] static bool is_running() noexcept;
  // Zeroes what calls that have returned left on the stack: some of it would be found in holes of
  // the frames to come.
  [[gnu::noinline]] static void forget_calls() noexcept;

  // --- its state, between two calls of resume()
  // Zeroes what is left of calls that have returned, here or in another state, of which some would
  // be found in holes of the next ones' frames.
  void forget_returned() noexcept;
  // The part of its stack in use, and the registers that it will go on with.
  struct state {
    std::span<std::byte> stack;
    std::span<std::byte> context;
    // Of the registers, those that matter.
    std::uint64_t registers[8];
  };
  // Empty if it has not begun, or will never run again.
  [[nodiscard]] state look() noexcept;
  // Puts back a context and the stack after it, as look() showed them; returns what follows.
  // Requires: this object itself has been put back.
  [[nodiscard]] const std::byte* put_back(const std::byte* from) noexcept;

 private:
  [[nodiscard]] std::span<std::byte> stack_in_use() noexcept;
  static void enter() noexcept;
  static void yield() noexcept;

  body what_ = nullptr;
  void* whom_ = nullptr;
  condition wanted_ = nullptr;
  const char* place_ = "";
  std::size_t place_bytes_ = 0;
  unsigned stack_ = 0;  // which of the stacks is its own
  bool begun_ = false;
  bool ended_ = false;
  bool dropped_ = false;
};

}  // namespace model
