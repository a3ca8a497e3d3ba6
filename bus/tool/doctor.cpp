// `bus doctor`: whether this machine and this bus directory are fit, line by line, each with its
// fix. What can be tried is tried, and not inferred from versions.
#include "bus/base/clock.hpp"
#include "bus/base/fd.hpp"
#include "bus/link/bell.hpp"
#include "bus/node/error.hpp"
#include "bus/node/node.hpp"
#include "bus/route/directory.hpp"
#include "bus/tool/console.hpp"
#include "bus/tool/leftovers.hpp"
#include "bus/tool/look.hpp"
#include "bus/tool/verbs.hpp"
#include "transports/standard.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace bus::tool {
namespace {

using json = nlohmann::ordered_json;

enum class health : std::uint8_t { ok, warn, fail };

struct finding {
  std::string name;
  health how = health::ok;
  std::string words;
  std::string fix = {};
};
using findings = std::vector<finding>;

// A node's first ledger, its card and its links need 32 KiB; this is room for some hundred nodes.
constexpr std::uint64_t space_enough = 16ULL << 20;
constexpr std::uint64_t space_least = 1ULL << 20;
// A node has about 10 descriptors of its own, and 8 for each peer (docs/transports).
constexpr rlim_t descriptors_enough = 1024;
constexpr rlim_t descriptors_least = 64;

std::string_view name_of(health how) {
  return how == health::ok ? "ok" : how == health::warn ? "warn" : "fail";
}

std::string number_in(const char* path) {
  std::ifstream file(path);
  std::string text;
  std::getline(file, text);
  return text.empty() ? "unknown" : text;
}

finding check_directory(const std::string& path) {
  struct stat about {};
  if (::stat(path.c_str(), &about) != 0) {
    if (errno == ENOENT) {
      return {"directory", health::warn, path + " is not there yet",
              "none: the first node makes it; or set OMNIBUS_DIR to where others are"};
    }
    return {"directory", health::fail, path + ": " + std::strerror(errno),
            "set OMNIBUS_DIR to a directory of your own"};
  }
  if (!S_ISDIR(about.st_mode)) {
    return {"directory", health::fail, path + " is no directory",
            "set OMNIBUS_DIR to a directory of your own"};
  }
  const std::string words = fmt::format("{}, mode {:o}, owner {}, group {}", path,
                                        about.st_mode & 07777U, about.st_uid, about.st_gid);
  if ((about.st_mode & S_IWOTH) != 0) {
    return {"directory", health::fail, words + ": everybody may write there",
            "chmod 700 " + path + ", or for a group: chmod 2770 " + path};
  }
  const bool shared = (about.st_mode & S_ISGID) != 0 && (about.st_mode & S_IWGRP) != 0;
  if (about.st_uid != ::geteuid() && ::geteuid() != 0 && !shared) {
    return {"directory", health::fail, words + ": it belongs to somebody else",
            "its owner may share it by a group: chgrp GROUP DIR && chmod 2770 DIR"};
  }
  if (::access(path.c_str(), R_OK | W_OK | X_OK) != 0) {
    return {"directory", health::fail, words + ": we may not write there",
            "join its group, or set OMNIBUS_DIR to a directory of your own"};
  }
  return {"directory", health::ok, words};
}

finding check_space(const std::string& path) {
  struct statvfs about {};
  if (::statvfs(path.c_str(), &about) != 0) {
    return {"space", health::warn, std::strerror(errno), "see that the directory can be read"};
  }
  const std::uint64_t free = std::uint64_t{about.f_bavail} * about.f_frsize;
  const bool no_inodes = about.f_files != 0 && about.f_favail < 16;
  const std::string words = bytes_text(static_cast<double>(free)) + " free" +
                            (about.f_files != 0 ? fmt::format(", {} inodes", about.f_favail) : "");
  const health how = free < space_least || no_inodes ? health::fail
                     : free < space_enough           ? health::warn
                                                     : health::ok;
  if (how == health::ok) return {"space", how, words};
  return {"space", how, words, "free some space, or set OMNIBUS_DIR to another file system"};
}

finding check_file_system(const std::string& path) {
  struct statfs about {};
  if (::statfs(path.c_str(), &about) != 0) {
    return {"file system", health::warn, std::strerror(errno), "see that it can be read"};
  }
  constexpr unsigned long cifs = 0xff534d42;
  const auto type = static_cast<unsigned long>(about.f_type);
  if (type == NFS_SUPER_MAGIC || type == SMB_SUPER_MAGIC || type == cifs) {
    return {"file system", health::fail,
            "a network file system: its locks and sockets do not reach other machines, and inotify "
            "does not see them",
            "set OMNIBUS_DIR to a local directory; machines meet by OMNIBUS_PEERS"};
  }
  return {"file system", health::ok, fmt::format("local (type {:x})", type)};
}

finding check_inotify(const std::string& path) {
  const fd watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  const std::string limits = number_in("/proc/sys/fs/inotify/max_user_instances") + " instances, " +
                             number_in("/proc/sys/fs/inotify/max_user_watches") +
                             " watches for each user";
  if (!watch) {
    // A node then waits at a pipe, which costs its peers more than an inotify instance costs it.
    return {"inotify", health::warn, limits + ": " + std::strerror(errno),
            "sysctl fs.inotify.max_user_instances=1024"};
  }
  if (::inotify_add_watch(watch.get(), path.c_str(), IN_MOVED_TO) < 0 && errno == ENOSPC) {
    return {"inotify", health::fail, limits + ": all are used up",
            "sysctl fs.inotify.max_user_watches=65536"};
  }
  return {"inotify", health::ok, limits};
}

finding check_descriptors() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const std::string words =
      fmt::format("at most {} open files (hard limit {})", limit.rlim_cur, limit.rlim_max);
  if (limit.rlim_cur >= descriptors_enough) return {"descriptors", health::ok, words};
  return {"descriptors", limit.rlim_cur < descriptors_least ? health::fail : health::warn, words,
          "ulimit -n 4096; each peer takes about eight"};
}

finding check_limits() {
  std::string tight;
  const auto look = [&](const char* name, auto which, rlim_t enough) {
    rlimit limit{};
    ::getrlimit(which, &limit);
    if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < enough) {
      tight += fmt::format("{}{} is {}", tight.empty() ? "" : ", ", name, limit.rlim_cur);
    }
  };
  look("file size (ulimit -f)", RLIMIT_FSIZE, 1ULL << 30);
  look("address space (ulimit -v)", RLIMIT_AS, 8ULL << 30);
  look("pending signals (ulimit -i)", RLIMIT_SIGPENDING, 64);
  if (tight.empty()) return {"limits", health::ok, "file size, address space, pending signals"};
  return {"limits", health::warn, tight,
          "raise them: shared memory counts as files and as address space"};
}

finding check_memfd() {
  const fd memory(::memfd_create("bus doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory) {
    return {"memfd", health::fail, std::strerror(errno),
            "allow memfd_create (Linux 3.17; a seccomp filter may forbid it)"};
  }
  constexpr int seals = F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE;
  if (::ftruncate(memory.get(), 4096) != 0 || ::fcntl(memory.get(), F_ADD_SEALS, seals) != 0) {
    return {"memfd", health::fail, std::string("cannot be sealed: ") + std::strerror(errno),
            "run Linux 5.1 or newer"};
  }
  return {"memfd", health::ok, "can be made and sealed"};
}

finding check_signals() {
  auto made = bell::make();
  if (!made) {
    return {"wakeups", health::fail, made.error().message(),
            "raise the limit of open files, and allow eventfd and memfd"};
  }
  const auto keys = (*made)->keys();
  if (keys && keys->thread) return {"wakeups", health::ok, "semaphore, signal, eventfd"};
  return {"wakeups", health::warn, "semaphore, eventfd: no thread pidfd here",
          "none needed; Linux 6.9 wakes event loops by a signal instead"};
}

finding check_socket_path(const std::string& path) {
  // <directory>/<16 digits>.sock and a final zero.
  const std::size_t needed = path.size() + 1 + 16 + 5 + 1;
  const std::string words = fmt::format("{} of {} bytes", needed, sizeof(sockaddr_un{}.sun_path));
  if (needed <= sizeof(sockaddr_un{}.sun_path)) return {"socket path", health::ok, words};
  return {"socket path", health::warn, words + ": longer than a socket's name may be",
          "set OMNIBUS_DIR to a shorter path if shared memory is missing below"};
}

// The proof of the pudding: a node of our own, for a moment.
findings check_node(const common_options& options) {
  findings found;
  const std::int64_t begun_ns = steady_ns();
  try {
    bus::node probe({.name = "bus doctor",
                     .transports = transports::standard(),
                     .directory = directory_of(options)});
    const double took_ms = static_cast<double>(steady_ns() - begun_ns) / 1e6;
    auto& place = probe.inside().meeting_place();
    std::string ways;
    if (const auto card = place.read_card(probe.id())) {
      for (const std::string& address : card->addresses()) ways += ' ' + clean(address);
    }
    found.push_back({"node", health::ok, fmt::format("starts in {:.1f} ms;{}", took_ms, ways)});
    if (const auto links = place.read_links(probe.id())) {
      for (const std::string& trouble : links->troubles()) {
        found.push_back(
            {"node", health::warn, clean(trouble), "mend it, or do without that transport"});
      }
    }
  } catch (const error& trouble) {
    found.push_back({"node", health::fail, trouble.what(), "mend the lines above first"});
  }
  return found;
}

std::string who(const node_report& one) {
  return name_text(one) + " (" + to_hex(one.id.value) + ')';
}

void check_one(const node_report& one, findings& found) {
  if (one.card_error) {
    found.push_back({"nodes", health::warn,
                     who(one) + ": its card cannot be read: " + one.card_error.message(),
                     "run as the same user, or share the directory by a group"});
    return;
  }
  if (one.card.version() != card_version) {
    found.push_back({"versions", health::warn,
                     fmt::format("{} speaks version {}, this program {}", who(one),
                                 one.card.version(), card_version),
                     "run the same release everywhere"});
  }
  if (one.ledger_error) {
    found.push_back({"nodes", health::warn,
                     who(one) + ": its books cannot be read: " + one.ledger_error.message(),
                     "run the same release everywhere, as the same user or group"});
  }
  if (one.looks_stopped) {
    found.push_back({"nodes", health::warn,
                     fmt::format("{}: process {} is stopped", who(one), one.card.pid()),
                     fmt::format("kill -CONT {}", one.card.pid())});
  }
  for (const std::string& trouble : one.links.troubles()) {
    found.push_back(
        {"troubles", health::warn, who(one) + ": " + clean(trouble), "mend it at that node"});
  }
  for (const wire::Link& link : one.links.links()) {
    if (link.state() != "unreachable") continue;
    found.push_back({"links", health::warn,
                     who(one) + " cannot reach " + clean(link.peer_name()) + ": " + link.reason(),
                     "bus why TOPIC shows what was tried"});
  }
}

void check_nodes(const common_options& options, findings& found) {
  const rendezvous place = visit(options);
  const census seen = take_census(place);
  std::size_t alive = 0;
  std::size_t dead = 0;
  for (const node_report& one : seen.nodes) {
    alive += one.life == liveness::alive ? 1 : 0;
    dead += one.life == liveness::dead ? 1 : 0;
  }
  found.push_back({"nodes", health::ok, fmt::format("{} alive", alive)});
  if (dead > 0) {
    found.push_back({"nodes", health::warn, fmt::format("{} dead", dead), "bus gc"});
  }
  for (const node_report& one : seen.nodes) {
    if (one.life != liveness::dead) check_one(one, found);
  }
  const auto leftovers = find_leftovers(place);
  const auto left = std::count_if(leftovers.begin(), leftovers.end(),
                                  [](const leftover& one) { return !one.is_awaited; });
  if (left > 0) {
    found.push_back(
        {"leftovers", health::warn, fmt::format("{} files of the dead", left), "bus gc"});
  }
}

exit_code doctor(const common_options& options) {
  const std::string path = directory_of(options);
  findings found;
  found.push_back(check_directory(path));
  const bool there = ::access(path.c_str(), F_OK) == 0;
  const bool usable = there && found.front().how != health::fail;
  if (there) {
    found.push_back(check_space(path));
    found.push_back(check_file_system(path));
  }
  found.push_back(check_socket_path(path));
  found.push_back(check_inotify(there ? path : "/"));
  found.push_back(check_descriptors());
  found.push_back(check_limits());
  found.push_back(check_memfd());
  found.push_back(check_signals());
  if (usable) {
    check_nodes(options, found);
    for (finding& one : check_node(options)) found.push_back(std::move(one));
  }
  console out;
  bool failed = false;
  for (const finding& one : found) {
    failed = failed || one.how == health::fail;
    if (options.json) {
      const json words = {
          {"check", one.name}, {"state", name_of(one.how)}, {"words", one.words}, {"fix", one.fix}};
      out.line(words.dump(-1, ' ', false, json::error_handler_t::replace));
      continue;
    }
    const std::string state = fmt::format("{:<4}", name_of(one.how));
    out.line((one.how == health::ok     ? out.green(state)
              : one.how == health::warn ? out.yellow(state)
                                        : out.red(state)) +
             fmt::format("  {:<11}  {}", one.name, one.words));
    if (!one.fix.empty()) out.line(fmt::format("{:19}fix: {}", "", one.fix));
  }
  out.flush();
  return failed ? exit_code::not_so : exit_code::done;
}

}  // namespace

verb doctor_verb() {
  return {.name = "doctor",
          .summary = "Whether this machine and this bus directory are fit, each line with its fix",
          .example = "  bus doctor\n  bus doctor --json",
          .declare = [](CLI::App& parser) {
            const auto options = std::make_shared<common_options>();
            add_json(parser, *options);
            add_directory(parser, *options);
            return [options] { return doctor(*options); };
          }};
}

}  // namespace bus::tool
