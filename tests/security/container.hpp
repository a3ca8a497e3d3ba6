// A container made by hand, of what the kernel has: namespaces, a read-only root with a /dev/shm of
// 64 MB, no capability, no way to get one, the calls that Docker's default profile forbids, and a
// memory cgroup. Two of them share one directory, mounted at /bus, and nothing else.
#pragma once

#include "tests/fault/refusals.hpp"
#include "tests/security/users.hpp"

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>

#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace security {

// A memory cgroup of the test's own, of whichever version this machine mounts.
class memory_cgroup {
 public:
  // Nothing where there is no such cgroup, or it may not be made.
  [[nodiscard]] static std::optional<memory_cgroup> make(const std::string& name,
                                                         std::uint64_t bytes_max) {
    for (const char* const mount : {"/sys/fs/cgroup/memory", "/sys/fs/cgroup"}) {
      memory_cgroup made(std::string(mount) + "/" + name);
      if (::mkdir(made.path_.c_str(), 0755) != 0) continue;
      made.is_ours_ = true;
      const bool is_first = std::filesystem::exists(made.path_ + "/memory.limit_in_bytes");
      const char* const limit = is_first ? "/memory.limit_in_bytes" : "/memory.max";
      std::ofstream file(made.path_ + limit);
      file << bytes_max << std::flush;
      if (file.good()) return made;
    }
    return std::nullopt;
  }
  memory_cgroup(memory_cgroup&& other) noexcept
      : path_(std::move(other.path_)), is_ours_(std::exchange(other.is_ours_, false)) {}
  memory_cgroup& operator=(memory_cgroup&&) = delete;
  ~memory_cgroup() {
    if (is_ours_) ::rmdir(path_.c_str());
  }

  void enter() const { write_to(path_ + "/cgroup.procs", std::to_string(::getpid())); }
  // How many processes the kernel has killed in it.
  [[nodiscard]] std::uint64_t killed() const {
    for (const char* const name : {"/memory.oom_control", "/memory.events"}) {
      std::ifstream file(path_ + name);
      std::string word;
      std::uint64_t number = 0;
      while (file >> word >> number) {
        if (word == "oom_kill") return number;
      }
    }
    return 0;
  }

 private:
  explicit memory_cgroup(std::string path) : path_(std::move(path)) {}
  std::string path_;
  bool is_ours_ = false;
};

struct container_options {
  std::string shared;  // the one directory that it has in common with others; at /bus
  std::string root;    // an empty directory of its own
  uid_t user = alice;
  const memory_cgroup* limit = nullptr;
  bool as_inner_root = false;  // root of a user namespace, as with userns-remap or rootless
};

inline void mount_at(const std::string& from, const std::string& to, const char* type,
                     unsigned long flags, const char* data = nullptr) {
  std::error_code ignored;
  std::filesystem::create_directories(to, ignored);
  must(::mount(from.c_str(), to.c_str(), type, flags, data) == 0, "mount " + to);
}

// The root: what programs need to read, a /proc and a /dev of its own, and the bus.
inline void build_root(const container_options& how) {
  must(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private");
  mount_at("tmpfs", how.root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755");
  for (const char* const folder : {"/usr", "/sys"}) {
    mount_at(folder, how.root + folder, nullptr, MS_BIND | MS_REC);
  }
  mount_at("proc", how.root + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC);
  mount_at("tmpfs", how.root + "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "size=64m,mode=1777");
  mount_at(how.shared, how.root + "/bus", nullptr, MS_BIND);
  std::error_code ignored;
  std::filesystem::create_directory_symlink("usr/lib", how.root + "/lib", ignored);
  std::filesystem::create_directory_symlink("usr/lib64", how.root + "/lib64", ignored);
  must(::mount(nullptr, how.root.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) == 0,
       "read-only");
  must(::chdir(how.root.c_str()) == 0, "chdir");
  must(::syscall(SYS_pivot_root, ".", ".") == 0, "pivot_root");
  must(::umount2(".", MNT_DETACH) == 0, "umount");
  must(::chdir("/") == 0, "chdir");
  must(::mkdir("/writable", 0700) != 0 && errno == EROFS, "the root can be written");
}

// docker run --cap-drop=ALL --security-opt=no-new-privileges, and the default seccomp profile: what
// it forbids without capabilities, and clone3, which it says is not there.
inline void give_up_rights(const container_options& how) {
  for (int each = 0; each <= CAP_LAST_CAP; ++each) {
    // EINVAL: the kernel has fewer than the headers.
    must(::prctl(PR_CAPBSET_DROP, each, 0, 0, 0) == 0 || errno == EINVAL, "bounding set");
  }
  become(how.user);
  if (how.as_inner_root) become_root_inside();
  must(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
  fault::refuse({SYS_clone3}, ENOSYS);
  fault::refuse({SYS_unshare,
                 SYS_setns,
                 SYS_mount,
                 SYS_umount2,
                 SYS_pivot_root,
                 SYS_chroot,
                 SYS_bpf,
                 SYS_perf_event_open,
                 SYS_keyctl,
                 SYS_add_key,
                 SYS_request_key,
                 SYS_kexec_load,
                 SYS_init_module,
                 SYS_finit_module,
                 SYS_delete_module,
                 SYS_userfaultfd,
                 SYS_move_pages,
                 SYS_mbind,
                 SYS_set_mempolicy,
                 SYS_get_mempolicy,
                 SYS_migrate_pages,
                 SYS_quotactl,
                 SYS_reboot,
                 SYS_swapon,
                 SYS_swapoff,
                 SYS_acct,
                 SYS_syslog,
                 SYS_settimeofday,
                 SYS_clock_settime,
                 SYS_clock_adjtime,
                 SYS_iopl,
                 SYS_ioperm,
                 SYS_open_by_handle_at,
                 SYS_fanotify_init,
                 SYS_lookup_dcookie,
                 SYS_vhangup,
                 SYS_io_uring_setup,
                 SYS_io_uring_enter,
                 SYS_io_uring_register,
                 SYS_fsopen,
                 SYS_fsmount,
                 SYS_move_mount,
                 SYS_open_tree,
                 SYS_sethostname,
                 SYS_setdomainname,
                 SYS_personality},
                EPERM);
}

// Runs `body` in a container; what it returns is the exit status, as fault::child says it.
inline void run_in_container(const container_options& how, const fault::child::body& body,
                             fault::channel& parent) {
  if (how.limit) how.limit->enter();
  must(::unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS) == 0,
       "unshare");
  // The first process of the new pid namespace; this one waits for it.
  std::fflush(nullptr);
  const pid_t first = ::fork();
  must(first >= 0, "fork");
  if (first == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::_exit(fault::child::run(
        [&](fault::channel&) {
          build_root(how);
          give_up_rights(how);
          body(parent);
        },
        fault::channel(bus::fd())));
  }
  int status = 0;
  while (::waitpid(first, &status, 0) < 0 && errno == EINTR) {
  }
  must(WIFEXITED(status) && WEXITSTATUS(status) == 0,
       WIFSIGNALED(status) ? "killed by signal " + std::to_string(WTERMSIG(status)) : "it failed");
}

}  // namespace security
