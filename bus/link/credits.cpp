#include "bus/link/credits.hpp"

namespace bus {

void purse::fill(std::uint32_t depth, std::uint64_t bytes_max) {
  slots_.resize(depth);
  free_.resize(depth);
  for (std::uint32_t credit = 0; credit < depth; ++credit) free_[credit] = credit;
  free_head_ = 0;
  free_tail_ = depth;
  bytes_max_ = bytes_max;
}

void purse::clear() noexcept {
  slots_.clear();
  in_flight_ = 0;
  bytes_in_flight_ = 0;
}

void purse::occupy(const sample& one) noexcept {
  const std::uint64_t bytes = one.head().bytes;
  slots_[free_[free_head_++ % free_.size()]] = {one, bytes};
  ++in_flight_;
  bytes_in_flight_ += bytes;
}

bool purse::take_back(credit_run run) noexcept {
  if (run.first >= slots_.size() || run.count > slots_.size() - run.first) return false;
  for (std::uint32_t credit = run.first; credit < run.first + run.count; ++credit) {
    slot& freed = slots_[credit];
    if (!freed.held) return false;
    freed.held = sample();
    bytes_in_flight_ -= freed.bytes;
    --in_flight_;
    free_[free_tail_++ % free_.size()] = credit;
  }
  return true;
}

void tab::open(std::uint32_t depth, std::uint64_t bytes_max) {
  held_.assign(depth, false);
  bytes_max_ = bytes_max;
}

void tab::use(std::uint32_t credit, std::uint64_t bytes) noexcept {
  held_[credit] = true;
  ++unreported_;
  unreported_bytes_ += bytes;
}

void tab::release(std::uint32_t credit, std::uint64_t bytes) {
  ++released_;
  released_bytes_ += bytes;
  if (!runs_.empty() && runs_.back().first + runs_.back().count == credit) {
    ++runs_.back().count;
  } else {
    runs_.push_back({credit, 1});
  }
}

void tab::settle() noexcept {
  for (const credit_run& run : runs_) {
    for (std::uint32_t i = 0; i < run.count; ++i) held_[run.first + i] = false;
  }
  unreported_ -= released_;
  unreported_bytes_ -= released_bytes_;
  runs_.clear();
  released_ = 0;
  released_bytes_ = 0;
}

}  // namespace bus
