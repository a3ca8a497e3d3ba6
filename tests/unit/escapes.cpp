#include "tests/unit/escapes.hpp"

#include "bus/base/fd.hpp"

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace tests {
namespace {

using bus::fd;

int error_unless(bool done) { return done ? 0 : errno; }

std::string in(const target_layout& at, const char* name) {
  return std::string(at.directory.data()) + "/" + name;
}

int read_from(const std::string& path) {
  const fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char byte = 0;
  return error_unless(file && ::read(file.get(), &byte, 1) >= 0);
}

int open_for(const std::string& path, int flags) {
  return error_unless(fd(::open(path.c_str(), flags | O_CLOEXEC, 0600)).get() >= 0);
}

template <class Address>
int send_to(int family, int type, const Address& address, std::size_t size) {
  const fd socket(::socket(family, type | SOCK_CLOEXEC, 0));
  if (!socket) return errno;
  const auto* where = reinterpret_cast<const sockaddr*>(&address);
  if (type == SOCK_DGRAM) {
    return error_unless(::sendto(socket.get(), "x", 1, 0, where, static_cast<socklen_t>(size)) ==
                        1);
  }
  return error_unless(::connect(socket.get(), where, static_cast<socklen_t>(size)) == 0);
}

siginfo_t queued(int number) {
  siginfo_t about{};
  about.si_signo = number;
  about.si_code = SI_QUEUE;
  about.si_pid = ::getpid();
  about.si_uid = ::getuid();
  return about;
}

const std::vector<attempt> files = {
    {"read a file", way::files, true, [](auto& at) { return read_from(in(at, "secret")); }},
    {"list the directory", way::files, true,
     [](auto& at) { return open_for(at.directory.data(), O_RDONLY | O_DIRECTORY); }},
    {"write a file", way::files, true,
     [](auto& at) { return open_for(in(at, "secret"), O_WRONLY); }},
    {"make a file", way::files, true,
     [](auto& at) { return open_for(in(at, "made"), O_WRONLY | O_CREAT | O_EXCL); }},
    {"make a directory", way::files, true,
     [](auto& at) { return error_unless(::mkdir(in(at, "room").c_str(), 0700) == 0); }},
    {"make a link", way::files, true,
     [](auto& at) {
       return error_unless(::link(in(at, "secret").c_str(), in(at, "linked").c_str()) == 0);
     }},
    {"make a symbolic link", way::files, true,
     [](auto& at) { return error_unless(::symlink("secret", in(at, "pointer").c_str()) == 0); }},
    {"remove a file", way::files, true,
     [](auto& at) { return error_unless(::unlink(in(at, "victim").c_str()) == 0); }},
    {"rename a file", way::files, true,
     [](auto& at) {
       return error_unless(::rename(in(at, "moved").c_str(), in(at, "away").c_str()) == 0);
     }},
    {"truncate a file", way::files, true,
     [](auto& at) { return error_unless(::truncate(in(at, "empty").c_str(), 0) == 0); }},
    {"change a file's mode", way::files, true,
     [](auto& at) { return error_unless(::chmod(in(at, "secret").c_str(), 0640) == 0); }},
    {"change a file's owner", way::files, true,
     [](auto& at) {
       return error_unless(::chown(in(at, "secret").c_str(), ::geteuid(), ::getegid()) == 0);
     }},
    {"change a file's times", way::files, true,
     [](auto& at) {
       return error_unless(::utimensat(AT_FDCWD, in(at, "secret").c_str(), nullptr, 0) == 0);
     }},
    {"change a file's attributes", way::files, false,
     [](auto& at) {
       return error_unless(::setxattr(in(at, "secret").c_str(), "user.a", "b", 1, 0) == 0);
     }},
    {"watch the directory", way::files, true,
     [](auto& at) {
       const fd watch(::inotify_init1(IN_CLOEXEC));
       return error_unless(::inotify_add_watch(watch.get(), at.directory.data(), IN_CREATE) >= 0);
     }},
    {"read a file by the parent's root", way::files, false,
     [](auto& at) {
       return read_from("/proc/" + std::to_string(at.parent) + "/root" + in(at, "secret"));
     }},
    {"read a file by a handle", way::files, false,
     [](auto& at) {
       alignas(file_handle) std::array<char, sizeof(file_handle) + MAX_HANDLE_SZ> room{};
       auto* handle = reinterpret_cast<file_handle*>(room.data());
       handle->handle_bytes = MAX_HANDLE_SZ;
       int mount = 0;
       const char* const path = at.directory.data();
       if (::name_to_handle_at(AT_FDCWD, path, handle, &mount, 0) != 0) return errno;
       const fd place(::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
       return error_unless(
           fd(::open_by_handle_at(place.get(), handle, O_RDONLY | O_CLOEXEC)).get() >= 0);
     }},
    {"see a file", way::names, true,
     [](auto& at) {
       struct stat about {};
       return error_unless(::stat(in(at, "secret").c_str(), &about) == 0);
     }},
};

const std::vector<attempt> network = {
    {"connect to a socket by path", way::network, true,
     [](auto& at) {
       const sockaddr_un address = address_of(in(at, "stream"));
       return send_to(AF_UNIX, SOCK_STREAM, address, sizeof address);
     }},
    {"send to a socket by path", way::network, true,
     [](auto& at) {
       const sockaddr_un address = address_of(in(at, "datagrams"));
       return send_to(AF_UNIX, SOCK_DGRAM, address, sizeof address);
     }},
    {"send to a socket by path, from a pair", way::network, true,
     [](auto& at) {
       std::array<int, 2> pair{};
       if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair.data()) != 0) return errno;
       const fd one(pair[0]);
       const fd other(pair[1]);
       sockaddr_un address = address_of(in(at, "datagrams"));
       iovec byte{.iov_base = address.sun_path, .iov_len = 1};
       msghdr message{};
       message.msg_name = &address;
       message.msg_namelen = sizeof address;
       message.msg_iov = &byte;
       message.msg_iovlen = 1;
       return error_unless(::sendmsg(one.get(), &message, 0) == 1);
     }},
    {"connect to an abstract socket", way::network, true,
     [](auto& at) {
       sockaddr_un address{};
       const std::size_t size = abstract_address(at.abstract.data(), address);
       return send_to(AF_UNIX, SOCK_STREAM, address, size);
     }},
    {"connect by TCP", way::network, true,
     [](auto& at) {
       const sockaddr_in address = loopback_address(at.tcp);
       return send_to(AF_INET, SOCK_STREAM, address, sizeof address);
     }},
    {"send by UDP", way::network, true,
     [](auto& at) {
       const sockaddr_in address = loopback_address(at.udp);
       return send_to(AF_INET, SOCK_DGRAM, address, sizeof address);
     }},
};

const std::vector<attempt> processes = {
    {"kill", way::processes, true,
     [](auto& at) { return error_unless(::kill(at.parent, signal_number(0)) == 0); }},
    {"tgkill", way::processes, true,
     [](auto& at) {
       return error_unless(::syscall(SYS_tgkill, at.parent, at.parent, signal_number(1)) == 0);
     }},
    {"rt_sigqueueinfo", way::processes, true,
     [](auto& at) {
       const siginfo_t about = queued(signal_number(2));
       return error_unless(::syscall(SYS_rt_sigqueueinfo, at.parent, signal_number(2), &about) ==
                           0);
     }},
    {"pidfd_send_signal", way::processes, true,
     [](auto& at) {
       const fd handle(static_cast<int>(::syscall(SYS_pidfd_open, at.parent, 0)));
       return error_unless(
           ::syscall(SYS_pidfd_send_signal, handle.get(), signal_number(3), nullptr, 0) == 0);
     }},
    {"trace", way::processes, false,
     [](auto& at) { return error_unless(::ptrace(PTRACE_SEIZE, at.parent, nullptr, 0) == 0); }},
    {"read memory", way::processes, false,
     [](auto& at) {
       char byte = 0;
       const iovec here{.iov_base = &byte, .iov_len = 1};
       const iovec there{.iov_base = reinterpret_cast<void*>(at.secret_at), .iov_len = 1};
       return error_unless(::process_vm_readv(at.parent, &here, 1, &there, 1, 0) == 1);
     }},
    {"read the environment", way::processes, false,
     [](auto& at) { return read_from("/proc/" + std::to_string(at.parent) + "/environ"); }},
    {"open its memory", way::processes, false,
     [](auto& at) { return open_for("/proc/" + std::to_string(at.parent) + "/mem", O_RDONLY); }},
    {"take a descriptor", way::processes, false,
     [](auto& at) {
       const fd handle(static_cast<int>(::syscall(SYS_pidfd_open, at.parent, 0)));
       return error_unless(
           fd(static_cast<int>(::syscall(SYS_pidfd_getfd, handle.get(), 0, 0))).get() >= 0);
     }},
    {"make it nicer", way::processes, true,
     [](auto& at) {
       const auto who = static_cast<id_t>(at.parent);
       errno = 0;
       const int nice = ::getpriority(PRIO_PROCESS, who);
       return errno != 0 ? errno : error_unless(::setpriority(PRIO_PROCESS, who, nice) == 0);
     }},
    {"move it to other cores", way::processes, true,
     [](auto& at) {
       cpu_set_t cores;
       if (::sched_getaffinity(at.parent, sizeof cores, &cores) != 0) return errno;
       return error_unless(::sched_setaffinity(at.parent, sizeof cores, &cores) == 0);
     }},
    {"limit it", way::processes, true,
     [](auto& at) {
       rlimit64 now{};
       return error_unless(::syscall(SYS_prlimit64, at.parent, RLIMIT_NOFILE, nullptr, &now) == 0 &&
                           ::syscall(SYS_prlimit64, at.parent, RLIMIT_NOFILE, &now, nullptr) == 0);
     }},
    {"attach its shared memory", way::processes, true,
     [](auto& at) {
       void* const memory = ::shmat(at.shared_memory, nullptr, SHM_RDONLY);
       if (memory == reinterpret_cast<void*>(-1)) return errno;
       ::shmdt(memory);
       return 0;
     }},
    {"become its child's sibling", way::processes, true,
     [](auto&) {
       const long made = ::syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
       if (made == 0) ::_exit(0);
       return error_unless(made > 0);
     }},
};

const std::vector<attempt> kernel = {
    {"mount", way::kernel, false,
     [](auto& at) {
       const std::string place = in(at, "mounted");
       if (::mount("tmpfs", place.c_str(), "tmpfs", 0, nullptr) != 0) return errno;
       ::umount2(place.c_str(), MNT_DETACH);
       return 0;
     }},
    {"clone into a user namespace", way::kernel, false,
     [](auto&) {
       const long made = ::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
       if (made == 0) ::_exit(0);
       if (made > 0) ::waitpid(static_cast<pid_t>(made), nullptr, 0);
       return error_unless(made > 0);
     }},
    {"set up an io_uring", way::kernel, false,
     [](auto&) {
       io_uring_params how{};
       return error_unless(fd(static_cast<int>(::syscall(SYS_io_uring_setup, 4, &how))).get() >= 0);
     }},
    {"read the keyring", way::kernel, false,
     [](auto&) {
       return error_unless(
           ::syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1) >= 0);
     }},
    {"type into the terminal", way::kernel, false,
     [](auto&) {
       ::setsid();
       ::ioctl(terminal_fd, TIOCSCTTY, 0);
       return error_unless(::ioctl(terminal_fd, TIOCSTI, "x") == 0);
     }},
    {"type into the terminal, with more bits", way::kernel, false,
     [](auto&) {
       constexpr unsigned long more = 1UL << 32;
       return error_unless(::syscall(SYS_ioctl, terminal_fd, TIOCSTI | more, "x") == 0);
     }},
    // The last one: it takes away what others need.
    {"leave for a user namespace", way::kernel, false,
     [](auto&) { return error_unless(::unshare(CLONE_NEWUSER) == 0); }},
};

// The kernel sends it when there is something to read.
void signal_through_a_pipe(const target_layout& at) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return;
  ::fcntl(ends[0], F_SETOWN, at.parent);
  ::fcntl(ends[0], F_SETSIG, signal_number(4));
  ::fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK);
  static_cast<void>(::write(ends[1], "x", 1) == 1);
  for (const int one : ends) ::close(one);
}

}  // namespace

const std::vector<attempt>& attempts() {
  static const std::vector<attempt> all = [] {
    std::vector<attempt> made;
    for (const auto* some : {&files, &network, &processes, &kernel}) {
      made.insert(made.end(), some->begin(), some->end());
    }
    return made;
  }();
  return all;
}

int signal_number(int which) { return SIGRTMIN + which; }

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

std::size_t abstract_address(const char* name, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path + 1, name, sizeof address.sun_path - 2);
  return offsetof(sockaddr_un, sun_path) + 1 + std::strlen(name);
}

sockaddr_in loopback_address(in_port_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = port;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void try_all() {
  target_layout at{};
  if (::pread(target_fd, &at, sizeof at, 0) != sizeof at) ::_exit(3);
  signal_through_a_pipe(at);
  std::string said;
  for (const attempt& one : attempts()) {
    said += std::string(one.name) + "\t" + std::to_string(one.made(at)) + "\n";
  }
  if (::write(results_fd, said.data(), said.size()) != static_cast<ssize_t>(said.size())) {
    ::_exit(4);
  }
}

}  // namespace tests
