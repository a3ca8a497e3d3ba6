// Every level's text, kept once and counted, under a 32-bit number: "sensor" under a thousand
// robots is one entry of 16 bytes. Texts of up to 11 bytes stand in the entry, longer ones on the
// heap. For this room's own use.
#pragma once

#include "bus/topic/slab.hpp"
#include "bus/topic/slot_table.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bus {

class level_pool {
 public:
  static constexpr std::uint32_t unknown = slot_table::nothing;

  // `seed` is the secret of the hash: who does not know it cannot aim texts at one slot.
  explicit level_pool(std::uint64_t seed) noexcept : seed_(seed) {}
  ~level_pool();
  level_pool(const level_pool&) = delete;
  level_pool& operator=(const level_pool&) = delete;

  [[nodiscard]] std::uint32_t find(std::string_view wanted) const noexcept;

  // The number of `wanted`, with one reference more. Requires: wanted.size() <= 255.
  [[nodiscard]] std::uint32_t hold(std::string_view wanted) noexcept;

  // One reference less; the last one forgets the text and its number.
  void release(std::uint32_t level) noexcept;

  // Valid while the level is held. Requires: it is.
  [[nodiscard]] std::string_view text(std::uint32_t level) const noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return entries_.live(); }
  [[nodiscard]] std::size_t bytes() const noexcept;

  void swap(level_pool& other) noexcept;

 private:
  // 16 bytes. A text of more than 11 bytes leaves its first bytes unused and ends in a pointer.
  struct entry {
    union {
      std::uint32_t references;
      std::uint32_t next_free;
    };
    std::uint8_t size;
    char local[11];
  };
  static_assert(sizeof(entry) == 16);

  [[nodiscard]] std::uint32_t tag(std::string_view text) const noexcept;
  [[nodiscard]] static char* heap_text(const entry& each) noexcept;

  std::uint64_t seed_;
  slab<entry> entries_;
  slot_table table_;
  std::size_t heap_bytes_ = 0;
};

}  // namespace bus
