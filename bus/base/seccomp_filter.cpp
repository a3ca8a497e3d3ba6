#include "bus/base/seccomp_filter.hpp"

#include "bus/base/fd.hpp"
#include "bus/base/seccomp_calls.hpp"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>

#include <fcntl.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bus {
namespace {

// Stands for the child until that has a number: above all that the kernel gives (2^22).
constexpr std::uint32_t the_child = 0x7e11'0c4d;

// The kernel reads the lower half of such an argument.
constexpr std::uint64_t as_int = 0xffff'ffff;
constexpr std::uint64_t kind_of_ioctl = 0xff00;

// Of Linux 6.5.
constexpr std::uint64_t so_passpidfd = 76;
constexpr std::uint64_t so_peerpidfd = 77;

// From the first on new calls have the same number everywhere. Those that libseccomp does not know
// yet are refused as if the kernel did not either, so that libc does without; and so are as many as
// will hardly be added while this is in use.
constexpr int calls_new = 424;
constexpr int calls_ahead = 600;

constexpr std::uint64_t new_relations = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS |
                                        CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET |
                                        CLONE_PARENT;

// One filter while it is made. The first trouble is kept.
class draft {
 public:
  explicit draft(std::uint32_t otherwise) : context_(seccomp_init(otherwise)) {
    if (!context_) failed_ = ENOMEM;
    // Another architecture's calls have other numbers.
    keep(seccomp_attr_set(context_.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS));
    // A binary tree; else a call would be compared with all that come before it.
    keep(seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2));
  }

  template <class... Conditions>
  void add(std::uint32_t action, const char* name, Conditions... conditions) {
    const int number = seccomp_syscall_resolve_name(name);
    if (number >= 0) add(action, number, conditions...);
  }
  template <class... Conditions>
  void add(std::uint32_t action, int number, Conditions... conditions) {
    keep(seccomp_rule_add(context_.get(), action, number, sizeof...(conditions), conditions...));
  }
  template <class List>
  void add_all(std::uint32_t action, const List& names) {
    for (const char* name : names) add(action, name);
  }

  result<std::vector<sock_filter>> finish() {
    const fd file(::memfd_create("seccomp", MFD_CLOEXEC));
    if (!file) return unexpected(last_system_error());
    keep(seccomp_export_bpf(context_.get(), file.get()));
    if (failed_ != 0) return unexpected(system_error_of(failed_));
    struct stat about {};
    if (::fstat(file.get(), &about) != 0) return unexpected(last_system_error());
    std::vector<sock_filter> program(static_cast<std::size_t>(about.st_size) / sizeof(sock_filter));
    const std::size_t bytes = program.size() * sizeof(sock_filter);
    if (::pread(file.get(), program.data(), bytes, 0) != static_cast<ssize_t>(bytes)) {
      return unexpected(std::make_error_code(std::errc::io_error));
    }
    return program;
  }

 private:
  struct release {
    void operator()(void* context) const noexcept { seccomp_release(context); }
  };
  void keep(int answer) noexcept {
    if (answer < 0 && failed_ == 0) failed_ = -answer;
  }

  std::unique_ptr<void, release> context_;
  int failed_ = 0;
};

scmp_arg_cmp is(unsigned argument, std::uint64_t mask, std::uint64_t value) {
  return {.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
}

void allow_to_itself(draft& filter) {
  for (const std::uint32_t who : {0U, the_child}) {
    for (const char* name : calls::of_itself) filter.add(SCMP_ACT_ALLOW, name, is(0, as_int, who));
    // Of a process; not of a group, nor of all that a user has.
    filter.add(SCMP_ACT_ALLOW, "setpriority", is(0, as_int, 0), is(1, as_int, who));
    filter.add(SCMP_ACT_ALLOW, "ioprio_set", is(0, as_int, 1), is(1, as_int, who));
  }
}

void allow_certain(draft& filter) {
  filter.add(SCMP_ACT_ALLOW, "clone", is(0, new_relations, 0));
  filter.add(SCMP_ACT_ERRNO(ENOSYS), "clone3");  // its flags are in memory
  // Datagrams of a pair could be sent to any socket that has a name.
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    filter.add(SCMP_ACT_ALLOW, "socketpair", is(0, as_int, AF_UNIX),
               is(1, 0xf, static_cast<std::uint64_t>(type)));
  }
  filter.add(SCMP_ACT_ALLOW, "sendto", is(4, ~0ULL, 0));  // send(2)
  // To ask, and what sanitizers want.
  for (const std::uint64_t how : {as_int, std::uint64_t{0}, std::uint64_t{ADDR_NO_RANDOMIZE}}) {
    filter.add(SCMP_ACT_ALLOW, "personality", is(0, as_int, how));
  }
}

result<std::vector<sock_filter>> allowing(const filter_needs& needs) {
  draft filter(SCMP_ACT_ERRNO(EPERM));
  filter.add_all(SCMP_ACT_ALLOW, calls::always);
  filter.add_all(needs.sees_all_paths ? SCMP_ACT_ERRNO(EOPNOTSUPP) : SCMP_ACT_ALLOW,
                 calls::of_extended_attributes);
  if (!needs.sees_all_paths) filter.add_all(SCMP_ACT_ALLOW, calls::of_attributes);
  if (needs.signals_all) {
    for (const char* name : calls::of_signals) {
      filter.add(SCMP_ACT_ALLOW, name, is(0, as_int, the_child));
    }
  } else {
    filter.add_all(SCMP_ACT_ALLOW, calls::of_signals);
  }
  allow_to_itself(filter);
  allow_certain(filter);
  for (int number = calls_new; number < calls_ahead; ++number) {
    char* const name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
    const std::unique_ptr<char, decltype(&::free)> kept(name, &::free);
    if (!name) filter.add(SCMP_ACT_ERRNO(ENOSYS), number);
  }
  return filter.finish();
}

result<std::vector<sock_filter>> refusing(const filter_needs& needs) {
  draft filter(SCMP_ACT_ALLOW);
  const auto refuse_ioctl = [&](std::uint64_t request) {
    filter.add(SCMP_ACT_ERRNO(EPERM), "ioctl", is(1, as_int, request));
  };
  const auto refuse_fcntl = [&](int command) {
    for (const char* name : {"fcntl", "fcntl64"}) {
      filter.add(SCMP_ACT_ERRNO(EPERM), name, is(1, as_int, static_cast<std::uint64_t>(command)));
    }
  };
  refuse_ioctl(TIOCSTI);  // types into our terminal
  refuse_ioctl(TIOCLINUX);
  refuse_fcntl(F_SETLEASE);  // makes others wait who want to write
  if (needs.signals_all) {
    // The kernel signals on its behalf.
    refuse_ioctl(FIOSETOWN);
    refuse_ioctl(SIOCSPGRP);
    refuse_fcntl(F_SETOWN);
    refuse_fcntl(F_SETOWN_EX);
    // A socket that it was given knows who made it.
    for (const auto& [name, option] :
         {std::pair("getsockopt", so_peerpidfd), std::pair("setsockopt", so_passpidfd)}) {
      filter.add(SCMP_ACT_ERRNO(EPERM), name, is(1, as_int, SOL_SOCKET), is(2, as_int, option));
    }
  }
  if (needs.sees_all_paths) {
    // Those of file systems: 'f' (flags, encryption), 'X' and btrfs's change what is only read.
    for (const std::uint64_t kind : {0x6600U, 0x5800U, 0x9400U}) {
      filter.add(SCMP_ACT_ERRNO(ENOTTY), "ioctl", is(1, kind_of_ioctl, kind));
    }
  }
  return filter.finish();
}

int load_program(std::vector<sock_filter>& program) noexcept {
  const sock_fprog whole{.len = static_cast<unsigned short>(program.size()),
                         .filter = program.data()};
  constexpr unsigned set_mode_filter = 1;  // SECCOMP_SET_MODE_FILTER
  return ::syscall(SYS_seccomp, set_mode_filter, 0, &whole) == 0 ? 0 : errno;
}

}  // namespace

result<seccomp_filter> seccomp_filter::compile(const filter_needs& needs) {
  seccomp_filter made;
  auto first = allowing(needs);
  if (!first) return unexpected(first.error());
  auto second = refusing(needs);
  if (!second) return unexpected(second.error());
  made.allowing_ = std::move(*first);
  made.refusing_ = std::move(*second);
  return made;
}

int seccomp_filter::load(pid_t self) noexcept {
  for (sock_filter& one : allowing_) {
    if (BPF_CLASS(one.code) == BPF_JMP && one.k == the_child) {
      one.k = static_cast<std::uint32_t>(self);
    }
  }
  if (const int failed = load_program(refusing_)) return failed;
  return load_program(allowing_);
}

}  // namespace bus
