#include "bus/tool/private_folder.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <system_error>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bus::tool {
namespace {

// Reads to the end of the pipe.
std::string read_all(int from) {
  std::string text;
  std::array<char, 256> part;
  for (;;) {
    const ssize_t got = ::read(from, part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(part.data(), static_cast<std::size_t>(got));
  }
}

void ignore_signals() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) {
    static_cast<void>(std::signal(number, SIG_IGN));
  }
}

// Has two descriptors: 0 ends with the users, and 1 takes the path. Any other would keep something
// of the program that forked it.
[[noreturn]] void tidy_up(std::string path) {
  if (::mkdtemp(path.data())) {
    static_cast<void>(!::write(1, path.data(), path.size()));
    ::close(1);
    static_cast<void>(read_all(0));
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  ::_exit(0);
}

}  // namespace

private_folder::private_folder(const std::string& prefix) {
  const std::string pattern = std::filesystem::temp_directory_path() / (prefix + "-XXXXXX");
  std::array<int, 2> users{-1, -1};
  std::array<int, 2> told{-1, -1};
  const bool piped = ::pipe(users.data()) == 0 && ::pipe(told.data()) == 0;
  const fd end_of_users(users[0]);
  users_ = fd(users[1]);
  const fd answer(told[0]);
  fd question(told[1]);
  if (!piped) throw std::runtime_error("no descriptors left");
  janitor_ = ::fork();
  if (janitor_ == 0) {
    // A group of its own: the keys of a terminal are not for it.
    ::setpgid(0, 0);
    ignore_signals();
    ::dup2(end_of_users.get(), 0);
    ::dup2(question.get(), 1);
    ::close_range(2, ~0U, 0);
    tidy_up(pattern);
  }
  question.reset();
  if (janitor_ > 0) path_ = read_all(answer.get());
  if (!path_.empty()) return;
  users_.reset();
  if (janitor_ > 0) ::waitpid(janitor_, nullptr, 0);
  throw std::runtime_error("cannot make " + pattern + ": is there room, and may you write there?");
}

private_folder::~private_folder() {
  users_.reset();
  while (::waitpid(janitor_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace bus::tool
