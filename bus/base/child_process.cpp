#include "bus/base/child_process.hpp"

#include "bus/base/check.hpp"
#include "bus/base/clock.hpp"
#include "bus/base/enclosure.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string_view>
#include <thread>

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bus {
namespace {

std::vector<char*> pointers_to(std::vector<std::string>& words) {
  std::vector<char*> raw;
  raw.reserve(words.size() + 1);
  for (std::string& word : words) raw.push_back(word.data());
  raw.push_back(nullptr);
  return raw;
}

std::string_view name_in(std::string_view assignment) {
  return assignment.substr(0, assignment.find('='));
}

bool may_see(const confinement& allowed, std::string_view name) {
  constexpr std::array<std::string_view, 9> usual = {"PATH", "HOME", "USER", "LOGNAME", "SHELL",
                                                     "TERM", "TZ",   "LANG", "LANGUAGE"};
  const auto& more = allowed.variables;
  return std::find(usual.begin(), usual.end(), name) != usual.end() || name.starts_with("LC_") ||
         std::find(more.begin(), more.end(), name) != more.end();
}

std::vector<std::string> environment_of(const child_plan& plan) {
  const std::vector<std::string>& added = plan.environment;
  std::vector<std::string> all = added;
  for (char** each = environ; each && *each; ++each) {
    const std::string_view name = name_in(*each);
    const auto is_same = [name](const std::string& one) { return name_in(one) == name; };
    const bool is_ours_to_give = !plan.confined || may_see(*plan.confined, name);
    if (is_ours_to_give && std::none_of(added.begin(), added.end(), is_same)) {
      all.emplace_back(*each);
    }
  }
  return all;
}

// What the child tells us.
struct outcome {
  static constexpr int has_way_out = -1;
  int failed = 0;  // its errno when there is no program
  wall_report walls_up;
};

// All that the child reads between clone and exec. It calls nothing that allocates or locks.
struct errand {
  std::vector<std::string> words;
  std::vector<std::string> assignments;
  std::vector<char*> arguments;
  std::vector<char*> environment;
  std::vector<std::pair<int, int>> descriptors;
  bool closes_others;
  bool is_bound;
  pid_t parent;
  cpu_set_t cores;  // of the thread that asked, as if it had started the child itself
  bool knows_cores;
  int nice;
  std::optional<enclosure> walls_of;
  outcome* told = nullptr;

  explicit errand(const child_plan& plan)
      : words(plan.command),
        assignments(environment_of(plan)),
        arguments(pointers_to(words)),
        environment(pointers_to(assignments)),
        descriptors(plan.descriptors),
        closes_others(plan.closes_others || plan.confined),
        is_bound(plan.is_bound),
        parent(::getpid()),
        knows_cores(::sched_getaffinity(0, sizeof cores, &cores) == 0),
        nice(::getpriority(PRIO_PROCESS, 0)) {}

  [[nodiscard]] const char* program() const noexcept {
    return walls_of ? walls_of->program().c_str() : words.front().c_str();
  }
};

void reset_signals() noexcept {
  for (int number = 1; number < NSIG; ++number) {
    struct sigaction now {};
    if (::sigaction(number, nullptr, &now) != 0) continue;
    const bool is_ignored = (now.sa_flags & SA_SIGINFO) == 0 && now.sa_handler == SIG_IGN;
    if (is_ignored && number != SIGPIPE) continue;
    struct sigaction usual {};
    usual.sa_handler = SIG_DFL;
    ::sigaction(number, &usual, nullptr);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

// Gives each descriptor its number. First all are moved out of the way of all numbers.
bool arrange(std::vector<std::pair<int, int>>& descriptors, bool closes_others) noexcept {
  int beyond = STDERR_FILENO + 1;
  for (const auto& [ours, theirs] : descriptors) beyond = std::max(beyond, theirs + 1);
  for (auto& [ours, theirs] : descriptors) {
    ours = ::fcntl(ours, F_DUPFD_CLOEXEC, beyond);
    if (ours < 0) return false;
  }
  if (closes_others &&
      ::syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    return false;
  }
  return std::all_of(descriptors.begin(), descriptors.end(),
                     [](const auto& one) { return ::dup2(one.first, one.second) == one.second; });
}

// Without AddressSanitizer's look at the stack, which is not the one that it knows.
__attribute__((no_sanitize("address"))) int run_errand(void* given) {
  errand& one = *static_cast<errand*>(given);
  reset_signals();
  if (one.walls_of && !one.walls_of->put_up(one.told->walls_up)) {
    one.told->failed = outcome::has_way_out;
    ::_exit(127);
  }
  if (one.is_bound) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    // Gone before we asked? The kernel says whose child we are; another's has another parent, and
    // our parent's number is not free before somebody has become that.
    if (::getppid() != one.parent) ::_exit(127);
    if (one.knows_cores) ::sched_setaffinity(0, sizeof one.cores, &one.cores);
    ::setpriority(PRIO_PROCESS, 0, one.nice);
  }
  if (arrange(one.descriptors, one.closes_others)) {
    ::execvpe(one.program(), one.arguments.data(), one.environment.data());
  }
  one.told->failed = errno;
  ::_exit(127);
}

// What the child needs of memory: a stack, on which execvpe() puts a path, and the arguments once
// more; and at its far end what it tells us, which we see even if nothing else is shared.
class workspace {
 public:
  explicit workspace(std::size_t arguments)
      : bytes_((usual + arguments * sizeof(char*) + page - 1) / page * page),
        at_(::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)),
        told_(at_ == MAP_FAILED ? nullptr : new (at_) outcome) {}
  ~workspace() {
    if (at_ != MAP_FAILED) ::munmap(at_, bytes_);
  }
  workspace(const workspace&) = delete;
  workspace& operator=(const workspace&) = delete;
  [[nodiscard]] explicit operator bool() const noexcept { return at_ != MAP_FAILED; }
  [[nodiscard]] void* top() const noexcept { return static_cast<char*>(at_) + bytes_; }
  [[nodiscard]] outcome* told() const noexcept { return told_; }

 private:
  static constexpr std::size_t page = 4096;
  static constexpr std::size_t usual = 128 << 10;
  std::size_t bytes_;
  void* at_;
  outcome* told_;
};

// The child shares our memory until it has become another program, and this thread waits for that:
// no page table is copied, however large we are.
#if defined(__SANITIZE_THREAD__)
constexpr int in_our_memory = 0;  // ThreadSanitizer would take it for one of our threads
#else
constexpr int in_our_memory = CLONE_VM;
#endif

struct launched {
  pid_t pid;
  fd handle;
  walls held;
};

result<launched> launch(errand& one) {
  const workspace room(one.arguments.size());
  if (!room) return unexpected(last_system_error());
  one.told = room.told();
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  // A handler of ours must not run in the child.
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  int handle = -1;
  const int made = ::clone(run_errand, room.top(),
                           in_our_memory | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &one, &handle);
  const int failed = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (made < 0) return unexpected(system_error_of(failed));
  fd kept(handle);
  const int why = room.told()->failed;
  if (why == 0) return launched{made, std::move(kept), walls(room.told()->walls_up)};
  ::waitid(P_PIDFD, static_cast<id_t>(kept.get()), nullptr, WEXITED);
  if (why == outcome::has_way_out) return unexpected(errc::open_walls);
  return unexpected(system_error_of(why));
}

// The thread that starts bound children. It never ends: not even static destructors wait for it.
class cradle {
 public:
  // That of this process: a forked child of ours has none yet.
  static std::shared_ptr<cradle> of_process() {
    static std::mutex guard;
    static std::shared_ptr<cradle> current;
    const std::lock_guard<std::mutex> one_at_a_time(guard);
    if (!current || current->process_ != ::getpid()) {
      auto made = std::make_shared<cradle>();
      std::thread([made] { made->live(); }).detach();
      current = std::move(made);
    }
    return current;
  }
  result<launched> launch(errand& one) {
    std::unique_lock<std::mutex> held(guard_);
    called_.wait(held, [this] { return !wanted_; });
    result<launched> made = unexpected(errc::closed);
    bool done = false;
    wanted_ = [&] {
      made = bus::launch(one);
      done = true;
    };
    called_.notify_all();
    called_.wait(held, [&] { return done; });
    return made;
  }

 private:
  void live() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
    std::unique_lock<std::mutex> held(guard_);
    for (;;) {
      called_.wait(held, [this] { return static_cast<bool>(wanted_); });
      wanted_();
      wanted_ = nullptr;
      called_.notify_all();
    }
  }

  pid_t process_ = ::getpid();
  std::mutex guard_;
  std::condition_variable called_;
  std::function<void()> wanted_;
};

}  // namespace

std::string exit_status::describe() const {
  if (signal == 0) return "ended with " + std::to_string(code);
  const char* const name = ::sigdescr_np(signal);
  return "was killed by signal " + std::to_string(signal) +
         (name ? std::string(" (") + name + ")" : std::string());
}

result<child_process> child_process::start(const child_plan& plan) {
  BUS_CHECK(!plan.command.empty());
  errand one(plan);
  if (plan.confined) {
    auto closed = enclosure::make(*plan.confined, plan.command.front());
    if (!closed) return unexpected(closed.error());
    one.walls_of.emplace(std::move(*closed));
  }
  auto made = one.is_bound ? cradle::of_process()->launch(one) : launch(one);
  if (!made) return unexpected(made.error());
  return child_process(std::move(made->handle), made->pid, made->held);
}

child_process::child_process(fd&& handle, pid_t pid, const walls& held) noexcept
    : handle_(std::move(handle)), pid_(pid), parent_(::getpid()), walls_(held) {}

child_process& child_process::operator=(child_process&& other) noexcept {
  if (this == &other) return *this;
  end();
  handle_ = std::move(other.handle_);
  pid_ = other.pid_;
  parent_ = other.parent_;
  status_ = other.status_;
  walls_ = other.walls_;
  return *this;
}

child_process::~child_process() { end(); }

void child_process::end() noexcept {
  if (!handle_ || status_ || parent_ != ::getpid()) return;
  static_cast<void>(signal(SIGKILL));
  static_cast<void>(wait());
}

std::optional<exit_status> child_process::reap(int options) noexcept {
  if (status_) return status_;
  siginfo_t about{};
  int got = 0;
  do {
    got = ::waitid(P_PIDFD, static_cast<id_t>(handle_.get()), &about, WEXITED | options);
  } while (got != 0 && errno == EINTR);
  if (got != 0) {
    // Somebody else has waited for it, or SIGCHLD is ignored: it has ended, and nobody knows how.
    status_ = exit_status{.code = 127};
  } else if (about.si_pid != 0) {
    const bool by_itself = about.si_code == CLD_EXITED;
    status_ = exit_status{.code = by_itself ? about.si_status : 0,
                          .signal = by_itself ? 0 : about.si_status};
  }
  return status_;
}

std::optional<exit_status> child_process::poll() noexcept { return reap(WNOHANG); }

exit_status child_process::wait() noexcept { return *reap(0); }

std::optional<exit_status> child_process::wait_for(std::chrono::nanoseconds within) noexcept {
  const deadline until = deadline::after(within);
  for (;;) {
    if (auto ended = poll()) return ended;
    if (until.passed()) return std::nullopt;
    const std::int64_t left_ns = std::max<std::int64_t>(0, until.at_ns() - steady_ns());
    const timespec left{left_ns / 1'000'000'000, left_ns % 1'000'000'000};
    pollfd end{.fd = handle_.get(), .events = POLLIN, .revents = 0};
    static_cast<void>(::ppoll(&end, 1, &left, nullptr));
  }
}

result<void> child_process::signal(int number) const noexcept {
  if (status_) return {};
  if (::syscall(SYS_pidfd_send_signal, handle_.get(), number, nullptr, 0) == 0) return {};
  if (errno == ESRCH) return {};
  return unexpected(last_system_error());
}

}  // namespace bus
