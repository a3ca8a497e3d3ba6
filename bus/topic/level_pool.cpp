// See the header for the idea. Here are the hash and the two homes of a text.
#include "bus/topic/level_pool.hpp"

#include "bus/topic/mix.hpp"

#include <cstring>
#include <utility>

namespace bus {
namespace {

constexpr std::size_t local_bytes_max = 11;
constexpr std::size_t pointer_at = 3;  // of local[]: the last 8 bytes of the 16
constexpr std::uint64_t odd_one =
    0x9e3779b97f4a7c15;  // the golden ratio; any odd word of mixed bits
constexpr std::uint64_t odd_two = 0xd1b54a32d192ed03;  // another such word

}  // namespace

std::uint32_t level_pool::tag(std::string_view text) const noexcept {
  std::uint64_t hash = mix(seed_ ^ text.size(), odd_one);
  for (; text.size() > 8; text.remove_prefix(8)) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data(), 8);
    hash = mix(hash ^ word, odd_two ^ seed_);
  }
  std::uint64_t word = 0;
  std::memcpy(&word, text.data(), text.size());
  return static_cast<std::uint32_t>(mix(hash ^ word, odd_one ^ seed_) >> 32U);
}

char* level_pool::heap_text(const entry& each) noexcept {
  char* heap = nullptr;
  std::memcpy(&heap, each.local + pointer_at, sizeof heap);
  return heap;
}

level_pool::~level_pool() {
  for (std::size_t i = 0; heap_bytes_ > 0 && i < entries_.used(); ++i) {
    const entry& each = entries_[i];
    if (each.size <= local_bytes_max) continue;
    heap_bytes_ -= each.size;
    delete[] heap_text(each);
  }
}

std::string_view level_pool::text(std::uint32_t level) const noexcept {
  const entry& each = entries_[level];
  return {each.size <= local_bytes_max ? each.local : heap_text(each), each.size};
}

std::uint32_t level_pool::find(std::string_view wanted) const noexcept {
  return table_.find(tag(wanted), [&](std::uint32_t level) { return text(level) == wanted; });
}

std::uint32_t level_pool::hold(std::string_view wanted) noexcept {
  std::uint32_t level = find(wanted);
  if (level != unknown) {
    ++entries_[level].references;
    return level;
  }
  level = entries_.take();
  entry& fresh = entries_[level];
  fresh.references = 1;
  fresh.size = static_cast<std::uint8_t>(wanted.size());
  char* home = fresh.local;
  if (wanted.size() > local_bytes_max) {
    home = new char[wanted.size()];
    std::memcpy(fresh.local + pointer_at, &home, sizeof home);
    heap_bytes_ += wanted.size();
  }
  std::memcpy(home, wanted.data(), wanted.size());
  table_.add(tag(wanted), level);
  return level;
}

void level_pool::release(std::uint32_t level) noexcept {
  entry& each = entries_[level];
  if (--each.references > 0) return;
  table_.erase(tag(text(level)), level);
  if (each.size > local_bytes_max) {
    heap_bytes_ -= each.size;
    delete[] heap_text(each);
  }
  each.size = 0;  // a free entry owns no text; the destructor relies on it
  entries_.put_back(level);
}

std::size_t level_pool::bytes() const noexcept {
  return entries_.bytes() + table_.bytes() + heap_bytes_;
}

void level_pool::swap(level_pool& other) noexcept {
  std::swap(seed_, other.seed_);
  entries_.swap(other.entries_);
  table_.swap(other.table_);
  std::swap(heap_bytes_, other.heap_bytes_);
}

}  // namespace bus
