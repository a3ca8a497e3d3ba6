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
  new (made.lane_.at())
      lane_layout{lane_layout::magic_value, layout_version, depth, sizeof(entry_layout), {}};
  made.entries_ = reinterpret_cast<entry_layout*>(made.lane_.at() + lane_layout::entries_at);
  made.depth_log2_ = static_cast<std::uint32_t>(std::countr_zero(depth));
  made.held_ = std::vector<held_samples>(depth);
  made.free_.reserve(depth);
  for (std::uint32_t credit = depth; credit-- > 0;) made.free_.push_back(credit);
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
  bits_ =
      reinterpret_cast<const std::atomic<std::uint64_t>*>(answers_.at() + answers_layout::bits_at);
  // Whatever the bits are now, no credit is out.
  for (std::size_t i = 0; i < seen_.size(); ++i) {
    seen_[i] = bits_[i].load(std::memory_order_relaxed);
  }
  return {};
}

void lane_out::push(const bus::sample& given, bus::sample&& copied, std::uint64_t offset) noexcept {
  const std::uint32_t credit = free_.back();
  free_.pop_back();
  held_[credit].given = given;
  if (copied) held_[credit].copied = std::move(copied);
  out_[credit / 64] |= 1ULL << credit % 64;
  bytes_since_scan_ += given.head().bytes;
  ++sent_since_scan_;

  entry_layout& place = entry(next_);
  const auto lap = static_cast<std::uint32_t>((next_ >> depth_log2_) + 1);
  ++next_;
  // Relaxed: the mark makes it valid.
  place.offset.store(offset, std::memory_order_relaxed);
  // Pairs with: lane_in::arrived, acquire of mark. Publishes frame, payload and offset.
  place.mark.store(make_mark(lap, credit), std::memory_order_release);
}

std::size_t lane_out::scan() noexcept {
  sent_since_scan_ = 0;
  bytes_since_scan_ = 0;
  if (!bits_) return 0;
  std::size_t home = 0;
  for (std::size_t word = 0; word < out_.size(); ++word) {
    if (out_[word] == 0) continue;
    // Pairs with: lane_in::take_back, fetch_xor: the peer's reads of the payload come before. And
    // seq_cst with ask(): either we see the bit, or the peer sees that we ask.
    const std::uint64_t bits = bits_[word].load(std::memory_order_seq_cst);
    std::uint64_t came = out_[word] & (bits ^ seen_[word]);
    seen_[word] ^= came;
    out_[word] &= ~came;
    for (; came != 0; came &= came - 1) {
      const auto credit = static_cast<std::uint32_t>(word * 64) +
                          static_cast<std::uint32_t>(std::countr_zero(came));
      held_[credit].given = bus::sample();
      if (held_[credit].copied) held_[credit].copied = bus::sample();
      free_.push_back(credit);
      ++home;
    }
  }
  return home;
}

void lane_out::reclaim() noexcept {
  for (std::size_t word = 0; word < out_.size(); ++word) {
    for (std::uint64_t left = std::exchange(out_[word], 0); left != 0; left &= left - 1) {
      const auto credit = static_cast<std::uint32_t>(word * 64) +
                          static_cast<std::uint32_t>(std::countr_zero(left));
      held_[credit] = {};
      free_.push_back(credit);
    }
  }
}

void lane_out::ask(bool wanted) noexcept {
  if (wanted == asking_) return;
  asking_ = wanted;
  // Pairs with: lane_in::take_back, load of want_room after its fetch_xor; all four are seq_cst.
  head().want_room.store(wanted ? 1 : 0, std::memory_order_seq_cst);
}

}  // namespace transports::shared
