// The new root is a small tmpfs, into which trees of the old one are mounted. All trees are taken
// before the tmpfs is mounted over some directory, so it does not matter what that hides, and until
// the last step there is nothing to undo but this one mount.
#include "bus/base/private_root.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bus {
namespace {

constexpr const char* building_site = "/usr";  // any directory that each system has
// Both are guesses; the inodes are as many as there are pages in 64 MiB.
constexpr const char* root_options = "mode=0755,size=1m,nr_inodes=4k";
constexpr const char* scratch_options = "mode=1777,size=64m,nr_inodes=16k";

std::uint64_t attributes_of(reach how) noexcept {
  switch (how) {
    case reach::writes:
      return MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    case reach::device:  // devices are written to as if they were not mounted read-only
      return MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY;
    case reach::lists:
    case reach::reads:
      break;
  }
  return MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY;
}

std::string parent_of(std::string_view path) {
  return std::string(path.substr(0, path.rfind('/')));
}

// The visible tree in which this lies, if there is one.
const visible_file* tree_around(const visible_files& visible, std::string path) {
  while (!(path = parent_of(path)).empty()) {
    const auto found = visible.files().find(path);
    if (found != visible.files().end()) return &found->second;
  }
  return nullptr;
}

// A copy of the tree with stricter attributes, mounted nowhere yet; or -1 and errno.
int take_tree(const char* source, std::uint64_t attributes) noexcept {
  const int tree =
      ::open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
  if (tree < 0) return -1;
  mount_attr stricter{};
  stricter.attr_set = attributes;
  if (::mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &stricter, sizeof stricter) == 0) {
    return tree;
  }
  const int failed = errno;
  ::syscall(SYS_close, tree);
  errno = failed;
  return -1;
}

int place_tree(int tree, const char* place) noexcept {
  return error_unless(::move_mount(tree, "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH) == 0);
}

}  // namespace

private_root::private_root(const visible_files& visible)
    : has_scratch_(!visible.covers(scratch_path)),
      has_proc_(!visible.covers("/proc") && ::access("/proc/self", F_OK) == 0) {
  std::error_code nowhere;
  directory_ = std::filesystem::current_path(nowhere).string();
  if (has_scratch_) {
    add_parents(std::string(scratch_path) + "/");
    pieces_.push_back({.what = piece::kind::scratch, .place = scratch_path + 1});
    add_link("/dev/shm", scratch_path, visible);  // where libc keeps named semaphores
  }
  if (has_proc_) {
    add_parents("/proc/");
    add_link("/dev/fd", "/proc/self/fd", visible);
    add_link("/dev/stdin", "/proc/self/fd/0", visible);
    add_link("/dev/stdout", "/proc/self/fd/1", visible);
    add_link("/dev/stderr", "/proc/self/fd/2", visible);
  }
  for (const auto& [path, target] : visible.links()) add_link(path, target, visible);
  for (const auto& [path, file] : visible.files()) add_mount(path, file, visible);
}

void private_root::add_parents(const std::string& path) {
  for (std::size_t end = path.find('/', 1); end != std::string::npos;
       end = path.find('/', end + 1)) {
    std::string place = path.substr(1, end - 1);
    if (!made_.insert(place).second) continue;
    pieces_.push_back({.what = piece::kind::directory, .place = std::move(place)});
  }
}

void private_root::add_link(const std::string& path, const std::string& target,
                            const visible_files& visible) {
  if (visible.covers(path) || !made_.insert(path.substr(1)).second) return;
  add_parents(path);
  pieces_.push_back({.what = piece::kind::link, .place = path.substr(1), .source = target});
}

void private_root::add_mount(const std::string& path, visible_file file,
                             const visible_files& visible) {
  std::string place = path.substr(1);
  if (const visible_file* around = tree_around(visible, path)) {
    // There already, and only for reading (or, if that is a device, as no device).
    const bool is_less = file.how != reach::reads && file.how != around->how;
    if (!is_less) return;
  } else if (file.is_directory) {
    add_parents(path + "/");
  } else {
    add_parents(path);
    pieces_.push_back({.what = piece::kind::file, .place = place});
  }
  pieces_.push_back({.what = piece::kind::mount,
                     .place = std::move(place),
                     .source = path,
                     .attributes = attributes_of(file.how)});
}

int private_root::take_trees() noexcept {
  for (piece& one : pieces_) {
    if (one.what != piece::kind::mount) continue;
    one.tree = take_tree(one.source.c_str(), one.attributes);
    if (one.tree < 0) return errno;
  }
  if (!has_proc_) return 0;
  proc_ = take_tree("/proc/self", attributes_of(reach::reads) | MOUNT_ATTR_NOEXEC);
  return error_unless(proc_ >= 0);
}

void private_root::close_trees() noexcept {
  for (piece& one : pieces_) {
    if (one.tree >= 0) ::syscall(SYS_close, std::exchange(one.tree, -1));
  }
  if (proc_ >= 0) ::syscall(SYS_close, std::exchange(proc_, -1));
}

// Of /proc there is one process; it has its own number, and so has its directory.
int private_root::build_proc() noexcept {
  std::array<char, 32> place = {"proc/"};
  char* const number = place.data() + 5;
  *std::to_chars(number, place.data() + place.size() - 1, ::getpid()).ptr = 0;
  if (::mkdir(place.data(), 0755) != 0) return errno;
  if (const int failed = place_tree(proc_, place.data())) return failed;
  return error_unless(::symlink(number, "proc/self") == 0);
}

// In the directory that will be the root.
int private_root::build() noexcept {
  for (const piece& one : pieces_) {
    const char* const place = one.place.c_str();
    int failed = 0;
    switch (one.what) {
      case piece::kind::directory:
        failed = error_unless(::mkdir(place, 0755) == 0);
        break;
      case piece::kind::file:
        failed = error_unless(::mknod(place, S_IFREG | 0444, 0) == 0);
        break;
      case piece::kind::link:
        failed = error_unless(::symlink(one.source.c_str(), place) == 0);
        break;
      case piece::kind::scratch:
        failed = error_unless(
            ::mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, scratch_options) == 0);
        break;
      case piece::kind::mount:
        failed = place_tree(one.tree, place);
        break;
    }
    if (failed != 0) return failed;
  }
  if (has_proc_) {
    if (const int failed = build_proc()) return failed;
  }
  mount_attr unchangeable{};
  unchangeable.attr_set = MOUNT_ATTR_RDONLY;
  return error_unless(::mount_setattr(AT_FDCWD, ".", 0, &unchangeable, sizeof unchangeable) == 0);
}

// The old root is above the new one, at the same place, and goes from there.
int private_root::settle() noexcept {
  if (::umount2(".", MNT_DETACH) != 0) return errno;
  if (::chdir("/") != 0) return errno;
  static_cast<void>(!directory_.empty() && ::chdir(directory_.c_str()) == 0);
  return 0;
}

int private_root::enter() noexcept {
  if (::unshare(CLONE_NEWNS) != 0) return errno;
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return errno;
  const int before =
      static_cast<int>(::syscall(SYS_openat, AT_FDCWD, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  int failed = take_trees();
  if (failed == 0) {
    failed = error_unless(
        ::mount("tmpfs", building_site, "tmpfs", MS_NOSUID | MS_NODEV, root_options) == 0);
    if (failed == 0) {
      failed = error_unless(::chdir(building_site) == 0);
      if (failed == 0) failed = build();
      if (failed == 0) failed = error_unless(::syscall(SYS_pivot_root, ".", ".") == 0);
      if (failed == 0) {
        failed = settle();
      } else {
        static_cast<void>(::fchdir(before) == 0);
        ::umount2(building_site, MNT_DETACH);
      }
    }
  }
  close_trees();
  if (before >= 0) ::syscall(SYS_close, before);
  return failed;
}

}  // namespace bus
