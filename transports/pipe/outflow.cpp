#include "transports/pipe/outflow.hpp"

#include <algorithm>
#include <array>
#include <new>
#include <utility>

namespace transports::pipes {
namespace {

// Payloads from here on go by page: docs/design/0015 has the measurement.
constexpr std::uint64_t by_page_bytes = 4 << 10;
// What one system call takes: more records would make its price no smaller.
constexpr std::size_t records_max = series_max;
constexpr std::uint64_t call_bytes_max = 1 << 20;

constexpr head_layout bye = head_of(word::bye, 0);

iovec piece(std::span<const std::byte> bytes) noexcept {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

void append(std::vector<std::byte>& to, std::span<const std::byte> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

}  // namespace

// What one system call shall write. Kept, since to make one anew costs as much as to fill it.
struct outflow::gathered {
  std::array<iovec, 2 * records_max + 1> pieces;  // of each record two, and what is said before
  std::size_t count = 0;
  std::uint64_t bytes = 0;
  std::array<message_layout, records_max> heads;
  bool by_page = false;

  void add(std::span<const std::byte> one, std::uint64_t& skipped) noexcept {
    const std::uint64_t skip = std::min<std::uint64_t>(skipped, one.size());
    skipped -= skip;
    if (skip == one.size()) return;
    pieces[count++] = piece(one.subspan(skip));
    bytes += one.size() - skip;
  }
};

outflow::outflow(bool lends_pages)
    : lends_pages_(lends_pages), gathered_(std::make_unique<gathered>()) {}

outflow::~outflow() = default;

void outflow::say(std::span<const std::byte> hello) { append(said_, hello); }

void outflow::open(std::uint32_t depth, std::uint64_t bytes_max) {
  purse_.fill(depth, bytes_max);
  is_queued_.assign(depth, false);
  if (lends_pages_) heads_.resize(depth);
}

std::uint32_t outflow::queue(const bus::sample& one) {
  const std::uint32_t credit = purse_.next();
  purse_.occupy(one);
  queue_.push_back(credit);
  is_queued_[credit] = true;
  waiting_bytes_ += one.payload().size();
  return credit;
}

bool outflow::has_left(bus::credit_run run) const noexcept {
  const auto first = is_queued_.begin() + run.first;
  return std::find(first, first + run.count, true) == first + run.count;
}

void outflow::queue_bye() {
  queue_.push_back(bye_entry);
  ++byes_;
}

std::uint64_t outflow::bytes_of_entry(std::uint32_t entry) const noexcept {
  if (entry == bye_entry) return sizeof bye;
  return (series_ > 0 ? 0 : sizeof(message_layout)) + purse_.held(entry).payload().size();
}

bool outflow::goes_by_page(std::uint32_t entry) const noexcept {
  return lends_pages_ && entry != bye_entry && purse_.held(entry).payload().size() >= by_page_bytes;
}

void outflow::note_owed(bus::tab& owed) {
  const auto runs = owed.owed();
  append(said_, bytes_of(head_of(word::release, static_cast<std::uint32_t>(runs.size()))));
  append(said_, std::as_bytes(runs));
  owed.settle();
}

bus::result<bool> outflow::flush(ends& to, bus::tab& owed, bool report) {
  for (;;) {
    if (at_ == 0 && series_ == 0) {
      if (said_.empty() && owed.owes() && (report || !queue_.empty())) note_owed(owed);
      begin_series();
    }
    gathered& all = *gathered_;
    gather(all);
    if (all.count == 0) return true;
    const auto pieces = std::span<const iovec>(all.pieces).first(all.count);
    const auto written = all.by_page ? to.lend(pieces) : to.write(pieces);
    if (!written && all.by_page && written.error() != bus::errc::gone) {
      // Memory of a kind that no pipe can refer to.
      lends_pages_ = false;
      continue;
    }
    if (!written) return bus::unexpected(written.error());
    if (*written > 0 && all.by_page) {
      has_lent_ = true;
      copied_since_ = 0;
    } else {
      copied_since_ += *written;
    }
    advance(*written);
    if (*written < all.bytes) return false;
  }
}

// Takes as many from the front as one call can lend, and writes their heads. These must stay as
// they are until the peer has read them.
void outflow::begin_series() noexcept {
  std::uint64_t bytes = 0;
  for (const std::uint32_t entry : queue_) {
    if (!goes_by_page(entry) || series_ == series_max || bytes >= call_bytes_max) break;
    const bus::sample& one = purse_.held(entry);
    if (series_ > 0) heads_[queue_[series_ - 1]].head = head_of(word::more, queue_[series_ - 1]);
    heads_[entry] = {head_of(word::message, entry), one.head()};
    bytes += one.payload().size();
    ++series_;
  }
  heads_left_ = series_ * sizeof(message_layout);
}

void outflow::gather(gathered& all) noexcept {
  all.count = 0;
  all.bytes = 0;
  all.by_page = false;
  std::uint64_t none = 0;
  if (!said_.empty()) all.add(std::span(said_).subspan(said_at_), none);
  if (series_ > 0) {
    // What was said before is not lent.
    if (all.count == 0 || !lends_pages_) gather_series(all);
    return;
  }
  std::uint64_t skip = at_;
  std::size_t records = 0;
  for (const std::uint32_t entry : queue_) {
    if (records == records_max || all.bytes >= call_bytes_max || goes_by_page(entry)) break;
    if (entry == bye_entry) {
      all.add(bytes_of(bye), skip);
    } else {
      const bus::sample& one = purse_.held(entry);
      message_layout& head = all.heads[records];
      head = {head_of(word::message, entry), one.head()};
      all.add(bytes_of(head), skip);
      all.add(one.payload(), skip);
    }
    ++records;
  }
}

void outflow::gather_series(gathered& all) noexcept {
  all.by_page = lends_pages_;
  if (heads_left_ > 0) {
    std::uint64_t skip = series_ * sizeof(message_layout) - heads_left_;
    for (std::size_t first = 0, next = 0; first < series_; first = next) {
      do ++next;
      while (next < series_ && queue_[next] == queue_[next - 1] + 1);
      all.add(std::as_bytes(std::span(heads_).subspan(queue_[first], next - first)), skip);
    }
  }
  std::uint64_t skip = at_;
  for (std::size_t i = 0; i < series_; ++i) all.add(purse_.held(queue_[i]).payload(), skip);
}

void outflow::advance(std::size_t bytes) noexcept {
  const std::size_t said = std::min(bytes, said_.size() - said_at_);
  said_at_ += said;
  bytes -= said;
  if (said_at_ == said_.size()) {
    said_.clear();
    said_at_ = 0;
  }
  const std::uint64_t heads = std::min<std::uint64_t>(bytes, heads_left_);
  heads_left_ -= heads;
  at_ += bytes - heads;
  while (!queue_.empty() && heads_left_ == 0 && at_ >= bytes_of_entry(queue_.front())) {
    at_ -= bytes_of_entry(queue_.front());
    if (series_ > 0) --series_;
    if (queue_.front() == bye_entry) {
      --byes_;
    } else {
      is_queued_[queue_.front()] = false;
      waiting_bytes_ -= purse_.held(queue_.front()).payload().size();
    }
    queue_.pop_front();
  }
}

void outflow::clear(bool lose_pages) noexcept {
  if (lose_pages) {
    struct lost_pages {
      bus::purse samples;
      std::vector<message_layout> heads;
    };
    static_cast<void>(new (std::nothrow) lost_pages{std::move(purse_), std::move(heads_)});
    purse_ = bus::purse();
  }
  purse_.clear();
  queue_.clear();
  waiting_bytes_ = 0;
  said_.clear();
  said_at_ = 0;
  at_ = 0;
  series_ = 0;
  heads_left_ = 0;
  byes_ = 0;
}

}  // namespace transports::pipes
