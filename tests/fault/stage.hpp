// The stage of the numbered cases of failures: a bus directory, clients in processes of their own,
// innocents beside them, and, at the end, the invariants:
//
//   I1  nobody alive was in one call for longer than twice the detection time
//   I2  nothing torn, foreign, stale or duplicated was delivered   (history.hpp)
//   I3  order was kept, and every message is accounted for         (history.hpp)
//   I4  after all have ended, and one `bus gc`, nothing is left
//   I5  nothing outside the bus was signalled or touched
//
// Trouble is thrown, as in tests/contract/world.hpp.
#pragma once

#include "tests/fault/clients.hpp"
#include "tests/scratch.hpp"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/stat.h>
#include <sys/wait.h>

namespace fault {

// Deaths are told by the kernel within microseconds; a hang-up is watched for one second before it
// is believed to be none (core_routing.cpp). The rest is for machines that are shared.
inline constexpr std::chrono::seconds detection_time = 2s;

using contract::must;

// Looks every 2 ms until it holds, since other processes' deeds call nobody.
template <class Holds>
bool eventually(Holds&& holds, std::chrono::nanoseconds within = long_patience) {
  const auto until = bus::deadline::after(within);
  while (!holds()) {
    if (until.passed()) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

inline std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// As exec takes them. Valid as long as the words are.
inline std::vector<char*> arguments_of(const std::vector<std::string>& words) {
  std::vector<char*> raw;
  raw.reserve(words.size() + 1);
  for (const std::string& word : words) raw.push_back(const_cast<char*>(word.c_str()));
  raw.push_back(nullptr);
  return raw;
}

// Runs a program to its end; its exit status, or minus the signal that killed it.
inline int run(const std::vector<std::string>& words, const std::string& output = "/dev/null") {
  child one([&](channel&) {
    auto raw = arguments_of(words);
    const int to = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(to >= 0 && ::dup2(to, 1) == 1 && ::dup2(to, 2) == 2, "cannot write to " + output);
    ::execvp(raw[0], raw.data());
    must(false, "cannot run " + words[0]);
  });
  return one.wait();
}

// A process that has nothing to do with the bus. Whatever signal anybody sends it stays pending and
// is seen at the end.
class innocent {
 public:
  innocent()
      : process_([](channel& parent) {
          sigset_t all;
          ::sigfillset(&all);
          ::sigprocmask(SIG_SETMASK, &all, nullptr);
          parent.say(1);
          static_cast<void>(parent.hear(std::chrono::hours(1)));
          sigset_t pending;
          ::sigpending(&pending);
          for (int number = 1; number <= SIGRTMAX; ++number) {
            must(::sigismember(&pending, number) != 1,
                 "an innocent was sent signal " + std::to_string(number));
          }
        }) {
    static_cast<void>(process_.pipe().hear());
  }
  [[nodiscard]] pid_t id() const noexcept { return process_.id(); }
  // Ends it; true if nobody had sent it anything.
  [[nodiscard]] bool is_untouched() {
    process_.pipe().say(1);
    return process_.wait() == 0;
  }

 private:
  child process_;
};

// All that lies in a bus directory but the two rooms that every bus has.
inline std::set<std::string> left_in(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    const std::string name = entry.path().lexically_relative(directory).string();
    if (name != "waiting" && name != "schemas") names.insert(name);
  }
  return names;
}

// The `bus` command of this build: bus_command.cpp.
[[nodiscard]] const char* bus_command() noexcept;

// I4: what is left in a bus directory of which all nodes have ended, a minute later (until then,
// gc takes what is half made for somebody's beginning), after one `bus gc`.
inline std::set<std::string> left_after_gc(const std::string& directory) {
  const timespec long_ago[2] = {{1, 0}, {1, 0}};
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    ::utimensat(AT_FDCWD, entry.path().c_str(), long_ago, AT_SYMLINK_NOFOLLOW);
  }
  must(run({bus_command(), "gc", "--directory", directory}, directory + "/../gc.out") == 0,
       "bus gc failed: " + text_of(directory + "/../gc.out"));
  return left_in(directory);
}

class stage {
 public:
  struct client {
    recorder record;
    std::unique_ptr<child> process;
    bool is_speaker = false;
    bool is_over = false;
    bool was_stopped = false;  // by us: then its long calls are ours

    [[nodiscard]] pid_t id() const noexcept { return process->id(); }
    void stop() {
      was_stopped = true;
      must(::kill(id(), SIGSTOP) == 0, "SIGSTOP");
      int status = 0;
      must(::waitpid(id(), &status, WUNTRACED) == id() && WIFSTOPPED(status), "not stopped");
    }
    void go_on() const { must(::kill(id(), SIGCONT) == 0, "SIGCONT"); }
    void ended(int status, int expected) {
      is_over = true;
      record.end();
      must(status == expected, "a client ended with " + std::to_string(status));
    }
    void kill() {
      process->kill();
      ended(process->wait(), -SIGKILL);
    }
    // Waits until it has published or got so many.
    void has(std::size_t count) const {
      must(eventually([&] { return record.count() >= count; }),
           "only " + std::to_string(record.count()) + " of " + std::to_string(count) + " messages");
    }
    // Waits for so many more.
    void has_more(std::size_t count) const { has(record.count() + count); }
  };

  stage() {
    std::filesystem::create_directory(directory());
    std::filesystem::permissions(directory(), std::filesystem::perms::owner_all);
    std::ofstream(beside()) << "not the bus's";
    tripwire_ = look_beside();
  }

  [[nodiscard]] std::string directory() const { return scratch_.path() + "/bus"; }
  [[nodiscard]] const std::string& scratch() const { return scratch_.path(); }

  // Starts a client; wait_for() tells when it is at work.
  client& start(speaker_options options) {
    if (options.client.directory.empty()) options.client.directory = directory();
    client& made = clients_.emplace_back();
    made.is_speaker = true;
    made.process = std::make_unique<child>(
        [&](channel& parent) { fault::speak(parent, made.record, options); });
    return made;
  }
  client& start(listener_options options) {
    if (options.client.directory.empty()) options.client.directory = directory();
    client& made = clients_.emplace_back();
    made.process = std::make_unique<child>(
        [&](channel& parent) { fault::hear(parent, made.record, options); });
    return made;
  }
  static void wait_for(client& one) {
    try {
      must(one.process->pipe().hear(long_patience) == 1, "another word than 1");
    } catch (const std::runtime_error& failed) {
      one.process->kill();
      one.is_over = true;
      must(false, std::string("a client did not get to work: ") + failed.what() +
                      "; it ended with " + std::to_string(one.process->wait()));
    }
  }
  client& speak(speaker_options options = {}) {
    client& made = start(std::move(options));
    wait_for(made);
    return made;
  }
  client& listen(listener_options options = {}) {
    client& made = start(std::move(options));
    wait_for(made);
    return made;
  }

  // Ends all who live, publishers first, and requires I1 to I5.
  void finish() {
    end_speakers();
    const auto all = histories();
    for (client& one : clients_) {
      if (one.is_over) continue;
      one.process->pipe().say(least_for(one.record.read(), all));
    }
    for (client& one : clients_) {
      if (!one.is_over) one.ended(one.process->wait(), 0);
    }
    require_invariants();
  }
  void end_speakers() {
    for (client& one : clients_) {
      if (one.is_speaker && !one.is_over) one.process->pipe().say(1);
    }
    for (client& one : clients_) {
      if (!one.is_speaker || one.is_over) continue;
      static_cast<void>(one.process->pipe().hear(long_patience));
      one.ended(one.process->wait(), 0);
    }
  }
  void require_invariants() {
    const auto all = histories();
    std::string wrong;
    for (const std::string& each : checker::check(all)) wrong += each + '\n';
    std::vector<history> alive;
    for (const client& one : clients_) {
      if (!one.was_stopped) alive.push_back(one.record.read());
    }
    for (const std::string& each :
         blocked(alive, 2 * std::chrono::nanoseconds(detection_time).count())) {
      wrong += each + '\n';
    }
    for (const history& each : all) {
      if (each.descriptors_left != 0) {
        wrong += std::to_string(each.descriptors_left) + " descriptors left\n";
      }
    }
    for (const std::string& name : left_after_gc(directory())) wrong += "left: " + name + '\n';
    must(::waitpid(-1, nullptr, WNOHANG) <= 0, "a process was left");
    if (!bystander_.is_untouched()) wrong += "an innocent was touched\n";
    if (look_beside() != tripwire_) wrong += "a file beside the bus directory was touched\n";
    must(wrong.empty(), wrong);
  }

  [[nodiscard]] std::vector<history> histories() const {
    std::vector<history> all;
    for (const client& one : clients_) all.push_back(one.record.read());
    return all;
  }

 private:
  // What a subscriber must account for before it may end: all of those who came after it.
  [[nodiscard]] static std::uint64_t least_for(const history& one,
                                               const std::vector<history>& all) {
    std::uint64_t sum = 0;
    for (const history& by : all) {
      if (by.attached_ns != 0 && by.attached_ns >= one.began_ns) sum += by.published.size();
    }
    return sum;
  }
  [[nodiscard]] std::string beside() const { return scratch_.path() + "/beside"; }
  [[nodiscard]] std::string look_beside() const {
    struct stat about {};
    must(::stat(beside().c_str(), &about) == 0, "the file beside is gone");
    return std::to_string(about.st_ino) + ' ' + std::to_string(about.st_mode) + ' ' +
           std::to_string(about.st_ctim.tv_sec) + '.' + std::to_string(about.st_ctim.tv_nsec) +
           ' ' + text_of(beside());
  }

  tests::scratch_directory scratch_;
  std::string tripwire_;
  std::list<client> clients_;
  innocent bystander_;
};

// strace, fastened to a process that lives: faults are injected into its system calls, or its
// system calls are written down.
class tracer {
 public:
  // `what`: the options of strace that say which calls, and what becomes of them.
  tracer(pid_t process, const std::string& output, const std::vector<std::string>& what)
      : output_(output), traced_(process) {
    process_ = std::make_unique<child>([&](channel&) {
      std::vector<std::string> words = {"strace", "-f", "-qq", "-o", output};
      words.insert(words.end(), what.begin(), what.end());
      words.insert(words.end(), {"-p", std::to_string(process)});
      ::execvp("strace", arguments_of(words).data());
    });
    must(eventually([&] { return is_fastened(); }), "strace did not take hold");
  }
  // Lets go; what was written down.
  std::string end() {
    ::kill(process_->id(), SIGINT);
    static_cast<void>(process_->wait());
    return text_of(output_);
  }

 private:
  // All threads of the process are traced.
  [[nodiscard]] bool is_fastened() const {
    const std::string tasks = "/proc/" + std::to_string(traced_) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks)) {
      if (text_of(task.path().string() + "/status").find("TracerPid:\t0\n") != std::string::npos) {
        return false;
      }
    }
    return true;
  }

  std::string output_;
  pid_t traced_;
  std::unique_ptr<child> process_;
};

inline std::size_t occurrences(const std::string& text, const std::string& of) {
  std::size_t count = 0;
  for (std::size_t at = text.find(of); at != std::string::npos; at = text.find(of, at + 1)) ++count;
  return count;
}

}  // namespace fault
