#include "tests/bench/peer_server.hpp"

#include "bus/base/clock.hpp"
#include "tests/bench/peer.hpp"

#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace peers {
namespace {

// As a shell says it: there is no such program.
constexpr int no_such_program = 127;
// Short beside the start of a server, long beside the question.
constexpr int between_questions_ms = 2;

std::string last_line(const std::string& path) {
  std::ifstream log(path);
  std::string last = "it said nothing";
  for (std::string line; std::getline(log, line);) {
    if (!line.empty()) last = line;
  }
  return last;
}

}  // namespace

server::server(server_options options)
    : options_(std::move(options)), log_(options_.folder + "/" + options_.program + ".log") {
  pid_ = ::fork();
  if (pid_ < 0) fail("cannot fork: no room for another process");
  if (pid_ == 0) run();
  end_ = bus::fd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
}

server::~server() { bus::tool::reap(pid_, std::chrono::milliseconds(0)); }

void server::run() {
  cpu_set_t all;
  std::memset(&all, 0xff, sizeof all);
  ::sched_setaffinity(0, sizeof all, &all);
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int log = ::open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  ::dup2(nothing, 0);
  ::dup2(log, 1);
  ::dup2(log, 2);
  std::vector<char*> words{const_cast<char*>(options_.program.c_str())};
  for (const std::string& word : options_.arguments)
    words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  if (life_.hold()) {
    ::execvp(words[0], words.data());
    // Where Debian has servers, which is not on everybody's PATH.
    ::execv(("/usr/sbin/" + options_.program).c_str(), words.data());
  }
  ::_exit(no_such_program);
}

void server::await(const std::function<bool()>& answers) const {
  const auto until = bus::deadline::after(std::chrono::milliseconds(patience_ms));
  while (!answers()) {
    pollfd end{.fd = end_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&end, 1, between_questions_ms) > 0) explain_end();
    if (until.passed()) fail(options_.program + " does not answer: " + last_line(log_));
  }
}

void server::explain_end() const {
  siginfo_t how{};
  ::waitid(P_PID, static_cast<id_t>(pid_), &how, WEXITED | WNOWAIT);
  if (how.si_code == CLD_EXITED && how.si_status == no_such_program) {
    throw not_installed(options_.program + " is not there: run 'apt-get install " +
                        options_.package + "' as root");
  }
  fail(options_.program + " ended: " + last_line(log_));
}

}  // namespace peers
