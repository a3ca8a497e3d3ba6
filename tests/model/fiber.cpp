#include "tests/model/fiber.hpp"

#include "bus/base/check.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include <ucontext.h>

// The sanitizers must be told when a thread changes its stack.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace model {
namespace {

constexpr std::size_t stack_bytes = 256 << 10;  // frames are large under the sanitizers
// More than all calls of a fiber take, but for those; to zero all of it would be too slow.
constexpr std::size_t calls_bytes = 2048;

struct seat {
  ucontext_t context;
  void* shadow;  // TSan's own record of the fiber
};
alignas(4096) std::array<std::array<std::byte, stack_bytes>, fibers_max> stacks;
std::array<seat, fibers_max> seats;
ucontext_t scheduler;
fiber* running = nullptr;

#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;
void leave_for(const std::byte* stack) {
  __sanitizer_start_switch_fiber(nullptr, stack, stack_bytes);
}
void leave_for_scheduler() {
  __sanitizer_start_switch_fiber(nullptr, scheduler_stack, scheduler_stack_bytes);
}
void arrived_in_fiber() {
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
}
void arrived_in_scheduler() { __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr); }
void clean(std::span<std::byte> stack) { ASAN_UNPOISON_MEMORY_REGION(stack.data(), stack.size()); }
#else
void leave_for(const std::byte*) {}
void leave_for_scheduler() {}
void arrived_in_fiber() {}
void arrived_in_scheduler() {}
void clean(std::span<std::byte>) {}
#endif

#if defined(__SANITIZE_THREAD__)
void* scheduler_shadow = nullptr;
void make_shadow(seat& of) {
  scheduler_shadow = __tsan_get_current_fiber();
  if (of.shadow) __tsan_destroy_fiber(of.shadow);
  of.shadow = __tsan_create_fiber(0);
}
void enter_shadow(seat& of) { __tsan_switch_to_fiber(of.shadow, 0); }
void leave_shadow() { __tsan_switch_to_fiber(scheduler_shadow, 0); }
#else
void make_shadow(seat&) {}
void enter_shadow(seat&) {}
void leave_shadow() {}
#endif

}  // namespace

void fiber::begin(unsigned stack, body what, void* whom) noexcept {
  BUS_CHECK(stack < fibers_max);
  stack_ = stack;
  what_ = what;
  whom_ = whom;
  wanted_ = nullptr;
  place_ = "begin";
  place_bytes_ = 5;
  begun_ = ended_ = dropped_ = false;
}

void fiber::enter() noexcept {
  arrived_in_fiber();
  running->what_(running->whom_);
  running->ended_ = true;
  running->place_ = "end";
  running->place_bytes_ = 3;
  yield();
}

void fiber::resume() noexcept {
  seat& here = seats[stack_];
  auto& stack = stacks[stack_];
  if (!begun_) {
    begun_ = true;
    clean(stack);
    std::fill(stack.end() - calls_bytes, stack.end(), std::byte{0});
    make_shadow(here);
    BUS_CHECK(::getcontext(&here.context) == 0);
    here.context.uc_stack.ss_sp = stack.data();
    here.context.uc_stack.ss_size = stack_bytes;
    here.context.uc_link = nullptr;
    ::makecontext(&here.context, &fiber::enter, 0);
    // Else what the scheduler had in them would be saved in the fiber's frames: a difference.
    for (const int kept : {REG_RBX, REG_RBP, REG_R12, REG_R13, REG_R14, REG_R15}) {
      here.context.uc_mcontext.gregs[kept] = 0;
    }
  }
  wanted_ = nullptr;
  running = this;
  leave_for(stack.data());
  enter_shadow(here);
  BUS_CHECK(::swapcontext(&scheduler, &here.context) == 0);
  arrived_in_scheduler();
  running = nullptr;
}

void fiber::yield() noexcept {
  seat& here = seats[running->stack_];
  leave_for_scheduler();
  leave_shadow();
  BUS_CHECK(::swapcontext(&here.context, &scheduler) == 0);
  arrived_in_fiber();
}

void fiber::pause(std::string_view place) noexcept { wait(place, nullptr); }

void fiber::wait(std::string_view place, condition until) noexcept {
  forget_calls();
  running->place_ = place.data();
  running->place_bytes_ = place.size();
  running->wanted_ = until;
  yield();
}

void fiber::forget_calls() noexcept {
  std::array<std::byte, 1024> frames;
  frames.fill(std::byte{0});
  // It is read by nobody, and shall be written all the same.
  asm volatile("" : : "r"(frames.data()) : "memory");
}

bool fiber::is_running() noexcept { return running != nullptr; }

std::span<std::byte> fiber::stack_in_use() noexcept {
  auto& stack = stacks[stack_];
  auto* const top = stack.data() + stack.size();
  const auto low = seats[stack_].context.uc_mcontext.gregs[REG_RSP];
  auto* const begin = reinterpret_cast<std::byte*>(low);
  BUS_CHECK(begin >= stack.data() && begin < top);
  return {begin, top};
}

void fiber::forget_returned() noexcept {
  if (!begun_ || ended_ || dropped_) return;
  std::byte* const low = stack_in_use().data();
  std::byte* const lowest = std::max(stacks[stack_].data(), low - calls_bytes);
  // Less what the kernel and the compiler may use below the pointer of a suspended context.
  std::fill(lowest, low - 128, std::byte{0});
}

fiber::state fiber::look() noexcept {
  if (!begun_ || ended_ || dropped_) return {};
  seat& here = seats[stack_];
  const auto& all = here.context.uc_mcontext.gregs;
  const auto of = [&](int which) { return static_cast<std::uint64_t>(all[which]); };
  return {.stack = stack_in_use(),
          .context = std::as_writable_bytes(std::span(&here, 1)),
          .registers = {of(REG_RBX), of(REG_RBP), of(REG_R12), of(REG_R13), of(REG_R14),
                        of(REG_R15), of(REG_RSP), of(REG_RIP)}};
}

const std::byte* fiber::put_back(const std::byte* from) noexcept {
  if (!begun_ || ended_ || dropped_) return from;
  std::memcpy(&seats[stack_], from, sizeof(seat));
  from += sizeof(seat);
  const std::span<std::byte> stack = stack_in_use();
  std::memcpy(stack.data(), from, stack.size());
  forget_returned();
  return from + stack.size();
}

}  // namespace model
