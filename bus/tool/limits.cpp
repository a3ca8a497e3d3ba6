#include "bus/tool/limits.hpp"

#include "bus/base/clock.hpp"
#include "bus/base/fd.hpp"
#include "bus/tool/child.hpp"
#include "bus/tool/step_aside.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <csignal>
#include <cstring>
#include <new>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bus::tool {
namespace {

// Trips that are not counted: the child starts, pages are touched, clocks speed up.
constexpr std::size_t warm_up = 1000;
// As many slots as stay in a processor's own cache, and enough that neither side waits for each.
constexpr std::size_t ring_slots_max = 1024;
constexpr std::size_t ring_slots_min = 4;
constexpr std::size_t ring_bytes = 256 << 10;

// Shared between us and a child; everything that two processes hand to and fro is a line of its
// own.
struct shared_page {
  alignas(128) std::atomic<std::uint64_t> there{0};
  alignas(128) std::atomic<std::uint64_t> back{0};
  alignas(128) sem_t go;
  alignas(128) sem_t come;
};

template <class T>
class shared_memory {
 public:
  explicit shared_memory(std::size_t bytes = sizeof(T)) : bytes_(bytes) {
    void* const at =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at != MAP_FAILED) value_ = new (at) T;
  }
  ~shared_memory() {
    if (value_) ::munmap(value_, bytes_);
  }
  shared_memory(const shared_memory&) = delete;
  shared_memory& operator=(const shared_memory&) = delete;
  [[nodiscard]] explicit operator bool() const noexcept { return value_ != nullptr; }
  T* operator->() const noexcept { return value_; }
  T* get() const noexcept { return value_; }

 private:
  std::size_t bytes_;
  T* value_ = nullptr;
};

// A child that runs `body` and exits. When the destructor runs, all has been measured: a child that
// is still there is one whose partner gave up, and is ended.
class child {
 public:
  template <class Body>
  explicit child(Body&& body) : pid_(::fork()) {
    if (pid_ != 0) return;
    if (!life_.hold()) ::_exit(1);
    step_aside();
    body();
    ::_exit(0);
  }
  ~child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  child(const child&) = delete;
  child& operator=(const child&) = delete;
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }

 private:
  lifeline life_;
  pid_t pid_;
};

template <class Trip>
std::vector<std::int64_t> timed(std::size_t count, Trip&& trip) {
  for (std::size_t i = 0; i < warm_up; ++i) trip();
  std::vector<std::int64_t> times(count);
  for (std::int64_t& time : times) {
    const std::int64_t start = steady_ns();
    trip();
    time = steady_ns() - start;
  }
  return times;
}

// Spins as long as the other side is at work, and gives way when it cannot be: on a crowded machine
// it may be waiting for our core. On a quiet one this never comes to a yield.
class spinner {
 public:
  void wait() noexcept {
    __builtin_ia32_pause();
    if (++turns_ % turns_before_yield == 0) ::sched_yield();
  }

 private:
  static constexpr unsigned turns_before_yield = 2000;  // about 50 us, some hundred trips
  unsigned turns_ = 0;
};

void await(const std::atomic<std::uint64_t>& word, std::uint64_t value) {
  spinner patience;
  while (word.load(std::memory_order_acquire) != value) patience.wait();
}

std::pair<fd, fd> tcp_pair() {
  const fd door(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof where;
  auto* const address = reinterpret_cast<sockaddr*>(&where);
  if (!door || ::bind(door.get(), address, bytes) != 0 || ::listen(door.get(), 1) != 0 ||
      ::getsockname(door.get(), address, &bytes) != 0) {
    return {};
  }
  fd one(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!one || ::connect(one.get(), address, bytes) != 0) return {};
  fd other(::accept4(door.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const int on = 1;
  for (const fd* end : {&one, &other}) {
    ::setsockopt(end->get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  return {std::move(one), std::move(other)};
}

bool send_whole(const fd& to, const char* data, std::size_t bytes) {
  while (bytes > 0) {
    const ssize_t put = ::send(to.get(), data, bytes, MSG_NOSIGNAL);
    if (put <= 0) return false;
    data += put;
    bytes -= static_cast<std::size_t>(put);
  }
  return true;
}

bool receive_whole(const fd& from, char* data, std::size_t bytes) {
  return ::recv(from.get(), data, bytes, MSG_WAITALL) == static_cast<ssize_t>(bytes);
}

}  // namespace

std::vector<std::int64_t> cache_line_trips(std::size_t count) {
  const shared_memory<shared_page> page;
  if (!page) return {};
  const std::uint64_t last = count + warm_up;
  const child echo([&] {
    for (std::uint64_t i = 1; i <= last; ++i) {
      await(page->there, i);
      page->back.store(i, std::memory_order_release);
    }
  });
  if (echo.pid() < 0) return {};
  std::uint64_t i = 0;
  return timed(count, [&] {
    page->there.store(++i, std::memory_order_release);
    await(page->back, i);
  });
}

std::vector<std::int64_t> semaphore_trips(std::size_t count) {
  const shared_memory<shared_page> page;
  if (!page || ::sem_init(&page->go, 1, 0) != 0 || ::sem_init(&page->come, 1, 0) != 0) return {};
  const child echo([&] {
    for (std::size_t i = 0; i < count + warm_up; ++i) {
      ::sem_wait(&page->go);
      ::sem_post(&page->come);
    }
  });
  if (echo.pid() < 0) return {};
  return timed(count, [&] {
    ::sem_post(&page->go);
    ::sem_wait(&page->come);
  });
}

std::vector<std::int64_t> signalfd_trips(std::size_t count) {
  const int number = SIGRTMIN + 8;
  sigset_t only;
  sigset_t before;
  ::sigemptyset(&only);
  ::sigaddset(&only, number);
  ::pthread_sigmask(SIG_BLOCK, &only, &before);
  const fd signals(::signalfd(-1, &only, SFD_CLOEXEC));
  const pid_t self = ::getpid();
  const auto wait = [&] {
    signalfd_siginfo info;
    static_cast<void>(!::read(signals.get(), &info, sizeof info));
  };
  std::vector<std::int64_t> times;
  if (signals) {
    const child echo([&] {
      for (std::size_t i = 0; i < count + warm_up; ++i) {
        wait();
        ::sigqueue(self, number, {});
      }
    });
    if (echo.pid() > 0) {
      times = timed(count, [&] {
        ::sigqueue(echo.pid(), number, {});
        wait();
      });
    }
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return times;
}

std::vector<std::int64_t> tcp_trips(std::size_t count, std::size_t bytes) {
  const auto [ours, theirs] = tcp_pair();
  if (!ours || !theirs) return {};
  std::vector<char> message(std::max<std::size_t>(bytes, 1));
  const child echo([&, there = theirs.get()] {
    for (std::size_t i = 0; i < count + warm_up; ++i) {
      if (::recv(there, message.data(), message.size(), MSG_WAITALL) <= 0) return;
      if (::send(there, message.data(), message.size(), MSG_NOSIGNAL) <= 0) return;
    }
  });
  if (echo.pid() < 0) return {};
  return timed(count, [&] {
    if (!send_whole(ours, message.data(), message.size())) return;
    static_cast<void>(receive_whole(ours, message.data(), message.size()));
  });
}

double ring_rate(std::size_t count, std::size_t bytes) {
  const std::size_t slot = (bytes + 63) / 64 * 64;
  const std::size_t ring_slots =
      std::bit_floor(std::clamp(ring_bytes / slot, ring_slots_min, ring_slots_max));
  const std::size_t header = (sizeof(shared_page) + 127) / 128 * 128;
  const shared_memory<shared_page> page(header + ring_slots * slot);
  if (!page) return 0;
  char* const slots = reinterpret_cast<char*>(page.get()) + header;
  const child reader([&] {
    std::vector<char> into(slot);
    std::uint64_t tail = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
      for (spinner patience; tail == i; patience.wait()) {
        tail = page->there.load(std::memory_order_acquire);
        if (tail != i) break;
      }
      std::memcpy(into.data(), slots + (i & (ring_slots - 1)) * slot, bytes);
      asm volatile("" : : "r"(into.data()) : "memory");
      page->back.store(i + 1, std::memory_order_release);
    }
  });
  if (reader.pid() < 0) return 0;
  const std::vector<char> from(slot, 1);
  std::uint64_t head = 0;
  const std::int64_t start = steady_ns();
  for (std::uint64_t i = 0; i < count; ++i) {
    for (spinner patience; i - head >= ring_slots; patience.wait()) {
      head = page->back.load(std::memory_order_acquire);
      if (i - head < ring_slots) break;
    }
    std::memcpy(slots + (i & (ring_slots - 1)) * slot, from.data(), bytes);
    page->there.store(i + 1, std::memory_order_release);
  }
  await(page->back, count);
  return static_cast<double>(count) * 1e9 / static_cast<double>(steady_ns() - start);
}

double tcp_rate(std::size_t count, std::size_t bytes) {
  const auto [ours, theirs] = tcp_pair();
  if (!ours || !theirs) return 0;
  std::vector<char> message(std::max<std::size_t>(bytes, 1));
  const child reader([&, there = theirs.get()] {
    for (std::size_t i = 0; i < count; ++i) {
      if (::recv(there, message.data(), message.size(), MSG_WAITALL) <= 0) return;
    }
    static_cast<void>(::send(there, message.data(), 1, MSG_NOSIGNAL));
  });
  if (reader.pid() < 0) return 0;
  const std::int64_t start = steady_ns();
  for (std::size_t i = 0; i < count; ++i) {
    if (!send_whole(ours, message.data(), message.size())) return 0;
  }
  if (!receive_whole(ours, message.data(), 1)) return 0;
  return static_cast<double>(count) * 1e9 / static_cast<double>(steady_ns() - start);
}

}  // namespace bus::tool
