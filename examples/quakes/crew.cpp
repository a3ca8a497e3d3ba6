#include "examples/quakes/crew.hpp"

#include <csignal>
#include <stdexcept>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

namespace demo {
namespace {

std::vector<std::string> arguments_of(const task& what) {
  std::vector<std::string> all{"demo"};
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) all.push_back(std::string(option) + "=" + value);
  };
  add("--as", what.as);
  add("--network", what.network);
  add("--root", what.root);
  add("--data", what.data);
  add("--listen", what.listen);
  add("--peer", what.peer);
  add("--incarnation", std::to_string(what.incarnation));
  add("--start-ns", std::to_string(what.start_ns));
  add("--speed", fmt::format("{}", what.speed));
  add("--network-namespace", std::to_string(what.network_namespace));
  return all;
}

// Our own program again, with nothing inherited but the standard output and the namespace; its
// standard input is the lifeline.
int spawn(const task& what, const bus::fd& lifeline) {
  std::vector<std::string> arguments = arguments_of(what);
  std::vector<char*> pointers;
  pointers.reserve(arguments.size() + 1);
  for (std::string& one : arguments) pointers.push_back(one.data());
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_adddup2(&files, lifeline.get(), STDIN_FILENO);
  // A copy onto itself is one that survives exec.
  if (what.network_namespace >= 0) {
    ::posix_spawn_file_actions_adddup2(&files, what.network_namespace, what.network_namespace);
  }
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t child = -1;
  const int failed =
      ::posix_spawn(&child, "/proc/self/exe", &files, &attributes, pointers.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&files);
  if (failed != 0) throw std::runtime_error("cannot start " + what.name());
  return child;
}

}  // namespace

crew::crew(asio::io_context& context, on_end ended) : context_(context), ended_(std::move(ended)) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no descriptors left");
  lifeline_ = bus::fd(ends[0]);
  near_end_ = bus::fd(ends[1]);
}

crew::~crew() {
  for (auto& [name, one] : running_) {
    ::syscall(SYS_pidfd_send_signal, one->handle.get(), SIGKILL, nullptr, 0);
    ::waitpid(one->pid, nullptr, 0);
  }
}

void crew::start(task what) {
  const std::string name = what.name();
  if (const auto before = tasks_.find(name); before != tasks_.end()) {
    what.incarnation = before->second.incarnation + 1;
  }
  const int pid = spawn(what, lifeline_);
  // Our own child, not yet waited for: its id is its own.
  bus::fd handle(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const int copy = handle ? ::fcntl(handle.get(), F_DUPFD_CLOEXEC, 0) : -1;
  if (copy < 0) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    throw std::runtime_error("cannot watch " + name);
  }
  tasks_[name] = std::move(what);
  running_[name] = std::make_unique<running_process>(
      running_process{.pid = pid, .handle = std::move(handle), .watch = {context_, copy}});
  watch(name);
}

void crew::watch(const std::string& name) {
  running_.at(name)->watch.async_wait(asio::posix::stream_descriptor::wait_read,
                                      [this, name](std::error_code cancelled) {
                                        if (!cancelled) reap(name);
                                      });
}

void crew::reap(const std::string& name) {
  int status = 0;
  if (::waitpid(running_.at(name)->pid, &status, 0) < 0) return;
  running_.erase(name);
  ended_(name, WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
}

void crew::signal(const std::string& name, int number) {
  const auto at = running_.find(name);
  if (at == running_.end()) return;
  ::syscall(SYS_pidfd_send_signal, at->second->handle.get(), number, nullptr, 0);
}

bool crew::runs(const std::string& name) const { return running_.contains(name); }

std::size_t crew::running(const std::string& prefix) const {
  std::size_t count = 0;
  for (const auto& [name, one] : running_) count += name.starts_with(prefix) ? 1 : 0;
  return count;
}

unsigned crew::incarnation(const std::string& name) const {
  const auto at = tasks_.find(name);
  return at == tasks_.end() ? 0 : at->second.incarnation;
}

int crew::pid(const std::string& name) const {
  const auto at = running_.find(name);
  return at == running_.end() ? -1 : at->second->pid;
}

}  // namespace demo
