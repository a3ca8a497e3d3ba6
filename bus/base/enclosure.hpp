// All walls of one child: made ready by its parent, put up by the child itself between clone and
// exec. There it shares its parent's memory, so it does bare system calls and neither allocates nor
// locks; and what it has put up is what holds, whatever its parent expected.
#pragma once

#include "bus/base/confinement.hpp"
#include "bus/base/landlock.hpp"
#include "bus/base/private_root.hpp"
#include "bus/base/result.hpp"
#include "bus/base/seccomp_filter.hpp"

#include <array>
#include <optional>
#include <string>

namespace bus {

class enclosure {
 public:
  // Errors: of exec(3) for a program that is not there; not_found (an allowed path that is not
  // there), invalid_argument (all of the file system); no_memory, the kernel's.
  [[nodiscard]] static result<enclosure> make(const confinement& allowed,
                                              const std::string& program);

  // To be run instead of the name: relative names and $PATH mean something else inside.
  [[nodiscard]] const std::string& program() const noexcept { return program_; }

  // In the child, before it has anything to lose by it. Each wall is tried, whichever failed
  // before. False: there is some way out, and it shall not run.
  [[nodiscard]] bool put_up(wall_report& report) noexcept;

 private:
  enclosure(const confinement& allowed, const visible_files& visible);
  [[nodiscard]] bool is_tried(wall one) const noexcept;
  [[nodiscard]] int enter_user_namespace() noexcept;
  [[nodiscard]] int apply_landlock(bool has_root) noexcept;
  [[nodiscard]] seccomp_filter& filter_for(const wall_report& report) noexcept;

  std::string program_;
  std::string user_map_;  // what /proc/self/uid_map is told
  std::string group_map_;
  private_root root_;
  std::optional<landlock_rules> landlock_;
  int no_landlock_ = 0;                    // why there is none
  std::array<seccomp_filter, 4> filters_;  // by what the others leave for it
  std::array<bool, wall_count> tried_;
  bool even_if_open_;
};

}  // namespace bus
