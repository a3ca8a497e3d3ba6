// All memory that one execution of the model can change, in one place, so that a whole state can be
// copied, hashed, and put back. Objects that are made while the region is open lie in it: the
// production code's lanes and arenas with their vectors and cells, and the actors. Nothing in it is
// ever freed; the whole is put back as it was.
//
// The memfds of shared memory lie beside it (kernel.cpp), and each registers the bytes that matter.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace model {

class region {
 public:
  // While one of these lives, operator new takes from the region.
  class opened {
   public:
    explicit opened(bool wanted = true) noexcept;
    ~opened();
    opened(const opened&) = delete;
    opened& operator=(const opened&) = delete;

   private:
    bool before_;
  };

  // Zeroed bytes of the region.
  [[nodiscard]] static std::byte* take(std::size_t bytes, std::size_t align) noexcept;
  [[nodiscard]] static bool holds(const void* at) noexcept;
  [[nodiscard]] static bool is_open() noexcept;
  [[nodiscard]] static std::size_t used() noexcept;
  // Empties it down to the first `used` bytes, and the list of memory beside it if that is 0.
  static void reset(std::size_t used = 0) noexcept;

  // Memory outside that belongs to the state.
  static void include(std::span<std::byte> more);
  // All spans: the region's own first.
  [[nodiscard]] static std::vector<std::span<std::byte>> spans();
};

}  // namespace model
