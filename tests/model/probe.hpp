// The one friend of lanes, arena and bell: shows the model what only they know, lets their counters
// start where the first wrap is near, and brings their private books into canonical form (see
// canonical.cpp).
#pragma once

#include "transports/shm/lane_in.hpp"
#include "transports/shm/lane_out.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

namespace bus {

struct probe {
  // The next sleeps have the last numbers, and the first ones.
  static void start_late(bell& one) noexcept { one.sleeps_ = ~7U; }

  static void silence(bell& one) noexcept {
    one.page_->permit.store(0, std::memory_order_relaxed);
    one.sleeps_ = one.page_->word.load(std::memory_order_relaxed) & ~bell_mode_bits;
  }

  static void renumber(bell& one) noexcept {
    const std::uint32_t word = one.page_->word.load(std::memory_order_relaxed);
    // A mark leaves the number; what is armed or taken back has the last one.
    if ((word & ~bell_mode_bits) != (one.sleeps_ & ~bell_mode_bits)) return;
    one.page_->word.store(word & bell_mode_bits, std::memory_order_relaxed);
    one.sleeps_ = 0;
  }
};

}  // namespace bus

namespace transports::shared {

struct probe {
  // Whose slots come home cheaply on this thread: each fiber has its own.
  static arena*& here() noexcept { return arena::here_; }
  static void collect(arena& of) noexcept { of.collect(); }

  // --- counters
  static std::uint64_t entries_sent(const lane_out& of) noexcept { return of.next_; }
  static std::uint64_t entries_read(const lane_in& of) noexcept { return of.entries_read_; }
  static std::uint64_t cells_sent(const lane_out& of) noexcept { return of.cells_sent_; }
  static std::uint64_t cells_reported(const lane_in& of) noexcept { return of.cells_reported_; }
  static std::uint64_t cells(const lane_out& of) noexcept { return of.cell_mask_ + 1; }

  // Both ends count from here: entries are two laps before the number of the lap wraps, cells two
  // rounds before their number does, so that each place is used on both sides of it; the 24 bits
  // that say how many of the other kind came before wrap with them, and so do credits.
  static void start_late(lane_out& out, lane_in& in) {
    out.next_ = ((1ULL << 32U) - 2) << out.depth_log2_;
    in.entries_read_ = in.fetched_ = out.next_;
    out.cells_sent_ = out.cells_home_ = number_mask + 1 - 2 * (out.cell_mask_ + 1);
    in.cells_read_ = in.cells_reported_ = in.cells_told_ = out.cells_sent_;
    in.answers_head_->cells_read.store(out.cells_sent_, std::memory_order_relaxed);
    // As if all before had been sent and read.
    for (std::uint64_t n = out.next_; n != out.next_ + in.depth_; ++n) erase_entry(out, n);
    for (std::uint64_t n = out.cells_sent_; n <= out.cells_sent_ + out.cell_mask_; ++n) {
      erase_cell(out, n);
    }
    // Congruent modulo the depth, so that each credit is where it was; the next ones wrap.
    out.sent_ = 0 - std::uint64_t{out.depth()};
    out.home_ = 0;
  }

  // --- what the peer has done, and we have not looked at
  static bool has_news(const lane_out& of) noexcept {
    for (std::size_t word = 0; word < of.out_.size(); ++word) {
      if (came(of, word) != 0) return true;
    }
    return of.cells_home_ != cells_read(of);
  }
  // The word of answers that is to be scanned will not change before we send again.
  static bool all_came_home(const lane_out& of) noexcept { return came(of, 0) == of.out_[0]; }
  static bool all_were_read(const lane_out& of) noexcept {
    return cells_read(of) == of.cells_sent_;
  }
  // A thread of the receiver is between locking and unlocking.
  static bool is_ringing(lane_in& of) noexcept {
    if (!of.ringing_.try_lock()) return true;
    of.ringing_.unlock();
    return false;
  }

  // --- canonical form

  // Slots at home are alike: the lowest comes first. `at_rest`: none is on its way home.
  static void tidy(arena& of, bool at_rest) {
    if (at_rest) of.collect();
    for (arena::cell_list& list : of.free_) {
      if (!list.first) {
        list.last = nullptr;
        continue;
      }
      std::array<arena::cell*, 64> home{};
      std::size_t count = 0;
      for (arena::cell* one = list.first; one; one = one->next) home[count++] = one;
      std::sort(home.begin(), home.begin() + static_cast<std::ptrdiff_t>(count));
      list.first = home[0];
      list.last = home[count - 1];
      for (std::size_t i = 0; i < count; ++i) {
        home[i]->next = i + 1 < count ? home[i + 1] : nullptr;
        home[i]->head = nullptr;
        home[i]->references.store(0, std::memory_order_relaxed);
      }
    }
    if (!at_rest) return;
    for (arena::chunk& one : of.chunks_) {
      if (one.live > 0) one.cells[0].next = nullptr;  // one slot a chunk
    }
  }

  // Credits at home are alike; parity counts from what the sender has seen; when to scan for want
  // of something better is never asked.
  static void tidy(lane_out& of, lane_in& in, bool keeps_numbers) {
    of.sent_since_scan_ = 0;
    of.bytes_since_scan_ = 0;
    std::array<std::uint32_t, 64> home{};
    std::size_t count = 0;
    const std::size_t mask = of.free_.size() - 1;
    for (std::uint64_t i = of.sent_; i != of.home_; ++i) home[count++] = of.free_[i & mask];
    std::sort(home.begin(), home.begin() + static_cast<std::ptrdiff_t>(count));
    std::fill(of.free_.begin(), of.free_.end(), 0U);
    if (!keeps_numbers) {
      of.sent_ = 0;
      of.home_ = count;
    }
    for (std::size_t i = 0; i < count; ++i) of.free_[(of.sent_ + i) & mask] = home[i];
    for (std::size_t word = 0; word < of.seen_.size(); ++word) {
      in.bits_[word].fetch_xor(std::exchange(of.seen_[word], 0), std::memory_order_relaxed);
    }
  }

  struct ends {
    bool is_read = false;        // somebody reads the lane
    bool is_answered = false;    // or has samples of it
    bool is_written = false;     // somebody writes it
    bool is_taken_now = false;   // the reader is in the middle of a message
    bool is_pushed_now = false;  // the writer is in the middle of an entry
    bool is_filled_now = false;  // or of a cell
  };
  // Of what was read nothing is left: entries, cells, blocks of samples that were let go of. An
  // entry that is half written is its writer's, and nobody's when that is dead.
  static void tidy(lane_in& in, const lane_out& from, ends now) {
    tidy_hints(in);
    for (std::uint32_t credit = 0; credit < in.depth_ && !now.is_taken_now; ++credit) {
      auto& one = in.slots_[credit];
      if (one.references.load(std::memory_order_relaxed) != 0) continue;
      std::memset(static_cast<void*>(&one), 0, sizeof one);
    }
    for (std::uint32_t index = 0; index < in.depth_; ++index) {
      auto& one = in.values_[index];
      if (!in.is_home(index)) continue;
      std::memset(static_cast<void*>(&one), 0, sizeof one);
      in.prepare(one);
    }
    for (std::uint64_t n = in.entries_read_; n != in.entries_read_ + in.depth_; ++n) {
      const bool is_begun = now.is_written && now.is_pushed_now && n + 1 == from.next_;
      if (!now.is_read || !(is_begun || in.entry_arrived(n))) erase_entry(from, n);
    }
    for (std::uint64_t n = in.cells_read_; n <= in.cells_read_ + in.cell_mask_; ++n) {
      const bool is_begun = now.is_written && now.is_filled_now && n == from.cells_sent_;
      if (!now.is_read || !(is_begun || has_cell(from, n))) erase_cell(from, n);
    }
  }

  // Numbers start again where nothing of the lane is known by its number: nothing is on the way,
  // and all that was sent is at home (`entries` were, as the account says). Both ends or the one
  // alive.
  static bool renumber(lane_out& out, lane_in& in, ends now, std::uint64_t entries) noexcept {
    if (now.is_read && in.look() != lane_in::arrival::none) return false;
    if (now.is_answered && now.is_written) {
      const bool all_known = entries == out.next_ && in.entries_read_ == out.next_ &&
                             in.cells_reported_ == out.cells_sent_;
      if (!all_known || out.cells_home_ != out.cells_sent_) return false;
    }
    out.next_ = in.entries_read_ = 0;
    const std::uint64_t home = std::exchange(out.cells_home_, 0);
    out.cells_sent_ -= home;
    in.cells_read_ -= std::exchange(in.cells_reported_, 0);
    in.cells_told_ = 0;
    // What a dead receiver has still reported, its sender may still find.
    if (now.is_written) in.answers_head_->cells_read.fetch_sub(home, std::memory_order_relaxed);
    for (std::uint64_t n = 0; n != in.depth_; ++n) erase_entry(out, n);
    for (std::uint64_t n = 0; n <= in.cell_mask_; ++n) erase_cell(out, n);
    return true;
  }

  // The private memory of the dead, and what only they would look at.
  static void bury(arena& of) {
    of.free_ = {};
    of.returned_.store(nullptr, std::memory_order_relaxed);
    of.idle_ = of.lent_ = 0;
    for (arena::chunk& one : of.chunks_) {
      one.live = 0;
      one.cells[0].next = nullptr;
      one.cells[0].head = nullptr;
      one.cells[0].references.store(0, std::memory_order_relaxed);
    }
  }
  static void bury(lane_out& of) {
    of.sent_ = of.home_ = of.next_ = of.cells_sent_ = of.cells_home_ = of.bytes_since_scan_ = 0;
    of.sent_since_scan_ = 0;
    of.asking_ = false;
    std::fill(of.free_.begin(), of.free_.end(), 0U);
    std::fill(of.out_.begin(), of.out_.end(), 0);
    std::fill(of.seen_.begin(), of.seen_.end(), 0);
    // Not dropped: nobody is there to do it.
    std::memset(static_cast<void*>(of.held_.data()), 0, of.held_.size() * sizeof(bus::sample));
  }
  static void bury(lane_in& of) {
    of.entries_read_ = of.cells_read_ = of.cells_reported_ = of.cells_told_ = 0;
    of.starved_ = of.idle_ = false;
    of.expected_ = nullptr;
    of.slots_accepted_ = 0;
    of.remaining_.store(0, std::memory_order_relaxed);
    std::memset(static_cast<void*>(of.slots_), 0, of.depth_ * sizeof(lane_in::slot_cell));
    std::memset(static_cast<void*>(of.values_), 0, of.depth_ * sizeof(lane_in::value_cell));
    new (&of.ringing_) std::mutex;  // it may have been locked
  }
  static void forget_answers(lane_in& of) {
    of.answers_head_->cells_read.store(0, std::memory_order_relaxed);
    for (std::uint32_t word = 0; word < words_for(of.depth_); ++word) {
      of.bits_[word].store(0, std::memory_order_relaxed);
    }
  }

  // --- the end

  // Each credit is either out or at home, and at home once.
  static bool credits_agree(const lane_out& of) {
    std::uint64_t home = 0;
    for (std::uint64_t i = of.sent_; i != of.home_; ++i) {
      const std::uint64_t bit = 1ULL << of.free_[i & (of.free_.size() - 1)];
      if ((home & bit) != 0) return false;
      home |= bit;
    }
    const std::uint64_t all = of.depth() == 64 ? ~0ULL : (1ULL << of.depth()) - 1;
    return of.depth() <= 64 && (home & of.out_[0]) == 0 && (home | of.out_[0]) == all;
  }
  // At rest: what the peer's parity and count say is what we have seen.
  static bool answers_agree(const lane_out& of) noexcept {
    return of.out_[0] == 0 && !has_news(of) &&
           of.seen_[0] == of.bits_[0].load(std::memory_order_relaxed) && all_were_read(of);
  }

 private:
  static std::uint64_t came(const lane_out& of, std::size_t word) noexcept {
    return of.out_[word] & (of.bits_[word].load(std::memory_order_relaxed) ^ of.seen_[word]);
  }
  static std::uint64_t cells_read(const lane_out& of) noexcept {
    return of.answers_head_->cells_read.load(std::memory_order_relaxed);
  }
  static bool has_cell(const lane_out& of, std::uint64_t number) noexcept {
    const std::uint64_t mark = cell(of, number).mark.load(std::memory_order_relaxed);
    return value_of(mark) == value_of(number + 1);
  }
  static cell_layout& cell(const lane_out& of, std::uint64_t number) noexcept {
    return of.cells_[number & of.cell_mask_];
  }

  // A place as the one before this number left it, but for what that was.
  static void erase_entry(const lane_out& of, std::uint64_t number) noexcept {
    const auto lap = static_cast<std::uint32_t>(number >> of.depth_log2_);
    of.entry(number).place.store(0, std::memory_order_relaxed);
    of.entry(number).mark.store(make_mark(lap, 0), std::memory_order_relaxed);
  }
  static void erase_cell(const lane_out& of, std::uint64_t number) noexcept {
    cell_layout& one = cell(of, number);
    std::memset(static_cast<void*>(&one), 0, sizeof one);
    const std::uint64_t before = number + 1 - (of.cell_mask_ + 1);
    one.mark.store(number <= of.cell_mask_ ? 0 : value_of(before), std::memory_order_relaxed);
  }

  // What is only a hint for the cache, or where to look first; and two counts of which only the
  // difference is asked for.
  static void tidy_hints(lane_in& in) noexcept {
    in.fetched_ = 0;
    in.value_hint_ = 0;
    in.values_used_ = in.depth_;  // tidy() prepares all of them
    in.referred_ = in.referred_before_ = in.lane_.at();
    // Whether it is a dialogue: each poll takes one message here anyhow.
    in.expected_ = nullptr;
    in.idle_ = false;
    in.remaining_.fetch_add(std::exchange(in.slots_accepted_, 0), std::memory_order_relaxed);
  }
};

}  // namespace transports::shared
