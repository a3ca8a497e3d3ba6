#include "bus/tool/chaos_record.hpp"

#include <cerrno>
#include <stdexcept>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace bus::tool {

std::string_view name_of(breach what) noexcept {
  switch (what) {
    case breach::torn:
      return "torn";
    case breach::stale:
      return "stale";
    case breach::duplicated:
      return "duplicated";
    case breach::out_of_order:
      return "out of order";
    case breach::foreign:
      return "foreign";
  }
  return "unknown";
}

mapped_file::mapped_file(const std::string& path, std::size_t bytes) : bytes_(bytes) {
  const fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  const bool sized = file && ::ftruncate(file.get(), static_cast<off_t>(bytes)) == 0;
  void* const at = sized ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0)
                         : MAP_FAILED;
  if (at == MAP_FAILED) {
    throw std::runtime_error("cannot write down what happens, in " + path + ": " +
                             std::generic_category().message(errno));
  }
  at_ = at;
}

mapped_file::~mapped_file() {
  if (at_) ::munmap(at_, bytes_);
}

std::string stage_path(const std::string& folder) { return folder + "/stage"; }
std::string record_path(const std::string& folder, std::uint32_t life) {
  return folder + "/life" + std::to_string(life);
}
std::string bus_path(const std::string& folder) { return folder + "/bus"; }

std::uint64_t chaos_message::word(std::size_t index) const noexcept {
  if (index == 0) return life;
  if (index == 1) return topic;
  if (index == 2) return sequence;
  std::uint64_t mixed = seed + life * 0xd6e8feb86659fd93ULL + topic * 0xa0761d6478bd642fULL +
                        sequence * 0x9e3779b97f4a7c15ULL + index * 0xbf58476d1ce4e5b9ULL;
  mixed ^= mixed >> 31;
  return mixed * 0x94d049bb133111ebULL;
}

void chaos_message::write(std::span<std::byte> into) const noexcept {
  for (std::size_t i = 0; i < into.size() / sizeof(std::uint64_t); ++i) {
    const std::uint64_t one = word(i);
    std::memcpy(into.data() + i * sizeof one, &one, sizeof one);
  }
}

chaos_message::reading chaos_message::read(std::span<const std::byte> from,
                                           std::uint64_t seed) noexcept {
  reading result;
  if (from.size() < bytes_min || from.size() % sizeof(std::uint64_t) != 0) return result;
  const auto word_at = [&](std::size_t index) {
    std::uint64_t one = 0;
    std::memcpy(&one, from.data() + index * sizeof one, sizeof one);
    return one;
  };
  result.message.seed = seed;
  result.message.life = word_at(0);
  result.message.topic = word_at(1);
  result.message.sequence = word_at(2);
  result.whole = true;
  for (std::size_t i = 3; i < from.size() / sizeof(std::uint64_t) && result.whole; ++i) {
    result.whole = word_at(i) == result.message.word(i);
  }
  return result;
}

}  // namespace bus::tool
