// A child under supervision: started, watched, and started again as its policy says. The node
// around it waits for handle() and due_ns(), and then calls step().
//
//   running --(it ended, and the policy lets it go)---------> over
//      \------(it ended, and is to run again)--> resting --(the pause is over)--> running
//
// The pause doubles with each time that it ended soon, so that a program that cannot run does not
// keep the machine busy with trying.
#pragma once

#include "bus/base/child_process.hpp"
#include "bus/base/clock.hpp"
#include "bus/base/result.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>

namespace bus {

// When a child that ended is started again.
enum class restart : std::uint8_t { never, on_failure, always };

class supervised {
 public:
  // What makes each life of it.
  using maker = std::function<result<child_process>()>;

  // Guesses: an eye's blink, and what an operator bears to wait.
  static constexpr std::int64_t pause_first_ns = 100'000'000;
  static constexpr std::int64_t pause_max_ns = 30'000'000'000;
  // Who ran for so long has not failed at once.
  static constexpr std::int64_t settled_ns = 10'000'000'000;

  supervised(maker make, restart when) : make_(std::move(make)), when_(when) {}

  // The first life. Errors: as child_process::start().
  [[nodiscard]] result<void> start(std::int64_t now_ns);
  // Looks whether it has ended, and starts it if that is due. True: handle() is another one.
  bool step(std::int64_t now_ns);
  // Readable when step() has something to do; -1: it does not run.
  [[nodiscard]] int handle() const noexcept { return life_ ? life_->handle() : -1; }
  // When step() has something to do; INT64_MAX: never.
  [[nodiscard]] std::int64_t due_ns() const noexcept { return due_ns_; }

  [[nodiscard]] const child_process* life() const noexcept { return life_ ? &*life_ : nullptr; }
  // What keeps it in, in this life or the last one.
  [[nodiscard]] const walls& locked_in_by() const noexcept { return walls_; }
  // How often it was started again.
  [[nodiscard]] std::uint64_t restarts() const noexcept { return restarts_; }
  // How its last life ended. Nothing: its first one goes on.
  [[nodiscard]] std::optional<exit_status> last_end() const noexcept { return last_end_; }
  // It has ended, and will not be started again.
  [[nodiscard]] bool is_over() const noexcept { return !life_ && due_ns_ == INT64_MAX; }

  // Waits for the end of this life, and blocks.
  void wait(deadline until);
  // It is not started again from now on.
  void give_up();
  result<void> signal(int number) const noexcept;
  // Kills it for good, and waits for that.
  void kill();

  // Called when it is over.
  std::function<void()> on_end;

 private:
  void ended(exit_status how, std::int64_t now_ns);

  maker make_;
  restart when_;
  std::optional<child_process> life_;
  walls walls_;
  std::optional<exit_status> last_end_;
  std::uint64_t restarts_ = 0;
  std::int64_t began_ns_ = 0;
  std::int64_t pause_ns_ = pause_first_ns;
  std::int64_t due_ns_ = INT64_MAX;
};

}  // namespace bus
