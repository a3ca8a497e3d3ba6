// Real users for tests: a child of the test takes other ids and keeps them. The numbers are
// nobody's on any machine; no account is needed, since the kernel knows only numbers.
//
// Only root can become somebody else, so each test begins with `if (!is_root()) return;`, which
// says so where it cannot run.
#pragma once

#include "tests/fault/processes.hpp"

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <vector>

#include <grp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace security {

using contract::must;

inline constexpr uid_t alice = 21001;
inline constexpr uid_t bob = 21002;
inline constexpr uid_t mallory = 21003;
inline constexpr gid_t own_group = 21999;  // of all of them, and of no directory
inline constexpr gid_t bus_group = 22000;  // of the bus directory

inline bool is_root() {
  if (::geteuid() == 0) return true;
  WARN("only root can become other users: not tested");
  return false;
}

// A process with a second thread may not enter one.
inline bool has_user_namespaces() {
  if (!contract::has_second_thread) return true;
  WARN("ThreadSanitizer has a thread of its own: not tested in a user namespace");
  return false;
}

// For ever, with these groups and no other. A member of the bus group, or not.
inline void become(uid_t user, const std::vector<gid_t>& groups = {bus_group}) {
  must(::setgroups(groups.size(), groups.data()) == 0, "setgroups");
  must(::setresgid(own_group, own_group, own_group) == 0, "setresgid");
  must(::setresuid(user, user, user) == 0, "setresuid");
  // As after an exec by that user; a change of ids takes both away.
  must(::prctl(PR_SET_DUMPABLE, 1) == 0, "dumpable");
  must(::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "parent death");
}

inline void write_to(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  must(file.good(), "cannot write " + path);
}

// Root in a user namespace of its own, and nobody more than before outside: `unshare
// --map-root-user`. Requires: has_user_namespaces().
inline void become_root_inside() {
  const std::string user = std::to_string(::geteuid());
  const std::string group = std::to_string(::getegid());
  must(::unshare(CLONE_NEWUSER) == 0, "unshare");
  write_to("/proc/self/setgroups", "deny");
  write_to("/proc/self/uid_map", "0 " + user + " 1");
  write_to("/proc/self/gid_map", "0 " + group + " 1");
  must(::geteuid() == 0, "not root inside");
}

// Opens a directory to the bus group, as `chgrp GROUP DIR && chmod 2770 DIR`.
inline void give_to_group(const std::string& directory) {
  must(::chown(directory.c_str(), 0, bus_group) == 0, "chown");
  must(::chmod(directory.c_str(), 02770) == 0, "chmod");
}

}  // namespace security
