// The bell: where a node sleeps, and how others wake it. One per node, shared by all its
// transports.
//
// One page of shared memory holds a state word and a process-shared semaphore. A sleeper writes
// into the word *how* it sleeps, looks at its queues once more, and sleeps. A sender that has
// published something reads the word: "awake" costs nothing more, and no system call; else it wakes
// the sleeper by the rung that the word names:
//
//   semaphore  post: a store and a futex wake    a blocking taker
//   event      write to an eventfd               an event loop
//   signal     pidfd_send_signal to one thread   an event loop that asked for it: read by signalfd
//   socket     send on the link's own socket      another user
//
// Everything here is a hint. The sender wakes first and marks the word "awake" after, so that a
// sender killed or stopped in between costs one superfluous wakeup and never a lost one. Each sleep
// has a number in the word, so that a late mark cannot hit the next sleep. Nothing accumulates: the
// semaphore's value is derived, and while nobody sleeps it is 0; each sleep begins by making it so.
// A writer of the page can make the node wake too often or too late, and nothing else: the
// semaphore is our own, on one word, since glibc's takes the kind of its futex call from the page
// and aborts when that fails.
//
// Only processes of our own user write the page. Another user's get it read-only, and no eventfd,
// which they could fill (a writer would block, whatever flags it set: they are shared), or read
// empty, so that others' wakeups are lost. They keep to themselves which sleep they have ended.
//
// Who publishes and who falls asleep must not overlook each other, which takes a full fence on both
// sides; on the sender's it would cost more than a small message. A receiver that is kept busy
// therefore takes the fence upon itself: it sets `unfenced`, and from then on makes the kernel run
// a barrier on every processor where a sender runs (membarrier) before it sleeps, once for hundreds
// of messages. When a sleep comes after few messages, that one is the last: `unfenced` is cleared
// first.
//
// The signal is directed by a *thread pidfd* (Linux 6.9), which the receiver opens for itself and
// hands over: it names one thread for ever, whatever happens to its number. Blocked in that thread,
// the signal is read from a descriptor; everywhere else it is ignored, so that it ends nobody who
// is not prepared: no other thread, and no program that exec() puts in the place of ours. Where the
// application uses the same signal, the bell leaves it alone and is rung by the eventfd; so it is
// in another pid namespace, and wherever a signal is refused.
#pragma once

#include "bus/base/clock.hpp"
#include "bus/base/fd.hpp"
#include "bus/base/result.hpp"
#include "bus/base/step.hpp"
#include "bus/link/outbox.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

namespace bus {

// The shared page. Version and layout are checked by ringer::open.
struct bell_layout {
  static constexpr std::uint32_t magic_value = 0x4c4c4542;  // "BELL"
  static constexpr std::uint32_t current_version = 2;
  std::uint32_t magic;
  std::uint32_t version;
  // Low two bits: a bell_mode; above: the number of the sleep. In a line of its own, since senders
  // read it after every publication.
  alignas(64) std::atomic<std::uint32_t> word;
  // 1: whoever is registered for membarrier's global barriers need not fence before reading `word`.
  std::atomic<std::uint32_t> unfenced;
  // The semaphore: 1 when a wakeup is there to be taken, else 0. Also the futex of its sleeper.
  alignas(64) std::atomic<std::uint32_t> permit;
};
static_assert(offsetof(bell_layout, word) == 64 && offsetof(bell_layout, unfenced) == 68);
static_assert(offsetof(bell_layout, permit) == 128);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

enum class bell_mode : std::uint32_t { awake = 0, on_semaphore = 1, on_signal = 2, on_event = 3 };

// How a node is woken that sleeps in an event loop. In take() it is woken by its semaphore, and by
// another user over the link's socket, whatever it says here.
enum class loop_wakeup : std::uint8_t {
  event,   // by an eventfd: the fastest here, docs/design/0012
  signal,  // by a real-time signal (SIGRTMIN+7) to the node's own thread; else by the eventfd
};

// The number of the real-time signal that wakes event loops. Blocked in the node's thread from
// birth.
[[nodiscard]] int bell_signal() noexcept;

// The part of the word that is a bell_mode.
inline constexpr std::uint32_t bell_mode_bits = 3;
[[nodiscard]] inline bell_mode mode_of(std::uint32_t word) noexcept {
  return static_cast<bell_mode>(word & bell_mode_bits);
}

// The sender's look at the word, after it has published.
[[nodiscard]] inline bool is_awake(const bell_layout& page, bool registered) noexcept {
  step("bell.ring.look");
  // Pairs with: bell::arm. Orders our publication before the look at the word, as the sleeper
  // orders its word before its last look at the queues; one of us sees the other. Where `unfenced`
  // still said 1, the sleeper's barrier does it: if it struck us before the look, we see the word;
  // if after, the sleeper sees what we published before.
  if (registered && page.unfenced.load(std::memory_order_relaxed) != 0) {
    std::atomic_signal_fence(std::memory_order_seq_cst);
  } else {
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  return mode_of(page.word.load(std::memory_order_relaxed)) == bell_mode::awake;
}

// What a peer needs to ring: sent by SCM_RIGHTS. `thread` is empty where the kernel has no thread
// pidfd. `socket` is never sent: where there is one, `page` is read-only, and it is used in place
// of the others.
struct bell_keys {
  fd page;
  fd thread;
  fd event;
  fd socket;
};

class bell {
 public:
  // Makes page, semaphore and descriptors for the calling thread. For loop_wakeup::signal, blocks
  // bell_signal() in the thread, and ignores it elsewhere; else signals are left alone. Errors: the
  // kernel's (no memory, no descriptors).
  [[nodiscard]] static result<std::unique_ptr<bell>> make(loop_wakeup by = loop_wakeup::signal);
  ~bell();
  bell(const bell&) = delete;
  bell& operator=(const bell&) = delete;

  // --- the node's own thread
  // So many messages came: from `burst` of them between two sleeps on, senders need no fence.
  void came(std::size_t messages) noexcept {
    came_ += messages;
    if (came_ >= burst && !unfenced_ && barriers_) let_unfenced();
  }
  // Declares the sleep. After it, look at all queues once more before really sleeping.
  void arm_semaphore() noexcept;
  // The same for an event loop that watches descriptors(). On another thread than the maker's,
  // senders are told to use the eventfd, since a signal would reach the wrong thread.
  void arm_descriptors() noexcept;
  // Takes the declaration back, and swallows a wakeup that came meanwhile.
  void disarm() noexcept;
  // Sleeps until rung or `until`; true if rung. Requires arm_semaphore(). Ends awake.
  [[nodiscard]] bool wait(deadline until) noexcept;
  // Readable when rung after arm_descriptors(): the signalfd (-1 without one) and the eventfd.
  [[nodiscard]] std::array<int, 2> descriptors() const noexcept;
  // Empties the one of descriptors() that was found readable, and ends awake.
  void drain(int descriptor) noexcept;
  // Copies of the keys, to hand to a peer of our own user.
  [[nodiscard]] result<bell_keys> keys() const;
  // What another user's process may have: the page, read-only. Errors: the kernel's; without /proc
  // there is no read-only descriptor.
  [[nodiscard]] result<bell_keys> keys_for_stranger() const;
  // The application uses bell_signal() itself: it had a handler when the bell was made, or sent one
  // that was read here since.
  [[nodiscard]] bool signal_is_taken() const noexcept { return signal_is_taken_; }

  // Messages between two sleeps that are worth a membarrier: about 2 us, against about 15 ns for a
  // fence on the data path.
  static constexpr std::size_t burst = 256;

  // --- any thread of this process
  // Wakes the node if it sleeps; returns the rung used. Publish first, then ring.
  rung ring() noexcept;

 private:
  friend struct probe;  // tests/model
  bell() = default;
  void arm(bell_mode mode) noexcept;
  void rebuild_semaphore() noexcept;
  void let_unfenced() noexcept;
  void fence_for_others() noexcept;

  bell_layout* page_ = nullptr;
  fd memory_;
  fd thread_;
  fd signals_;
  fd event_;
  std::uint32_t sleeps_ = 0;
  const void* maker_ = nullptr;  // the thread
  std::size_t came_ = 0;         // messages since the last sleep
  bool unfenced_ = false;        // what the page says
  bool barriers_ = false;        // the kernel has global barriers for us
  bool signal_is_taken_ = false;
};

// The sender's end of somebody else's bell.
class ringer {
 public:
  // Maps and checks the page. Requires: keys.event or keys.socket. Errors: incompatible, corrupt,
  // or the kernel's.
  [[nodiscard]] static result<ringer> open(bell_keys keys);
  ringer(ringer&& other) noexcept;
  ringer& operator=(ringer&& other) noexcept;
  ringer(const ringer&) = delete;
  ringer& operator=(const ringer&) = delete;
  ~ringer();

  // Wakes the peer if it sleeps; returns the rung used, none if it was awake. Publish first, then
  // ring. A rung that fails is not tried again, and the next one is used at once.
  rung ring() noexcept {
    if (is_awake(*page_, registered_)) return rung::none;
    return wake();
  }
  // The rung for a peer that sleeps in an event loop.
  [[nodiscard]] rung loop_rung() const noexcept {
    if (socket_) return rung::socket;
    return thread_ ? rung::signal : rung::event;
  }
  // How often the signal was refused, and the eventfd written instead.
  [[nodiscard]] std::uint64_t fallen() const noexcept { return fallen_; }

 private:
  ringer() = default;
  rung wake() noexcept;
  rung knock() noexcept;

  bell_layout* page_ = nullptr;
  fd thread_;
  fd event_;
  fd socket_;
  std::uint64_t fallen_ = 0;
  std::uint32_t knocked_ = 0;  // the word of the sleep that we have ended
  bool registered_ = false;    // the kernel runs a sleeper's barriers on our threads
};

}  // namespace bus
