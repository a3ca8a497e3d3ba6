// The files that a locked-in child sees: what it was allowed, its program, and what every program
// needs of the system; with the symbolic links on the way to each, so that the same paths lead
// there. Made in the parent, for the mounts and for Landlock alike.
#pragma once

#include "bus/base/confinement.hpp"
#include "bus/base/landlock.hpp"
#include "bus/base/result.hpp"

#include <map>
#include <string>
#include <string_view>

namespace bus {

// Beneath everything that is visible, until it is something itself: the child's own.
inline constexpr const char* scratch_path = "/tmp";

struct visible_file {
  reach how = reach::reads;
  bool is_directory = false;
};

class visible_files {
 public:
  // Errors: not_found (an allowed path that is not there), invalid_argument (all of the file
  // system is no confinement), too_many_symbolic_link_levels, the kernel's.
  [[nodiscard]] static result<visible_files> of(const confinement& allowed);

  // Makes a program visible, named as for execvp(3), and returns the path to run it by. Errors:
  // those of exec(3) for what is not there.
  [[nodiscard]] result<std::string> add_program(const std::string& name);

  // By their real paths, which are absolute and in order: trees come before what is in them.
  [[nodiscard]] const std::map<std::string, visible_file>& files() const noexcept { return files_; }
  // From path to target.
  [[nodiscard]] const std::map<std::string, std::string>& links() const noexcept { return links_; }
  // Whether a path lies in a tree that is visible, or is one.
  [[nodiscard]] bool covers(std::string_view path) const noexcept;

 private:
  std::error_code add(const std::string& path, reach how);
  // The real path, noting the links on the way.
  result<std::string> follow(const std::string& path);

  std::map<std::string, visible_file> files_;
  std::map<std::string, std::string> links_;
};

}  // namespace bus
