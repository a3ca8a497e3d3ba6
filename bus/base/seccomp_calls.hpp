// The names of system calls, by what a locked-in child may do with them. A name that this machine's
// architecture does not have is skipped.
#pragma once

#include <array>

namespace bus::calls {

// Whatever their arguments.
inline constexpr std::array always = {
    // memory
    "brk", "madvise", "mbind", "membarrier", "memfd_create", "mincore", "mlock", "mlock2",
    "mlockall", "mmap", "mmap2", "mprotect", "mremap", "msync", "munlock", "munlockall", "munmap",
    "pkey_alloc", "pkey_free", "pkey_mprotect", "get_mempolicy", "set_mempolicy",
    "remap_file_pages",
    // files, by path
    "access", "chdir", "creat", "faccessat", "faccessat2", "getcwd", "link", "linkat", "lstat",
    "lstat64", "mkdir", "mkdirat", "mknod", "mknodat", "newfstatat", "fstatat64", "open", "openat",
    "openat2", "readlink", "readlinkat", "rename", "renameat", "renameat2", "rmdir", "stat",
    "stat64", "statfs", "statfs64", "statx", "symlink", "symlinkat", "umask", "unlink", "unlinkat",
    // files, by descriptor
    "_llseek", "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "fadvise64",
    "fadvise64_64", "fallocate", "fchdir", "fcntl", "fcntl64", "fdatasync", "fgetxattr",
    "flistxattr", "flock", "fstat", "fstat64", "fstatfs", "fstatfs64", "fsync", "ftruncate",
    "ftruncate64", "getdents", "getdents64", "ioctl", "lseek", "pread64", "preadv", "preadv2",
    "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readv", "sendfile", "sendfile64",
    "sync", "sync_file_range", "sync_file_range2", "syncfs", "write", "writev",
    // pipes, and sockets that are there already
    "pipe", "pipe2", "splice", "tee", "vmsplice", "getpeername", "getsockname", "getsockopt",
    "recvfrom", "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "setsockopt", "shutdown",
    // waiting
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "eventfd", "eventfd2", "inotify_init", "inotify_init1", "inotify_rm_watch", "poll", "ppoll",
    "ppoll_time64", "pselect6", "pselect6_time64", "select", "_newselect", "signalfd", "signalfd4",
    "timerfd_create", "timerfd_gettime", "timerfd_settime", "timerfd_gettime64",
    "timerfd_settime64",
    // time
    "alarm", "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64",
    "clock_nanosleep", "clock_nanosleep_time64", "getitimer", "gettimeofday", "nanosleep",
    "setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
    "timer_gettime64", "timer_settime", "timer_settime64", "times",
    // signals, as they are received
    "pause", "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "sigaltstack", "sigreturn",
    // threads and processes; clone(2) is below
    "arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex",
    "futex_time64", "futex_waitv", "get_robust_list", "get_thread_area", "getcpu", "getegid",
    "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32",
    "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid",
    "getresgid32", "getresuid", "getresuid32", "getrlimit", "ugetrlimit", "getrusage", "getsid",
    "gettid", "getuid", "getuid32", "ioprio_get", "pidfd_send_signal", "prctl", "rseq",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
    "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64",
    "sched_yield", "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsuid",
    "setgid", "setgroups", "setpgid", "setregid", "setresgid", "setresuid", "setreuid", "setrlimit",
    "setsid", "setuid", "sysinfo", "uname", "vfork", "wait4", "waitid", "waitpid",
    // locking itself in further
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp"};

// Unless the child sees all paths: what changes a file without opening it for that, or shows one
// without opening it.
inline constexpr std::array of_attributes = {
    "chmod",    "chown",     "chown32",           "fchmod", "fchmodat", "fchown",   "fchown32",
    "fchownat", "futimesat", "inotify_add_watch", "lchown", "lchown32", "truncate", "truncate64",
    "utime",    "utimensat", "utimensat_time64",  "utimes"};
// Instead of EPERM they say then that the file system has no such thing, which programs expect.
inline constexpr std::array of_extended_attributes = {
    "fremovexattr", "fsetxattr",    "getxattr",  "lgetxattr",   "listxattr",
    "llistxattr",   "lremovexattr", "lsetxattr", "removexattr", "setxattr"};

// If signals are scoped; else to itself alone, which is the first argument. Handles of processes it
// has then of itself and of those that it starts, so that it may signal these by them.
inline constexpr std::array of_signals = {
    "kill", "pidfd_open", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "tgkill", "tkill"};

// With the caller as the first argument: 0, or its number.
inline constexpr std::array of_itself = {"prlimit64", "sched_setaffinity", "sched_setattr",
                                         "sched_setparam", "sched_setscheduler"};

}  // namespace bus::calls
