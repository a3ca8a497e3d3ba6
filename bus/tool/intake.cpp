#include "bus/tool/intake.hpp"

#include "bus/tool/framing.hpp"

namespace bus::tool {
namespace {

// Small messages go to the program together, up to about so much at once.
constexpr std::size_t gathered_usual = 64UL << 10;

}  // namespace

intake::intake(session& joined, const manner& how)
    : how_(how),
      heard_(joined.node().subscribe<raw>(how.pattern,
                                          {.when_full = drop::none, .block_for = how.block_for})),
      stirred_(joined.inside()) {}

void intake::look() {
  // One may have come and gone since we last looked.
  had_source_ = had_source_ || heard_.matched() > 0 || heard_.matched_ever() != known_;
  if (waiting() > 0 || is_over()) stirred_.raise();
}

bool intake::is_over() {
  return !how_.keeps_open && had_source_ && heard_.matched() == 0 && waiting() == 0;
}

void intake::gather() {
  while (gathered_.size() < gathered_usual && waiting() > 0) {
    const auto message = heard_.try_take();
    if (!message) return;
    had_source_ = true;
    const auto bytes = message->bytes();
    if (how_.as_frames) {
      const frame_head head = head_of_frame(bytes.size());
      gathered_.insert(gathered_.end(), head.begin(), head.end());
    }
    gathered_.insert(gathered_.end(), bytes.begin(), bytes.end());
  }
}

void intake::stop() {
  if (!into_) return;
  unread_bytes_ += into_->in_pipe();
  into_->close();
  stirred_.raise();
}

asio::awaitable<void> intake::feed(stream_end& into) {
  into_ = &into;
  bool is_read = true;
  while (is_read && into.is_open()) {
    gather();
    if (!gathered_.empty()) {
      const std::uint64_t before = into.passed();
      is_read = co_await into.write_all(gathered_);
      unread_bytes_ += gathered_.size() - (into.passed() - before);
      gathered_.clear();
      continue;
    }
    if (is_over()) break;
    co_await stirred_.wait();
  }
  if (!is_read) stop();
  into.close();
  into_ = nullptr;
  had_source_ = false;
  known_ = heard_.matched_ever();
}

}  // namespace bus::tool
