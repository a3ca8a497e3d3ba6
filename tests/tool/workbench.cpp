#include "tests/tool/workbench.hpp"

#include "transports/standard.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace tool_tests {
namespace {

namespace fs = std::filesystem;

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

scratch::scratch() {
  std::string pattern = (fs::temp_directory_path() / "omnibus-tool-XXXXXX").string();
  REQUIRE(::mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
  for (const char* const name : {"OMNIBUS_LISTEN", "OMNIBUS_PEERS", "OMNIBUS_INSECURE"}) {
    ::unsetenv(name);
  }
}

scratch::~scratch() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

bus::node_options scratch::options(std::string name) const {
  return {
      .name = std::move(name), .transports = transports::standard(), .directory = path_ + "/bus"};
}

std::vector<std::string> scratch::files() const {
  std::vector<std::string> found;
  std::error_code missing;
  for (const auto& entry : fs::recursive_directory_iterator(path_ + "/bus", missing)) {
    if (entry.is_directory()) continue;
    found.push_back(fs::relative(entry.path(), path_ + "/bus").string());
  }
  return found;
}

outcome scratch::run(const std::vector<std::string>& arguments, const std::string& input) const {
  return running(*this, arguments, input).wait();
}

running::running(const scratch& where, const std::vector<std::string>& arguments,
                 const std::string& input) {
  static int runs = 0;
  base_ = where.path() + "/run" + std::to_string(++runs);
  std::ofstream(base_ + ".in", std::ios::binary) << input;
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  std::vector<std::string> words = {BUS_COMMAND};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> raw;
  raw.reserve(words.size() + 1);
  for (std::string& word : words) raw.push_back(word.data());
  raw.push_back(nullptr);
  const std::string directory = where.path() + "/bus";
  pid_ = ::fork();
  REQUIRE(pid_ >= 0);
  if (pid_ == 0) {
    // A job of its own, as a shell makes it: in a group that has lost its shell, as that of a test
    // may have, the kernel does not stop who is asked to.
    ::setpgid(0, 0);
    ::setenv("OMNIBUS_DIR", directory.c_str(), 1);
    ::dup2(::open((base_ + ".in").c_str(), O_RDONLY), 0);
    ::dup2(ends[1], 1);
    ::dup2(::open((base_ + ".err").c_str(), O_WRONLY | O_CREAT, 0600), 2);
    // Whatever whoever runs the tests has forgotten.
    ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execv(BUS_COMMAND, raw.data());
    ::_exit(126);
  }
  ::close(ends[1]);
  output_ = ends[0];
}

running::~running() {
  close_output();
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void running::send_signal(int number) const { ::kill(pid_, number); }

void running::close_output() {
  if (output_ >= 0) ::close(std::exchange(output_, -1));
}

// False: that was all.
bool running::read_some() {
  std::array<char, 4096> block;
  ssize_t got = -1;
  do got = output_ >= 0 ? ::read(output_, block.data(), block.size()) : 0;
  while (got < 0 && errno == EINTR);
  if (got > 0) read_.append(block.data(), static_cast<std::size_t>(got));
  return got > 0;
}

bool running::shows(const std::string& part) {
  while (!has(read_, part)) {
    pollfd watched{.fd = output_, .events = POLLIN, .revents = 0};
    if (::poll(&watched, 1, 20'000) != 1 || !read_some()) return false;
  }
  return true;
}

outcome running::wait() {
  while (read_some()) {
  }
  int status = 0;
  ::waitpid(std::exchange(pid_, -1), &status, 0);
  return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          .out = read_,
          .err = read_all(base_ + ".err")};
}

other_process::other_process(
    const scratch& where, const std::string& name,
    const std::function<void(bus::node&, const std::function<void()>& ready)>& work) {
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  pid_ = ::fork();
  REQUIRE(pid_ >= 0);
  if (pid_ == 0) {
    try {
      bus::node own(where.options(name));
      work(own, [&] { static_cast<void>(!::write(ends[1], "r", 1)); });
    } catch (...) {
      ::_exit(1);
    }
    for (;;) ::pause();
  }
  ::close(ends[1]);
  char word = 0;
  const ssize_t got = ::read(ends[0], &word, 1);
  ::close(ends[0]);
  REQUIRE(got == 1);
}

other_process::~other_process() { kill(); }

void other_process::kill() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(std::exchange(pid_, -1), nullptr, 0);
}

void wait_told(bus::node& one, int topics, int patterns) {
  const auto until = bus::deadline::after(std::chrono::seconds(20));
  for (;;) {
    const auto card = one.inside().meeting_place().read_whole_card(one.id());
    if (card && card->advertisements_size() == topics && card->interests_size() == patterns) return;
    REQUIRE_FALSE(until.passed());
    one.run_for(std::chrono::milliseconds(1));
  }
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace tool_tests
