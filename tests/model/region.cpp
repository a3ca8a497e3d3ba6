#include "tests/model/region.hpp"

#include "bus/base/check.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>

namespace model {
namespace {

constexpr std::size_t region_bytes = 4 << 20;  // the largest random configuration takes about 1 MiB

alignas(4096) std::array<std::byte, region_bytes> memory;
std::size_t taken = 0;
bool open = false;

std::vector<std::span<std::byte>>& beside() {
  static std::vector<std::span<std::byte>> all;
  return all;
}

}  // namespace

region::opened::opened(bool wanted) noexcept : before_(open) { open = wanted; }
region::opened::~opened() { open = before_; }

std::byte* region::take(std::size_t bytes, std::size_t align) noexcept {
  taken = (taken + align - 1) / align * align;
  BUS_CHECK(taken + bytes <= region_bytes);
  std::byte* const at = memory.data() + taken;
  taken += bytes;
  std::fill_n(at, bytes, std::byte{0});
  return at;
}

bool region::holds(const void* at) noexcept {
  return at >= memory.data() && at < memory.data() + region_bytes;
}

bool region::is_open() noexcept { return open; }
std::size_t region::used() noexcept { return taken; }

void region::reset(std::size_t used) noexcept {
  taken = used;
  if (used == 0) beside().clear();
}

void region::include(std::span<std::byte> more) {
  const opened not_here(false);
  beside().push_back(more);
}

std::vector<std::span<std::byte>> region::spans() {
  const opened not_here(false);
  std::vector<std::span<std::byte>> all{{memory.data(), taken}};
  all.insert(all.end(), beside().begin(), beside().end());
  return all;
}

}  // namespace model

// What the language asks for memory: the region while it is open, the heap otherwise. Every form of
// it, since the sanitizers bring their own of those that are not here.
namespace {

void* allocate(std::size_t bytes, std::size_t align) noexcept {
  if (model::region::is_open()) return model::region::take(bytes, align);
  return std::aligned_alloc(align, (bytes + align - 1) / align * align);
}

void* allocate_or_throw(std::size_t bytes, std::size_t align) {
  void* const at = allocate(std::max<std::size_t>(bytes, 1), align);
  if (!at) throw std::bad_alloc();
  return at;
}

void release(void* at) noexcept {
  if (!model::region::holds(at)) std::free(at);
}

constexpr std::size_t usual = __STDCPP_DEFAULT_NEW_ALIGNMENT__;
constexpr std::size_t of(std::align_val_t align) { return static_cast<std::size_t>(align); }

}  // namespace

void* operator new(std::size_t bytes) { return allocate_or_throw(bytes, usual); }
void* operator new[](std::size_t bytes) { return allocate_or_throw(bytes, usual); }
void* operator new(std::size_t bytes, std::align_val_t align) {
  return allocate_or_throw(bytes, of(align));
}
void* operator new[](std::size_t bytes, std::align_val_t align) {
  return allocate_or_throw(bytes, of(align));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, usual);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, usual);
}
void* operator new(std::size_t bytes, std::align_val_t align, const std::nothrow_t&) noexcept {
  return allocate(bytes, of(align));
}
void* operator new[](std::size_t bytes, std::align_val_t align, const std::nothrow_t&) noexcept {
  return allocate(bytes, of(align));
}
void operator delete(void* at) noexcept { release(at); }
void operator delete[](void* at) noexcept { release(at); }
void operator delete(void* at, std::size_t) noexcept { release(at); }
void operator delete[](void* at, std::size_t) noexcept { release(at); }
void operator delete(void* at, std::align_val_t) noexcept { release(at); }
void operator delete[](void* at, std::align_val_t) noexcept { release(at); }
void operator delete(void* at, std::size_t, std::align_val_t) noexcept { release(at); }
void operator delete[](void* at, std::size_t, std::align_val_t) noexcept { release(at); }
