// What transports/shm/memory.hpp asks of the kernel, over plain memory: the model's publishers and
// subscribers are fibers of one process, so that a mapping is a pointer. Linked in the place of
// memory.cpp; all else of lanes and slots is the production code.
#include "tests/model/kernel.hpp"

#include "bus/base/check.hpp"
#include "tests/model/region.hpp"
#include "transports/shm/layout.hpp"
#include "transports/shm/memory.hpp"

#include <algorithm>
#include <array>
#include <string_view>

namespace model {
namespace {

// Descriptors of the model's memory: numbers that no process has, so that closing one is nothing.
constexpr int first_number = 1 << 28;
constexpr std::size_t memories_max = 64;
constexpr std::size_t pool_bytes = 4 << 20;

struct memory {
  std::byte* at = nullptr;
  std::uint64_t bytes = 0;
};

alignas(4096) std::array<std::byte, pool_bytes> pool;
std::size_t pool_taken = 0;
std::array<memory, memories_max> memories;
std::size_t memory_count = 0;
std::uint32_t lane_depth = 0;

memory& of(int number) {
  const auto place = static_cast<std::size_t>(number - first_number);
  BUS_CHECK(place < memory_count);
  return memories[place];
}

std::byte* take(std::uint64_t bytes) {
  BUS_CHECK(pool_taken + bytes <= pool_bytes);
  std::byte* const at = pool.data() + pool_taken;
  pool_taken += transports::shared::whole_pages(bytes);
  std::fill_n(at, bytes, std::byte{0});
  return at;
}

// Of the whole pages of a lane or of answers, those bytes that somebody writes.
std::uint64_t bytes_that_matter(std::string_view label, std::uint64_t bytes) {
  using namespace transports::shared;
  if (label == "omnibus-lane") {
    return cells_at(lane_depth) + std::uint64_t{cells_for(lane_depth)} * sizeof(cell_layout);
  }
  if (label == "omnibus-answers") return answers_layout::bits_at + words_for(lane_depth) * 8ULL;
  return bytes;
}

}  // namespace

void start_kernel(std::uint32_t depth) {
  pool_taken = 0;
  memory_count = 0;
  lane_depth = depth;
}

}  // namespace model

namespace transports::shared {

// Nothing to unmap: the memory goes with the world.
mapping::~mapping() { at_ = nullptr; }

bus::result<mapping> mapping::make(int memory, std::uint64_t bytes, int, int) noexcept {
  mapping made;
  if (memory < 0) {
    made.at_ = model::take(bytes);
    model::region::include({made.at_, bytes});
  } else {
    model::memory& behind = model::of(memory);
    // An arena: its size comes with its first mapping. Its owner includes what matters of it.
    if (!behind.at) behind = {model::take(bytes), bytes};
    made.at_ = behind.at;
  }
  made.bytes_ = bytes;
  return made;
}

bus::result<mapping> mapping::readable(int memory, std::uint64_t bytes) noexcept {
  return make(memory, bytes, 0, 0);
}
bus::result<mapping> mapping::writable(int memory, std::uint64_t bytes) noexcept {
  return make(memory, bytes, 0, 0);
}
bus::result<mapping> mapping::zeroes(std::uint64_t bytes) noexcept { return make(-1, bytes, 0, 0); }
// Nobody asks for it: that an idle link gives memory back is not part of this world.
void mapping::forget(std::uint64_t /*from*/) noexcept {}

bus::result<bus::fd> make_memory(const char* label, std::uint64_t bytes) noexcept {
  BUS_CHECK(model::memory_count < model::memories_max);
  model::memory& made = model::memories[model::memory_count];
  made = {};
  if (bytes > 0) {
    made = {model::take(bytes), bytes};
    model::region::include({made.at, model::bytes_that_matter(label, bytes)});
  }
  return bus::fd(model::first_number + static_cast<int>(model::memory_count++));
}

bus::result<void> extend(int, std::uint64_t, std::uint64_t) noexcept { return {}; }
bus::result<void> seal(int, bool) noexcept { return {}; }
bus::result<bus::fd> hand_out(int memory) noexcept { return bus::fd(memory); }
bus::result<std::uint64_t> inspect(int memory) noexcept { return model::of(memory).bytes; }

}  // namespace transports::shared
