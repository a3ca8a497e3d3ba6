#include "bus/base/enclosure.hpp"

#include <cerrno>
#include <cstddef>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bus {
namespace {

std::string onto_itself(unsigned id) {
  return std::to_string(id) + " " + std::to_string(id) + " 1\n";
}

int write_file(const char* path, std::string_view text) noexcept {
  const int file = static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC));
  if (file < 0) return errno;
  const bool is_written =
      ::syscall(SYS_write, file, text.data(), text.size()) == static_cast<long>(text.size());
  const int failed = error_unless(is_written);
  ::syscall(SYS_close, file);
  return failed;
}

// The bounding set may stay where we have no right to shrink it: nothing is gained from it without
// new privileges.
int drop_capabilities() noexcept {
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  for (unsigned long one = 0; ::prctl(PR_CAPBSET_READ, one) >= 0; ++one) {
    ::prctl(PR_CAPBSET_DROP, one, 0, 0, 0);
  }
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  const std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  return error_unless(::syscall(SYS_capset, &header, none.data()) == 0);
}

constexpr std::size_t filter_number(const filter_needs& needs) noexcept {
  return (needs.sees_all_paths ? 1U : 0U) + (needs.signals_all ? 2U : 0U);
}

// The same for every child of this program, and a millisecond's work each.
const result<std::array<seccomp_filter, 4>>& compiled_filters() {
  static const auto all = []() -> result<std::array<seccomp_filter, 4>> {
    std::array<seccomp_filter, 4> made;
    for (const bool sees_all_paths : {false, true}) {
      for (const bool signals_all : {false, true}) {
        const filter_needs needs{.sees_all_paths = sees_all_paths, .signals_all = signals_all};
        auto one = seccomp_filter::compile(needs);
        if (!one) return unexpected(one.error());
        made[filter_number(needs)] = std::move(*one);
      }
    }
    return made;
  }();
  return all;
}

}  // namespace

enclosure::enclosure(const confinement& allowed, const visible_files& visible)
    : user_map_(onto_itself(::geteuid())),
      group_map_(onto_itself(::getegid())),
      root_(visible),
      even_if_open_(allowed.even_if_open) {
  tried_.fill(true);
  for (const wall one : allowed.without) tried_[static_cast<std::size_t>(one)] = false;
}

result<enclosure> enclosure::make(const confinement& allowed, const std::string& program) {
  auto visible = visible_files::of(allowed);
  if (!visible) return unexpected(visible.error());
  auto path = visible->add_program(program);
  if (!path) return unexpected(path.error());
  enclosure made(allowed, *visible);
  made.program_ = std::move(*path);
  auto rules = landlock_rules::make();
  if (rules) {
    for (const auto& [place, file] : visible->files()) {
      // Whatever we may not open ourselves is not for the child either.
      static_cast<void>(rules->allow(place.c_str(), file.how));
    }
    made.landlock_ = std::move(*rules);
  } else {
    made.no_landlock_ = rules.error().value();
  }
  const auto& filters = compiled_filters();
  if (!filters) return unexpected(filters.error());
  made.filters_ = *filters;
  return made;
}

bool enclosure::is_tried(wall one) const noexcept { return tried_[static_cast<std::size_t>(one)]; }

// We are in it the same user as outside, and nobody else is there.
int enclosure::enter_user_namespace() noexcept {
  if (::unshare(CLONE_NEWUSER) != 0) return errno;
  // The kernel takes no map of groups from somebody who could then leave some. It is not there
  // before Linux 3.19.
  static_cast<void>(write_file("/proc/self/setgroups", "deny"));
  if (const int failed = write_file("/proc/self/uid_map", user_map_)) return failed;
  return write_file("/proc/self/gid_map", group_map_);
}

// What only the child has, by paths that mean it there. What is not there cannot be allowed.
int enclosure::apply_landlock(bool has_root) noexcept {
  if (!landlock_) return no_landlock_;
  if (has_root) static_cast<void>(landlock_->allow("/", reach::lists));
  if (has_root && root_.has_scratch()) {
    static_cast<void>(landlock_->allow(scratch_path, reach::writes));
  }
  static_cast<void>(landlock_->allow("/proc/self", reach::reads));
  return landlock_->apply();
}

seccomp_filter& enclosure::filter_for(const wall_report& report) noexcept {
  const bool are_signals_scoped = report.holds(wall::landlock) && landlock_->confines_signals();
  return filters_[filter_number({.sees_all_paths = !report.holds(wall::mount_namespace),
                                 .signals_all = !are_signals_scoped})];
}

bool enclosure::put_up(wall_report& report) noexcept {
  const auto put = [&](wall one, auto&& how) { report.of(one) = is_tried(one) ? how() : ENOSYS; };
  // The number that the kernel of our pid namespace gave: children are in the same.
  const pid_t self = ::getpid();
  put(wall::no_new_privileges,
      [] { return error_unless(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0); });
  put(wall::user_namespace, [&] { return enter_user_namespace(); });
  put(wall::network_namespace, [] { return error_unless(::unshare(CLONE_NEWNET) == 0); });
  put(wall::ipc_namespace, [] { return error_unless(::unshare(CLONE_NEWIPC) == 0); });
  put(wall::mount_namespace, [&] { return root_.enter(); });
  put(wall::landlock, [&] { return apply_landlock(report.holds(wall::mount_namespace)); });
  if (landlock_) report.landlock_abi = landlock_->abi();
  put(wall::capabilities, [] { return drop_capabilities(); });
  put(wall::seccomp, [&] { return filter_for(report).load(self); });
  return even_if_open_ || report.is_closed();
}

}  // namespace bus
