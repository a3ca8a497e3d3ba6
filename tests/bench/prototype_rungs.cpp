// The signal rung is shown as the bus means to climb it: the receiver opens a pidfd of its own
// *thread*, hands it over by SCM_RIGHTS, blocks the signal and reads it from a signalfd in epoll.
// The receiving thread is not the main one, and the main one would count a signal that went astray.
#include "tests/bench/prototype_rungs.hpp"

#include <csignal>
#include <thread>

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace prototype {
namespace {

// Kernel 6.9 and later; the headers of Debian 12 do not know them.
constexpr unsigned pidfd_thread = O_EXCL;
constexpr unsigned pidfd_signal_thread = 1;

std::atomic<u32> astray{0};

double median(std::vector<double> of) {
  std::sort(of.begin(), of.end());
  return of[of.size() / 2];
}

int open_own_thread() {
  return static_cast<int>(::syscall(SYS_pidfd_open, ::gettid(), pidfd_thread));
}
int signal_thread(int fd) {
  return static_cast<int>(
      ::syscall(SYS_pidfd_send_signal, fd, SIGRTMIN, nullptr, pidfd_signal_thread));
}

union ancillary {
  cmsghdr header;
  char bytes[CMSG_SPACE(sizeof(int))];
};

void send_fd(int socket, int fd) {
  ancillary control{};
  char byte = 'f';
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof(control.bytes);
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
  require(::sendmsg(socket, &message, 0) == 1, "sendmsg");
}

int receive_fd(int socket) {
  ancillary control{};
  char byte = 0;
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof(control.bytes);
  require(::recvmsg(socket, &message, MSG_CMSG_CLOEXEC) == 1, "recvmsg");
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(&control.header), sizeof(int));
  return fd;
}

// One side of a ping-pong: `wake` the other, `sleep` until woken.
struct side {
  std::function<void()> wake, sleep;
};

double play(const side& mine, bool first, u32 rounds) {
  std::vector<double> times;
  times.reserve(rounds);
  for (u32 i = 0; i < rounds; ++i) {
    const u64 begin = now_ns();
    if (first) mine.wake();
    mine.sleep();
    if (!first) mine.wake();
    times.push_back(static_cast<double>(now_ns() - begin) * 1e-3);
  }
  return median(std::move(times));
}

struct both_semaphores {
  sem_t of[2];
};

int epoll_on(int fd) {
  const int poller = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event interest{.events = EPOLLIN, .data = {.fd = fd}};
  require(poller >= 0 && ::epoll_ctl(poller, EPOLL_CTL_ADD, fd, &interest) == 0, "epoll");
  return poller;
}

template <typename Record>
void sleep_in_epoll(int poller, int fd) {
  epoll_event event{};
  while (::epoll_wait(poller, &event, 1, -1) != 1) require(errno == EINTR, "epoll_wait");
  Record record{};
  require(::read(fd, &record, sizeof(record)) == sizeof(record), "read after epoll");
}

// Runs in a thread of its own. Leaves the peer's pidfd behind when asked for.
double play_signals(int socket, bool first, u32 rounds, int* peer_out) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);  // before anyone may signal: announced by handing over
  const int fd = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), poller = epoll_on(fd);
  const int own = open_own_thread();
  require(own >= 0, "pidfd_open with PIDFD_THREAD");
  send_fd(socket, own);
  const int peer = receive_fd(socket);
  const side mine{[&] { require(signal_thread(peer) == 0, "pidfd_send_signal"); },
                  [&] { sleep_in_epoll<signalfd_siginfo>(poller, fd); }};
  const double result = play(mine, first, rounds);
  for (const int each : {fd, poller, own}) ::close(each);
  if (peer_out != nullptr)
    *peer_out = peer;
  else
    ::close(peer);
  return result;
}

rung_result measure_signal(u32 rounds, bool pin) {
  const int probe = open_own_thread();
  if (probe < 0) return {0, std::string("pidfd_open: ") + std::strerror(errno)};
  ::close(probe);
  struct sigaction action {};
  action.sa_handler = [](int) { astray.fetch_add(1, memory_order_relaxed); };
  ::sigaction(SIGRTMIN, &action, nullptr);
  int sockets[2];
  require(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0, "socketpair");
  const pid_t child = spawn([&] {
    stay_on(pin ? 1 : -1);
    std::thread([&] { play_signals(sockets[1], false, rounds, nullptr); }).join();
    require(astray == 0, "a signal went to the wrong thread");
  });
  rung_result result;
  int peer = -1;
  std::thread([&] {
    stay_on(pin ? 0 : -1);
    result.round_trip_us = play_signals(sockets[0], true, rounds, &peer);
  }).join();
  join(child);
  require(astray == 0, "a signal went to the wrong thread");
  require(signal_thread(peer) != 0, "a dead thread took a signal");
  result.remark =
      "thread-directed, none astray; to a dead thread: " + std::string(std::strerror(errno));
  for (const int fd : {sockets[0], sockets[1], peer}) ::close(fd);
  return result;
}

rung_result measure_semaphore(u32 rounds, bool pin) {
  const memory page(sizeof(both_semaphores));
  const auto shared = page.map<both_semaphores>(true);
  for (sem_t& each : shared->of) ::sem_init(&each, 1, 0);
  const auto of = [&](int me) {
    return side{[&, me] { ::sem_post(&shared->of[1 - me]); },
                [&, me] { wait_semaphore(shared->of[me]); }};
  };
  const pid_t child = spawn([&] {
    stay_on(pin ? 1 : -1);
    play(of(1), false, rounds);
  });
  stay_on(pin ? 0 : -1);
  const double result = play(of(0), true, rounds);
  join(child);
  return {result, {}};
}

rung_result measure_event(u32 rounds, bool pin) {
  const int fds[2] = {::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                      ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  const auto run = [&](int me) {
    stay_on(pin ? me : -1);
    const int poller = epoll_on(fds[me]);
    const u64 one = 1;
    const side mine{[&] { require(::write(fds[1 - me], &one, 8) == 8, "eventfd write"); },
                    [&] { sleep_in_epoll<u64>(poller, fds[me]); }};
    const double result = play(mine, me == 0, rounds);
    ::close(poller);
    return result;
  };
  const pid_t child = spawn([&] { run(1); });
  const double result = run(0);
  join(child);
  for (const int fd : fds) ::close(fd);
  return {result, {}};
}

struct two_lines {
  alignas(128) std::atomic<u64> of[2][16];
};

struct bare_ring {
  alignas(128) std::atomic<u64> tail;  // pairs with: the reader's acquire
  alignas(128) std::atomic<u64> head;  // pairs with: the writer's acquire
  alignas(128) u64 words[1];
};

void read_bare_ring(bare_ring& ring, u32 words, u64 messages) {
  u64 head = 0;
  while (head != messages) {
    const u64 tail = ring.tail.load(memory_order_acquire);
    if (tail == head) pause_cpu();
    for (u64 end = std::min(tail, head + 64); head != end; ++head) {
      const u64* at = ring.words + head % window * words;
      u64 sum = 0;
      for (u32 i = 0; i < words; ++i) sum += at[i];
      require(sum == head * words, "a bare ring's sum");
    }
    ring.head.store(head, memory_order_release);
  }
}

}  // namespace

pid_t spawn(const std::function<void()>& work) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  require(child >= 0, "fork");
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    work();
    ::_exit(0);
  }
  return child;
}

void join(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) require(errno == EINTR, "waitpid");
  require(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child failed");
}

void stay_on(int cpu) {
  static const cpu_set_t before = [] {
    cpu_set_t found;
    require(::sched_getaffinity(0, sizeof(found), &found) == 0, "sched_getaffinity");
    return found;
  }();
  cpu_set_t set = before;
  if (cpu >= 0) {
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(cpu), &set);
  }
  require(::sched_setaffinity(0, sizeof(set), &set) == 0, "sched_setaffinity");
}

rung_result measure_rung(rung kind, u32 rounds, bool pin) {
  switch (kind) {
    case rung::semaphore:
      return measure_semaphore(rounds, pin);
    case rung::signal:
      return measure_signal(rounds, pin);
    case rung::event:
      return measure_event(rounds, pin);
  }
  return {};
}

double measure_cache_line_us(u32 rounds, bool pin) {
  const memory page(sizeof(two_lines));
  const auto shared = page.map<two_lines>(true);
  const auto await = [&](int me, u64 turn) {
    while (shared->of[me][0].load(memory_order_acquire) != turn) pause_cpu();
  };
  const u32 turns = rounds / 100 * 100;
  const pid_t child = spawn([&] {
    stay_on(pin ? 1 : -1);
    for (u64 turn = 1; turn <= turns; ++turn) {
      await(1, turn);
      shared->of[0][0].store(turn, memory_order_release);
    }
  });
  stay_on(pin ? 0 : -1);
  std::vector<double> times;
  for (u64 turn = 1; turn <= turns;) {
    const u64 begin = now_ns();
    for (u32 i = 0; i < 100; ++i, ++turn) {
      shared->of[1][0].store(turn, memory_order_release);
      await(0, turn);
    }
    times.push_back(static_cast<double>(now_ns() - begin) * 1e-5);
  }
  join(child);
  return median(std::move(times));
}

double measure_bare_ring(u32 payload, u32 batch, u64 messages, bool pin) {
  const u32 words = payload / 8;
  const memory pages(sizeof(bare_ring) + std::size_t{window} * payload);
  const auto ring = pages.map<bare_ring>(true);
  const pid_t child = spawn([&] {
    stay_on(pin ? 1 : -1);
    const auto mine = pages.map<bare_ring>(true);
    read_bare_ring(*mine, words, messages);
  });
  stay_on(pin ? 0 : -1);
  const u64 begin = now_ns();
  u64 head = 0;
  for (u64 tail = 0; tail != messages;) {
    while (tail - head > window - batch) {
      head = ring->head.load(memory_order_acquire);
      if (tail - head > window - batch) pause_cpu();
    }
    for (const u64 end = std::min(messages, tail + batch); tail != end; ++tail)
      std::fill_n(ring->words + tail % window * words, words, tail);
    ring->tail.store(tail, memory_order_release);
  }
  join(child);
  return static_cast<double>(messages) * 1e9 / static_cast<double>(now_ns() - begin);
}

}  // namespace prototype
