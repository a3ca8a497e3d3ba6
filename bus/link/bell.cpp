#include "bus/link/bell.hpp"

#include "bus/base/check.hpp"
#include "bus/base/step.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <new>
#include <string>
#include <utility>

#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bus {
namespace {

// Linux 6.9; not in Debian 12's headers.
constexpr unsigned pidfd_thread = O_EXCL;
constexpr unsigned pidfd_signal_thread = 1;

constexpr std::size_t page_bytes = 4096;

// Registers this process for the global barriers of others, and says whether there are any. Asked
// once: the answer is the kernel's and the sandbox's, not ours.
bool register_for_barriers() noexcept {
  static const bool registered =
      ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0U, 0) == 0;
  return registered;
}

bool run_barriers() noexcept {
  return ::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0U, 0) == 0;
}

// Signals the one thread that `thread` names. False: this rung does not hold here.
bool send_signal(const fd& thread) noexcept {
  return ::syscall(SYS_pidfd_send_signal, thread.get(), bell_signal(), nullptr,
                   pidfd_signal_thread) == 0;
}

void write_event(const fd& event) noexcept {
  const std::uint64_t one = 1;
  // EAGAIN means that the counter is at its maximum: then it is readable, which is all we want.
  while (::write(event.get(), &one, sizeof one) < 0 && errno == EINTR) {
  }
}

// The semaphore's two halves. Whatever somebody writes into `permit`, they do no more than return.
void post(std::atomic<std::uint32_t>& permit) noexcept {
  // Pairs with: take, acquire of permit.
  permit.store(1, std::memory_order_release);
  static_cast<void>(::syscall(SYS_futex, &permit, FUTEX_WAKE, 1, nullptr, nullptr, 0));
}

bool take(std::atomic<std::uint32_t>& permit) noexcept {
  // Pairs with: post, release of permit.
  return permit.exchange(0, std::memory_order_acquire) != 0;
}

// False: the deadline passed first.
bool take_within(std::atomic<std::uint32_t>& permit, deadline until) noexcept {
  const timespec at{until.at_ns() / 1'000'000'000, until.at_ns() % 1'000'000'000};
  while (!take(permit)) {
    // EAGAIN: it has come meanwhile. EINTR, or woken without a reason: look again.
    if (::syscall(SYS_futex, &permit, FUTEX_WAIT_BITSET, 0, until.is_never() ? nullptr : &at,
                  nullptr, FUTEX_BITSET_MATCH_ANY) != 0 &&
        errno != EAGAIN && errno != EINTR) {
      return false;
    }
  }
  return true;
}

// Wakes the sleeper, for our own bell and for a stranger's. Requires: is_awake() said no. `thread`
// is dropped for good when a signal cannot be sent.
rung wake_page(bell_layout& page, fd* thread, const fd& event) noexcept {
  step("bell.wake.look");
  std::uint32_t word = page.word.load(std::memory_order_relaxed);
  rung used = rung::none;
  switch (mode_of(word)) {
    case bell_mode::awake:
      return rung::none;
    case bell_mode::on_semaphore:
      step("bell.wake.post");
      post(page.permit);
      used = rung::semaphore;
      break;
    case bell_mode::on_signal:
      if (thread && *thread) {
        step("bell.wake.signal");
        if (send_signal(*thread)) {
          used = rung::signal;
          break;
        }
        // EAGAIN (the queue of signals is full) may pass; everything else will not.
        if (errno != EAGAIN) thread->reset();
      }
      [[fallthrough]];
    case bell_mode::on_event:
      step("bell.wake.event");
      write_event(event);
      used = rung::event;
      break;
  }
  step("bell.wake.mark");
  // Pairs with: bell::arm. The sleep's number in the word keeps a late mark off the next sleep.
  page.word.compare_exchange_strong(word, word & ~bell_mode_bits, std::memory_order_acq_rel);
  return used;
}

// An address that no other living thread has; asking the kernel for a number costs a system call.
const void* this_thread() noexcept {
  static thread_local char mark;
  return &mark;
}

// Whether somebody has a handler for the signal.
bool is_handled(int number) noexcept {
  struct sigaction now {};
  if (::sigaction(number, nullptr, &now) != 0) return true;
  return (now.sa_flags & SA_SIGINFO) != 0 ||
         (now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN);
}

// Makes the signal harmless wherever it is not blocked; exec() keeps that. What is blocked is never
// ignored, so the descriptor goes on to read it. Once, since it drops what is pending.
bool ignore_bell_signal() noexcept {
  static const bool ignored = [] {
    struct sigaction nothing {};
    nothing.sa_handler = SIG_IGN;
    return ::sigaction(bell_signal(), &nothing, nullptr) == 0;
  }();
  return ignored;
}

result<bell_layout*> map_page(int memory, int access = PROT_READ | PROT_WRITE) {
  void* const at = ::mmap(nullptr, page_bytes, access, MAP_SHARED, memory, 0);
  if (at == MAP_FAILED) return unexpected(last_system_error());
  return static_cast<bell_layout*>(at);
}

}  // namespace

int bell_signal() noexcept {
  // Real-time signals start free at SIGRTMIN, which glibc moves above its own; we leave the first
  // ones to applications, who take those by habit.
  return SIGRTMIN + 7;
}

result<std::unique_ptr<bell>> bell::make(loop_wakeup by) {
  std::unique_ptr<bell> made(new bell);
  made->memory_ = fd(::memfd_create("omnibus-bell", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!made->memory_) return unexpected(last_system_error());
  const int memory = made->memory_.get();
  // Another user who is handed a read-only descriptor shall not open it again for writing.
  if (::fchmod(memory, 0400) != 0 || ::ftruncate(memory, page_bytes) != 0 ||
      ::fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return unexpected(last_system_error());
  }
  auto page = map_page(memory);
  if (!page) return unexpected(page.error());
  made->page_ = new (*page) bell_layout{};
  step("bell.make.magic");
  made->page_->version = bell_layout::current_version;
  made->page_->magic = bell_layout::magic_value;

  made->event_ = fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!made->event_) return unexpected(last_system_error());

  made->barriers_ = register_for_barriers();
  made->maker_ = this_thread();
  if (by != loop_wakeup::signal) return made;
  made->signal_is_taken_ = is_handled(bell_signal());
  if (!made->signal_is_taken_ && ignore_bell_signal()) {
    made->thread_ = fd(static_cast<int>(::syscall(SYS_pidfd_open, ::gettid(), pidfd_thread)));
  }
  if (made->thread_) {
    sigset_t only;
    ::sigemptyset(&only);
    ::sigaddset(&only, bell_signal());
    // Blocked before anybody can have the pidfd: an unprepared thread would die of the signal. It
    // stays blocked for the thread's life, since a signal may still be on its way.
    if (::pthread_sigmask(SIG_BLOCK, &only, nullptr) != 0) return unexpected(last_system_error());
    made->signals_ = fd(::signalfd(-1, &only, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!made->signals_) return unexpected(last_system_error());
  }
  return made;
}

bell::~bell() {
  if (page_) ::munmap(page_, page_bytes);
}

void bell::arm(bell_mode mode) noexcept {
  sleeps_ += bell_mode_bits + 1;
  step("bell.arm.word");
  // Pairs with: is_awake, the fence before its load of word.
  page_->word.exchange((sleeps_ & ~bell_mode_bits) | static_cast<std::uint32_t>(mode),
                       std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (unfenced_) fence_for_others();
  came_ = 0;
}

void bell::fence_for_others() noexcept {
  if (came_ < burst) {
    unfenced_ = false;
    step("bell.arm.unfenced");
    // Relaxed: the barriers order it, too. Whoever still saw 1 was before them.
    page_->unfenced.store(0, std::memory_order_relaxed);
  }
  step("bell.arm.barriers");
  if (run_barriers()) return;
  // It was allowed once; a sandbox that was entered since forbids it. From now on senders fence. As
  // to those who just did not: a store leaves its processor within a microsecond, so once in a
  // life, we wait a thousand times as long.
  unfenced_ = barriers_ = false;
  page_->unfenced.store(0, std::memory_order_relaxed);
  const timespec pause{0, 1'000'000};
  static_cast<void>(::nanosleep(&pause, nullptr));
}

void bell::let_unfenced() noexcept {
  unfenced_ = true;
  step("bell.let_unfenced");
  // Relaxed: it allows, and orders nothing.
  page_->unfenced.store(1, std::memory_order_relaxed);
}

void bell::arm_semaphore() noexcept {
  rebuild_semaphore();
  arm(bell_mode::on_semaphore);
}

// A post that nobody took belongs to a sleep that is over: of a sender that was late, or was killed
// before its mark.
void bell::rebuild_semaphore() noexcept { static_cast<void>(take(page_->permit)); }

void bell::arm_descriptors() noexcept {
  const bool by_signal = signals_ && !signal_is_taken_ && maker_ == this_thread();
  arm(by_signal ? bell_mode::on_signal : bell_mode::on_event);
}

void bell::disarm() noexcept {
  step("bell.disarm.word");
  // Acquire is enough: what a ringer published is read through the queues' own orderings.
  const std::uint32_t word =
      page_->word.exchange(sleeps_ & ~bell_mode_bits, std::memory_order_acq_rel);
  if (mode_of(word) != bell_mode::awake) return;
  step("bell.disarm.swallow");
  rebuild_semaphore();
}

bool bell::wait(deadline until) noexcept {
  step("bell.wait.sleep");
  const bool rung_in_time = take_within(page_->permit, until);
  disarm();
  return rung_in_time;
}

std::array<int, 2> bell::descriptors() const noexcept { return {signals_.get(), event_.get()}; }

void bell::drain(int descriptor) noexcept {
  step("bell.drain.word");
  page_->word.exchange(sleeps_ & ~bell_mode_bits, std::memory_order_acq_rel);
  if (descriptor == event_.get()) {
    std::uint64_t count = 0;
    static_cast<void>(!::read(descriptor, &count, sizeof count));
    return;
  }
  // One read for all that several senders may have sent to one sleep; a full array means more.
  std::array<signalfd_siginfo, 8> pending;
  ssize_t got = 0;
  do {
    got = ::read(descriptor, pending.data(), sizeof pending);
    for (std::size_t i = 0;
         i < static_cast<std::size_t>(std::max<ssize_t>(got, 0)) / sizeof pending[0]; ++i) {
      // Ringers direct theirs at this thread; whatever was sent in another way is not from them.
      signal_is_taken_ = signal_is_taken_ || pending[i].ssi_code != SI_TKILL;
    }
  } while (got == static_cast<ssize_t>(sizeof pending));
}

result<bell_keys> bell::keys() const {
  bell_keys copies;
  auto page = memory_.duplicate();
  if (!page) return unexpected(page.error());
  copies.page = std::move(*page);
  auto event = event_.duplicate();
  if (!event) return unexpected(event.error());
  copies.event = std::move(*event);
  if (thread_) {
    auto thread = thread_.duplicate();
    if (!thread) return unexpected(thread.error());
    copies.thread = std::move(*thread);
  }
  return copies;
}

result<bell_keys> bell::keys_for_stranger() const {
  const std::string place = "/proc/self/fd/" + std::to_string(memory_.get());
  bell_keys copies;
  copies.page = fd(::open(place.c_str(), O_RDONLY | O_CLOEXEC));
  if (!copies.page) return unexpected(last_system_error());
  return copies;
}

rung bell::ring() noexcept {
  if (is_awake(*page_, barriers_)) return rung::none;
  return wake_page(*page_, nullptr, event_);
}

result<ringer> ringer::open(bell_keys keys) {
  struct stat about {};
  if (::fstat(keys.page.get(), &about) != 0) return unexpected(last_system_error());
  const int seals = ::fcntl(keys.page.get(), F_GET_SEALS);
  if (about.st_size != static_cast<off_t>(page_bytes) || seals < 0 || !(seals & F_SEAL_SHRINK)) {
    return unexpected(errc::corrupt);
  }
  auto page = map_page(keys.page.get(), keys.socket ? PROT_READ : PROT_READ | PROT_WRITE);
  if (!page) return unexpected(page.error());
  ringer opened;
  opened.page_ = *page;
  opened.socket_ = std::move(keys.socket);
  opened.thread_ = std::move(keys.thread);
  opened.event_ = std::move(keys.event);
  opened.registered_ = register_for_barriers();
  if (opened.page_->magic != bell_layout::magic_value) return unexpected(errc::corrupt);
  if (opened.page_->version != bell_layout::current_version) return unexpected(errc::incompatible);
  return opened;
}

ringer::ringer(ringer&& other) noexcept
    : page_(std::exchange(other.page_, nullptr)),
      thread_(std::move(other.thread_)),
      event_(std::move(other.event_)),
      socket_(std::move(other.socket_)),
      fallen_(other.fallen_),
      knocked_(other.knocked_),
      registered_(other.registered_) {}

ringer& ringer::operator=(ringer&& other) noexcept {
  std::swap(page_, other.page_);
  thread_ = std::move(other.thread_);
  event_ = std::move(other.event_);
  socket_ = std::move(other.socket_);
  fallen_ = other.fallen_;
  knocked_ = other.knocked_;
  registered_ = other.registered_;
  return *this;
}

ringer::~ringer() {
  if (page_) ::munmap(page_, page_bytes);
}

rung ringer::wake() noexcept {
  if (socket_) return knock();
  const bool may_signal = static_cast<bool>(thread_);
  const bool wants_signal =
      mode_of(page_->word.load(std::memory_order_relaxed)) == bell_mode::on_signal;
  const rung used = wake_page(*page_, &thread_, event_);
  if (may_signal && wants_signal && used == rung::event) ++fallen_;
  return used;
}

// One byte for each sleep, which its node reads and throws away. Never waits, whatever the other
// end does: a queue that is full is readable there.
rung ringer::knock() noexcept {
  const std::uint32_t word = page_->word.load(std::memory_order_relaxed);
  if (mode_of(word) == bell_mode::awake || word == knocked_) return rung::none;
  knocked_ = word;
  const char byte = 0;
  static_cast<void>(!::send(socket_.get(), &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL));
  return rung::socket;
}

}  // namespace bus
