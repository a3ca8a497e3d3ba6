#include "transports/pipe/courier.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <system_error>

namespace transports::pipes {
namespace {

using namespace std::chrono_literals;

// Half of what a message may be held for. Each costs some 5 us of a processor: with 100 us a stream
// of 4 KiB lost a tenth of its rate, with 400 us it won nothing.
constexpr auto tick = 200us;
// Without work before it sleeps: to be called costs the node a wakeup.
constexpr unsigned idle_ticks_max = 50;

}  // namespace

courier::~courier() {
  if (!thread_) return;
  // Release pairs with: run, acquire.
  state_.store(state::stopping, std::memory_order_release);
  state_.notify_one();
  thread_->join();
}

bool courier::expect(client& one) noexcept {
  if (!thread_ && !start()) return false;
  try {
    waiting_.emplace_back(&one, ticks_);
  } catch (...) {
    return false;  // no memory: what it would have held is written at once
  }
  // Relaxed: what it reads is under the lock, and it falls asleep with the lock.
  if (state_.load(std::memory_order_relaxed) == state::asleep) {
    state_.store(state::ticking, std::memory_order_relaxed);
    state_.notify_one();
  }
  return true;
}

void courier::forget(const client& one) noexcept {
  std::erase_if(waiting_, [&](const auto& each) { return each.first == &one; });
}

void courier::disown() noexcept { static_cast<void>(thread_.release()); }

bool courier::start() noexcept {
  if (has_failed_) return false;
  // All signals blocked while the thread is born, so that it never runs the application's handlers.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::make_unique<std::thread>([this] { run(); });
  } catch (...) {
    has_failed_ = true;
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return !has_failed_;
}

void courier::run() noexcept {
  unsigned idle = 0;
  while (state_.load(std::memory_order_acquire) != state::stopping) {
    state_.wait(state::asleep, std::memory_order_acquire);
    std::this_thread::sleep_for(tick);
    // Whoever has the lock is the node, and is about to write.
    const std::unique_lock only(guard_, std::try_to_lock);
    if (!only || look(idle)) continue;
    idle = 0;
    auto expected = state::ticking;
    state_.compare_exchange_strong(expected, state::asleep, std::memory_order_relaxed);
  }
}

// False: nobody has needed it for long.
bool courier::look(unsigned& idle) noexcept {
  ++ticks_;
  idle = waiting_.empty() ? idle + 1 : 0;
  std::erase_if(waiting_, [this](const auto& each) {
    if (each.second + 1 >= ticks_) return false;
    each.first->deliver();
    return true;
  });
  return idle < idle_ticks_max;
}

}  // namespace transports::pipes
