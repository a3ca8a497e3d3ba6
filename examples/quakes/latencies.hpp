// Quantiles of latencies in constant memory: 16 buckets for each power of two, so that a figure is
// at most 6 % too high.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace demo {

class latencies {
 public:
  // Clocks that were set back give negative ones; they count as zero.
  void add(std::int64_t ns) noexcept {
    ++buckets_[bucket_of(ns < 0 ? 0 : static_cast<std::uint64_t>(ns))];
    ++count_;
  }
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  // The latency that a share of `part` (0 to 1) does not exceed, in microseconds; 0 if none.
  [[nodiscard]] double quantile_us(double part) const noexcept {
    const auto wanted = static_cast<std::uint64_t>(part * static_cast<double>(count_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen > wanted || (seen == count_ && seen > 0)) {
        return static_cast<double>(upper_edge(i)) / 1000.0;
      }
    }
    return 0;
  }

 private:
  static constexpr unsigned fine = 4;  // 2^4 buckets for each power of two
  [[nodiscard]] static std::size_t bucket_of(std::uint64_t ns) noexcept {
    if (ns < (1U << fine)) return ns;
    const auto power = static_cast<unsigned>(std::bit_width(ns)) - 1;
    return ((power - fine + 1) << fine) + ((ns >> (power - fine)) & ((1U << fine) - 1));
  }
  [[nodiscard]] static std::uint64_t upper_edge(std::size_t bucket) noexcept {
    if (bucket < (1U << fine)) return bucket;
    const std::size_t power = (bucket >> fine) + fine - 1;
    const std::uint64_t steps = (bucket & ((1U << fine) - 1)) + 1;
    return (std::uint64_t{1} << power) + (steps << (power - fine)) - 1;
  }

  std::array<std::uint64_t, ((64 - fine + 1) << fine)> buckets_{};
  std::uint64_t count_ = 0;
};

}  // namespace demo
