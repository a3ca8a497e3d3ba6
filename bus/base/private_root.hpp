// A file system of a child's own: the visible files at their places, everything else absent.
// Prepared by the parent; the child then does system calls alone.
#pragma once

#include "bus/base/visible_files.hpp"

#include <cerrno>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace bus {

// What a system call in the child has come to: an errno, or 0.
[[nodiscard]] inline int error_unless(bool done) noexcept { return done ? 0 : errno; }

class private_root {
 public:
  explicit private_root(const visible_files& visible);

  // In the child: moves it to a mount namespace of its own, in which it sees these files alone. An
  // errno, or 0. After an error it sees the same files as before.
  [[nodiscard]] int enter() noexcept;
  // Whether it has a scratch_path of its own then.
  [[nodiscard]] bool has_scratch() const noexcept { return has_scratch_; }

 private:
  // What has its place in the new root.
  struct piece {
    enum class kind : std::uint8_t { directory, file, link, scratch, mount } what;
    std::string place;             // relative to the new root
    std::string source = {};       // of a link its target, of a mount the file or tree
    std::uint64_t attributes = 0;  // of a mount
    int tree = -1;                 // the mount, before it has its place
  };
  void add_link(const std::string& path, const std::string& target, const visible_files& visible);
  void add_mount(const std::string& path, visible_file file, const visible_files& visible);
  void add_parents(const std::string& path);
  [[nodiscard]] int take_trees() noexcept;
  void close_trees() noexcept;
  [[nodiscard]] int build() noexcept;
  [[nodiscard]] int build_proc() noexcept;
  [[nodiscard]] int settle() noexcept;

  std::vector<piece> pieces_;  // what is in another comes after it
  std::set<std::string> made_;
  std::string directory_;  // where we are now, and the child will be if it sees it
  int proc_ = -1;
  bool has_scratch_ = false;
  bool has_proc_ = false;
};

}  // namespace bus
