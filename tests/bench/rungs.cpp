// What each way of waking costs, by the bus's own bell: the table by which the defaults stand
// (docs/performance.md).
//
//   semaphore   a taker that blocks            none   a spinner: nobody is woken
//   signal      an event loop, by signalfd     event  an event loop, by eventfd
//
// Two processes, each on a core of its own. Of each rung, in turns: the round trip between two that
// sleep at once; how often in a second one can be woken by another that does nothing else; and the
// processor time, of both together, of a wakeup in the round trip. Medians over the rounds, with
// the least and the most.
#include "bus/base/clock.hpp"
#include "bus/link/bell.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace {

using bus::rung;

void require(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

std::string name_of(rung one) {
  constexpr std::array<const char*, 4> names = {"none", "semaphore", "signal", "event"};
  return names[static_cast<std::size_t>(one)];
}

// What both processes see.
struct table_of_two {
  struct alignas(128) line {
    std::atomic<std::uint64_t> turn{0};
  };
  std::array<line, 2> of;
  alignas(128) std::atomic<std::uint64_t> stop{0};
  std::atomic<std::int64_t> child_cpu_ns{0};
};

std::int64_t cpu_ns() {
  timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return std::int64_t{used.tv_sec} * 1'000'000'000 + used.tv_nsec;
}

// The n-th core that we may use, if there are so many.
void stay_on(unsigned nth) {
  cpu_set_t allowed;
  require(::sched_getaffinity(0, sizeof allowed, &allowed) == 0, "sched_getaffinity");
  for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &allowed) || nth-- > 0) continue;
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(core, &only);
    require(::sched_setaffinity(0, sizeof only, &only) == 0, "sched_setaffinity");
    return;
  }
}

void send_keys(int socket, const bus::bell_keys& keys) {
  std::array<int, 3> numbers = {keys.page.get(), keys.event.get(), keys.thread.get()};
  const std::size_t count = keys.thread ? 3 : 2;
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof numbers)> control{};
  char byte = 'k';
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_SPACE(count * sizeof(int));
  cmsghdr* const rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(count * sizeof(int));
  std::memcpy(CMSG_DATA(rights), numbers.data(), count * sizeof(int));
  require(::sendmsg(socket, &message, 0) == 1, "sendmsg");
}

bus::bell_keys receive_keys(int socket) {
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(3 * sizeof(int))> control{};
  char byte = 0;
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  require(::recvmsg(socket, &message, MSG_CMSG_CLOEXEC) == 1, "recvmsg");
  const cmsghdr* const rights = CMSG_FIRSTHDR(&message);
  require(rights != nullptr, "no descriptors came");
  std::array<int, 3> numbers = {-1, -1, -1};
  std::memcpy(numbers.data(), CMSG_DATA(rights), rights->cmsg_len - CMSG_LEN(0));
  bus::bell_keys keys;
  keys.page = bus::fd(numbers[0]);
  keys.event = bus::fd(numbers[1]);
  if (numbers[2] >= 0) keys.thread = bus::fd(numbers[2]);
  return keys;
}

// One of the two: its bell, the other's, and how it sleeps.
class side {
 public:
  side(rung by, int socket, table_of_two& shared, std::size_t self)
      : by_(by), shared_(shared), self_(self) {
    if (by_ == rung::none) return;
    const auto make = [&] { own_ = std::move(*bus::bell::make()); };
    if (by_ == rung::event) {
      // A bell whose thread is another one cannot be signalled here: the next rung is taken.
      std::thread(make).join();
    } else {
      make();
    }
    send_keys(socket, *own_->keys());
    other_ = std::make_unique<bus::ringer>(std::move(*bus::ringer::open(receive_keys(socket))));
  }

  void pass_on(std::uint64_t turn) {
    // Pairs with: await, acquire. The bell's fence orders it before the look at the word.
    shared_.of[1 - self_].turn.store(turn, std::memory_order_release);
    if (by_ != rung::none) static_cast<void>(other_->ring());
  }
  void await(std::uint64_t turn) {
    while (mine() < turn) {
      if (by_ == rung::none) {
        __builtin_ia32_pause();
      } else {
        sleep([&] { return mine() >= turn; });
      }
    }
  }
  // Sleeps once, unless `come` says that it need not any more.
  template <class Come>
  void sleep(Come&& come) {
    if (by_ == rung::semaphore) {
      own_->arm_semaphore();
      if (come()) return own_->disarm();
      static_cast<void>(own_->wait(bus::deadline::never()));
      return;
    }
    own_->arm_descriptors();
    if (come()) return own_->disarm();
    const auto handles = own_->descriptors();
    std::array<pollfd, 2> watched{{{handles[0], POLLIN, 0}, {handles[1], POLLIN, 0}}};
    while (::poll(watched.data(), watched.size(), -1) < 1) require(errno == EINTR, "poll");
    for (const pollfd& one : watched) {
      if (one.revents != 0) own_->drain(one.fd);
    }
  }
  [[nodiscard]] rung wake_other() { return other_->ring(); }

 private:
  [[nodiscard]] std::uint64_t mine() const {
    return shared_.of[self_].turn.load(std::memory_order_acquire);  // pairs with: pass_on
  }

  rung by_;
  table_of_two& shared_;
  std::size_t self_;
  std::unique_ptr<bus::bell> own_;
  std::unique_ptr<bus::ringer> other_;
};

struct figures {
  double trip_us = 0;
  double wakeups_per_second = 0;
  double cpu_us = 0;  // of both, for one wakeup
};

// Runs both parts, the child's on the second core.
void between_two(rung by, const std::function<void(side&, table_of_two&)>& parent,
                 const std::function<void(side&, table_of_two&)>& child) {
  void* const page = ::mmap(nullptr, sizeof(table_of_two), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  require(page != MAP_FAILED, "mmap");
  auto& shared = *new (page) table_of_two;
  std::array<int, 2> ends{};
  require(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) == 0, "socketpair");
  std::fflush(nullptr);
  const pid_t pid = ::fork();
  require(pid >= 0, "fork");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    stay_on(1);
    side mine(by, ends[1], shared, 1);
    const std::int64_t before = cpu_ns();
    child(mine, shared);
    shared.child_cpu_ns.store(cpu_ns() - before);
    ::_exit(0);
  }
  // In a thread of its own, so that its affinity and its signal mask end with it.
  std::thread([&] {
    stay_on(0);
    side mine(by, ends[0], shared, 0);
    parent(mine, shared);
  }).join();
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) require(errno == EINTR, "waitpid");
  require(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the other process failed");
  for (const int end : ends) ::close(end);
  ::munmap(page, sizeof(table_of_two));
}

figures measure(rung by, std::uint64_t trips, std::chrono::nanoseconds time) {
  figures found;
  std::vector<double> times;
  std::int64_t own_cpu_ns = 0;
  std::int64_t child_cpu_ns = 0;
  between_two(
      by,
      [&](side& mine, table_of_two& shared) {
        const std::int64_t before = cpu_ns();
        for (std::uint64_t turn = 1; turn <= trips; ++turn) {
          const std::int64_t began = bus::steady_ns();
          mine.pass_on(turn);
          mine.await(turn);
          times.push_back(static_cast<double>(bus::steady_ns() - began) / 1000);
        }
        own_cpu_ns = cpu_ns() - before;
        // The child ends with its last turn, and leaves its sum.
        while (shared.child_cpu_ns.load() == 0) ::sched_yield();
        child_cpu_ns = shared.child_cpu_ns.load();
      },
      [&](side& mine, table_of_two&) {
        for (std::uint64_t turn = 1; turn <= trips; ++turn) {
          mine.await(turn);
          mine.pass_on(turn);
        }
      });
  std::sort(times.begin(), times.end());
  found.trip_us = times[times.size() / 2];
  found.cpu_us =
      static_cast<double>(own_cpu_ns + child_cpu_ns) / 1000 / static_cast<double>(2 * trips);
  if (by == rung::none) return found;
  between_two(
      by,
      [&](side& mine, table_of_two& shared) {
        std::uint64_t woken = 0;
        const std::int64_t began = bus::steady_ns();
        const auto until = bus::deadline::after(time);
        while (!until.passed()) woken += mine.wake_other() != rung::none ? 1 : 0;
        found.wakeups_per_second =
            static_cast<double>(woken) * 1e9 / static_cast<double>(bus::steady_ns() - began);
        shared.stop.store(1);
        while (shared.child_cpu_ns.load() == 0) {
          static_cast<void>(mine.wake_other());
          ::sched_yield();
        }
      },
      [&](side& mine, table_of_two& shared) {
        while (shared.stop.load() == 0) mine.sleep([&] { return shared.stop.load() != 0; });
      });
  return found;
}

struct spread {
  std::vector<double> values;
  [[nodiscard]] double median() {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }
  [[nodiscard]] std::string text(int digits) {
    const double middle = median();
    return fmt::format("{:.{}f} ({:.{}f}..{:.{}f})", middle, digits, values.front(), digits,
                       values.back(), digits);
  }
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App parser("What each way of waking costs, between two processes on two cores.");
  std::size_t rounds = 5;
  std::uint64_t trips = 10'000;
  double seconds = 0.3;
  bool json = false;
  parser.add_option("--rounds", rounds, "Of each rung, in turns")->capture_default_str();
  parser.add_option("--trips", trips, "Round trips in a round")->capture_default_str();
  parser.add_option("--seconds", seconds, "For which one is woken, in a round")
      ->capture_default_str();
  parser.add_flag("--json", json, "JSON, one object a line");
  CLI11_PARSE(parser, argc, argv);
  constexpr std::array<rung, 4> all = {rung::semaphore, rung::signal, rung::event, rung::none};
  std::array<spread, 4> trip;
  std::array<spread, 4> rate;
  std::array<spread, 4> cpu;
  const auto time = std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9));
  for (std::size_t round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::uint64_t count = all[i] == rung::none ? trips * 10 : trips;
      const figures one = measure(all[i], count, time);
      trip[i].values.push_back(one.trip_us);
      rate[i].values.push_back(one.wakeups_per_second);
      cpu[i].values.push_back(one.cpu_us);
    }
  }
  if (!json) {
    fmt::print(
        "| rung | round trip, us | wakeups/s | CPU of both for a wakeup, us |\n"
        "|---|---|---|---|\n");
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (json) {
      const nlohmann::ordered_json line = {{"rung", name_of(all[i])},
                                           {"rounds", rounds},
                                           {"round_trip_us", trip[i].median()},
                                           {"wakeups_per_second", rate[i].median()},
                                           {"cpu_us", cpu[i].median()}};
      fmt::print("{}\n", line.dump());
      continue;
    }
    fmt::print("| {} | {} | {} | {} |\n", name_of(all[i]), trip[i].text(2),
               all[i] == rung::none ? "-" : rate[i].text(0), cpu[i].text(2));
  }
  return 0;
}
