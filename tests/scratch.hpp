// A directory of a test's own, removed with all that is in it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace tests {

class scratch_directory {
 public:
  scratch_directory() : path_(std::filesystem::temp_directory_path() / "omnibus-test-XXXXXX") {
    if (!::mkdtemp(path_.data())) throw std::runtime_error("cannot make a scratch directory");
  }
  ~scratch_directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  scratch_directory(const scratch_directory&) = delete;
  scratch_directory& operator=(const scratch_directory&) = delete;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

}  // namespace tests
