// Who publishes fast pays for each write as much as for the message itself. So a cable may hold
// back the messages of a stream until there are enough for one write, or until its node turns; and
// a node that does neither, since the application has other things to do, must not keep them: then
// the courier writes them.
//
// It is one thread for all cables of a transport, born with the first stream. While there is one,
// it looks each `tick`; and then it sleeps until it is called. A tick costs it one look, since the
// node has mostly been there before.
//
// lock() keeps it from everything that it touches: what goes out over the cables' pipes, and
// nothing else of theirs.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace transports::pipes {

class courier {
 public:
  // Whose messages it writes. Called with the lock, on the courier's thread.
  class client {
   public:
    virtual void deliver() noexcept = 0;

   protected:
    ~client() = default;
  };

  courier() = default;
  ~courier();
  courier(const courier&) = delete;
  courier& operator=(const courier&) = delete;

  [[nodiscard]] std::unique_lock<std::mutex> lock() noexcept { return std::unique_lock(guard_); }
  // What `one` holds is to be written after one tick, and at most two. False: there is no thread or
  // memory to be had, so nothing may be held. Requires: the lock, and that `one` is not waited for.
  [[nodiscard]] bool expect(client& one) noexcept;
  // No more. Requires: the lock.
  void forget(const client& one) noexcept;
  // In a forked child, which has no such thread.
  void disown() noexcept;

 private:
  enum class state : std::uint32_t { asleep, ticking, stopping };

  [[nodiscard]] bool start() noexcept;
  void run() noexcept;
  [[nodiscard]] bool look(unsigned& idle) noexcept;

  std::mutex guard_;
  std::vector<std::pair<client*, std::uint64_t>>
      waiting_;              // and since which tick; guarded by guard_
  std::uint64_t ticks_ = 0;  // guarded by guard_
  bool has_failed_ = false;
  std::atomic<state> state_{state::asleep};
  std::unique_ptr<std::thread> thread_;
};

}  // namespace transports::pipes
