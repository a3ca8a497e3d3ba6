#include "transports/shm/lane_out.hpp"

#include <bit>
#include <new>

namespace transports::shared {

using bus::errc;
using bus::unexpected;

bus::result<lane_out> lane_out::make(std::uint32_t depth) {
  BUS_CHECK(std::has_single_bit(depth) && depth <= depth_max);
  auto file = make_memory("omnibus-lane", lane_bytes(depth));
  if (!file) return unexpected(file.error());
  auto lane = mapping::writable(file->get(), lane_bytes(depth));
  if (!lane) return unexpected(lane.error());
  if (auto sealed = seal(file->get(), false); !sealed) return unexpected(sealed.error());

  lane_out made;
  made.file_ = std::move(*file);
  made.lane_ = std::move(*lane);
  bus::step("lane.make.head");
  new (made.lane_.at())
      lane_layout{lane_layout::magic_value, layout_version, depth, sizeof(entry_layout), {}};
  made.entries_ = reinterpret_cast<entry_layout*>(made.lane_.at() + lane_layout::entries_at);
  made.cells_ = reinterpret_cast<cell_layout*>(made.lane_.at() + cells_at(depth));
  made.cell_mask_ = cells_for(depth) - 1;
  made.depth_log2_ = static_cast<std::uint32_t>(std::countr_zero(depth));
  made.held_.resize(depth);
  made.free_.resize(depth);
  for (std::uint32_t credit = 0; credit < depth; ++credit) made.come_home(credit);
  made.out_.resize(words_for(depth));
  made.seen_.resize(words_for(depth));
  return made;
}

bus::result<void> lane_out::open(const bus::fd& answers) {
  const auto bytes = inspect(answers.get());
  if (!bytes) return unexpected(bytes.error());
  if (*bytes != answers_bytes(depth())) return unexpected(errc::corrupt);
  auto mapped = mapping::readable(answers.get(), *bytes);
  if (!mapped) return unexpected(mapped.error());
  const auto& about = *reinterpret_cast<const answers_layout*>(mapped->at());
  if (about.magic != answers_layout::magic_value) return unexpected(errc::corrupt);
  if (about.version != layout_version) return unexpected(errc::incompatible);
  if (about.depth != depth()) return unexpected(errc::corrupt);
  answers_ = std::move(*mapped);
  answers_head_ = reinterpret_cast<const answers_layout*>(answers_.at());
  bits_ =
      reinterpret_cast<const std::atomic<std::uint64_t>*>(answers_.at() + answers_layout::bits_at);
  // Whatever the bits are now, no credit is out.
  for (std::size_t i = 0; i < seen_.size(); ++i) {
    seen_[i] = bits_[i].load(std::memory_order_relaxed);
  }
  return {};
}

void lane_out::keep_copy(std::uint32_t credit, bus::sample&& copied) noexcept {
  if (copies_.empty()) copies_.resize(held_.size());
  copies_[credit] = std::move(copied);
}

void lane_out::let_go(std::uint32_t credit) noexcept {
  held_[credit] = bus::sample();
  if (!copies_.empty()) copies_[credit] = bus::sample();
  come_home(credit);
}

std::size_t lane_out::scan() noexcept { return scan_credits() + scan_cells(); }

std::size_t lane_out::scan_credits() noexcept {
  sent_since_scan_ = 0;
  bytes_since_scan_ = 0;
  if (!bits_) return 0;
  std::size_t home = 0;
  for (std::size_t word = 0; word < out_.size(); ++word) {
    if (out_[word] == 0) continue;
    bus::step("lane.scan.bits");
    // Pairs with: lane_in::take_back, fetch_xor: the peer's reads of the payload come before. And
    // seq_cst with ask(): either we see the bit, or the peer sees that we ask.
    const std::uint64_t bits = bits_[word].load(std::memory_order_seq_cst);
    std::uint64_t came = out_[word] & (bits ^ seen_[word]);
    seen_[word] ^= came;
    out_[word] &= ~came;
    for (; came != 0; came &= came - 1) {
      const auto credit = static_cast<std::uint32_t>(word * 64) +
                          static_cast<std::uint32_t>(std::countr_zero(came));
      bus::step("lane.scan.credit");
      let_go(credit);
      ++home;
    }
  }
  return home;
}

void lane_out::reclaim() noexcept {
  cells_home_ = cells_sent_;
  for (std::size_t word = 0; word < out_.size(); ++word) {
    for (std::uint64_t left = std::exchange(out_[word], 0); left != 0; left &= left - 1) {
      const auto credit = static_cast<std::uint32_t>(word * 64) +
                          static_cast<std::uint32_t>(std::countr_zero(left));
      bus::step("lane.reclaim.credit");
      let_go(credit);
    }
  }
}

}  // namespace transports::shared
