#include "transports/pipe/cable.hpp"

#include "bus/base/clock.hpp"
#include "transports/pipe/hub.hpp"
#include "transports/pipe/outbox.hpp"

#include <algorithm>
#include <utility>

#include <sys/epoll.h>

namespace transports::pipes {
namespace {

// Told in one go before the next cable has its turn: bounds the time of one poll.
constexpr std::size_t receive_most = 256;
// Ways that have ended and are not handed out yet; a peer that opens and ends more has to wait.
constexpr std::size_t leavings_max = 16;
// Credits go home in batches; a few may wait this long, which costs a quiet sender at most that.
constexpr std::int64_t report_after_ns = 5'000'000;
// So much is reported at once: it is memory that the sender could use while it is still in its
// cache.
constexpr std::uint64_t report_bytes = 256 << 10;
// A stream: so many messages in a row, each so soon after the last one; a write takes about as
// long. Guesses.
constexpr unsigned brisk_least = 8;
constexpr unsigned brisk_most = 64;
constexpr std::int64_t brisk_ns = 4'000;
// What is written at once: more would make a message no cheaper.
constexpr std::uint64_t hold_bytes = 64 << 10;

}  // namespace

cable::cable(hub& within, ends pipes, std::uint32_t number, bus::node_id expected)
    : hub_(&within),
      ends_(std::move(pipes)),
      number_(number),
      peer_(expected),
      outflow_(ends_.name().lends_pages),
      bytes_max_(within.bytes_max()) {
  tab_.open(within.setup().link_depth, within.setup().link_bytes_max);
}

bus::result<void> cable::open() {
  const bus::transport_setup& setup = hub_->setup();
  auto watched = hub_->watch(ends_.in(), in_, EPOLLIN);
  if (watched) watched = hub_->watch(ends_.out(), out_, 0);
  if (!watched) {
    hub_->forget(ends_.in());
    ends_.close();
    state_ = bus::link_state::gone;
    return watched;
  }
  hello_layout hello;
  hello.node = setup.id.value;
  hello.target = peer_.value;
  hello.bytes_max = bytes_max_;
  hello.link_bytes_max = setup.link_bytes_max;
  hello.depth = setup.link_depth;
  outflow_.say(bytes_of(hello));
  flush(false);
  return {};
}

// ---------------------------------------------------------------- outboxes

void cable::attach(peer_outbox& one) { outboxes_.push_back(&one); }

void cable::detach(peer_outbox& one) noexcept {
  std::erase(outboxes_, &one);
  std::replace(owners_.begin(), owners_.end(), &one, static_cast<peer_outbox*>(nullptr));
  if (!outboxes_.empty() || state_ == bus::link_state::gone || hub_->is_forked()) return;
  if (!std::exchange(is_spoken_, false)) return;
  {
    const auto alone = hub_->courier().lock();
    outflow_.queue_bye();
  }
  flush(false);
}

bool cable::has_room_for_a_way() noexcept {
  const auto alone = hub_->courier().lock();
  return outflow_.byes() < leavings_max;
}

std::size_t cable::post(std::span<const bus::sample> batch, peer_outbox& by) noexcept {
  std::size_t taken = 0;
  {
    const auto alone = hub_->courier().lock();
    for (const bus::sample& one : batch) {
      const std::uint64_t bytes = one.head().bytes;
      if (bytes > bytes_max_ || !outflow_.purse().has_room(bytes)) break;
      owners_[outflow_.queue(one)] = &by;
      ++taken;
    }
    if (taken > 0) is_spoken_ = true;
    if (taken == batch.size() && may_hold(batch.back().head())) return taken;
  }
  if (is_full_ || (taken == 0 && !is_held_)) return taken;
  flush(false);
  // What the write took is no pause of the sender's.
  if (brisk_ + 1 >= brisk_least) posted_at_ns_ = bus::steady_ns();
  return taken;
}

// Whether what was just queued may wait for more. Requires: the courier's lock.
bool cable::may_hold(const bus::frame& last) noexcept {
  const bus::purse& sent = outflow_.purse();
  if (outflow_.waiting_bytes() >= std::min(hold_bytes, sent.bytes_max() / 4) ||
      outflow_.waiting() >= std::min(series_max, sent.depth() / 4)) {
    return false;
  }
  if (std::exchange(has_turned_, false)) {
    brisk_ /= 2;
    return false;
  }
  // Only who may be a stream has its pauses measured.
  if (brisk_ < brisk_least) {
    ++brisk_;
    return false;
  }
  const std::int64_t now_ns = bus::steady_ns();
  if (now_ns - std::exchange(posted_at_ns_, now_ns) >= brisk_ns) {
    brisk_ /= 2;
    return false;
  }
  brisk_ = std::min(brisk_ + 1, brisk_most);
  if (is_full_) return false;
  // Somebody waits for those.
  if ((last.flags & bus::frame_flag::control) != 0) return false;
  if (!is_expected_) is_expected_ = hub_->courier().expect(*this);
  is_held_ = is_held_ || is_expected_;
  return is_expected_;
}

// Requires: the courier's lock.
void cable::stop_holding() noexcept {
  is_held_ = false;
  if (std::exchange(is_expected_, false)) hub_->courier().forget(*this);
}

// On the courier's thread. What is owed, a pipe that is full or one that has ended are for our own
// to see.
void cable::deliver() noexcept {
  is_expected_ = false;
  bus::tab nothing;
  static_cast<void>(outflow_.flush(ends_, nothing, false));
}

void cable::flush(bool report) noexcept {
  bus::result<bool> flushed = true;
  {
    const auto alone = hub_->courier().lock();
    stop_holding();
    flushed = outflow_.flush(ends_, tab_, report);
  }
  if (!flushed) {
    // Its reading end is closed. What it had said before still counts.
    bury();
  } else if (*flushed == is_full_) {
    is_full_ = !*flushed;
    hub_->watch_again(ends_.out(), out_, is_full_ ? EPOLLOUT : 0U);
  }
  urgent_ = urgent_ && tab_.owes();
}

void cable::resume() noexcept {
  if (is_full_) flush(true);
}

void cable::changed() noexcept {
  for (peer_outbox* const one : outboxes_) {
    if (one->changed()) hub_->ring();
  }
}

// ---------------------------------------------------------------- what the peer says

bool cable::receive() noexcept { return leavings_ < leavings_max && take_in(receive_most); }

void cable::glance() noexcept {
  has_glanced_ = !has_glanced_;
  if (has_glanced_ && !has_more_) return;
  receive();
  resume();
}

bool cable::take_in(std::size_t most) noexcept {
  if (state_ == bus::link_state::gone) return false;
  const std::uint64_t before = intake_.bytes();
  const auto more = intake_.receive(ends_, *this, most);
  has_more_ = more && *more;
  if (!more) end(more.error());
  return intake_.bytes() != before;
}

bus::result<void> cable::greeted(const hello_layout& hello) {
  const bus::transport_setup& setup = hub_->setup();
  if (hello.node == 0 || hello.depth == 0) return bus::unexpected(bus::errc::bad_message);
  if (hello.target != 0 && hello.target != setup.id.value) {
    return bus::unexpected(bus::errc::not_found);
  }
  if (peer_.value != 0 && peer_.value != hello.node) return bus::unexpected(bus::errc::not_found);
  const bus::node_id speaker{hello.node};
  // Which of two links a leaving is of could not be told; and nobody needs a pipe to itself.
  if (speaker == setup.id || hub_->has_another_to(speaker, *this)) {
    return bus::unexpected(bus::errc::exists);
  }
  peer_ = speaker;
  const std::uint32_t depth = std::min(hello.depth, setup.link_depth);
  const std::uint64_t in_flight = std::min(hello.link_bytes_max, setup.link_bytes_max);
  {
    const auto alone = hub_->courier().lock();
    outflow_.open(depth, in_flight);
  }
  owners_.assign(depth, nullptr);
  bytes_max_ = std::min({hello.bytes_max, bytes_max_, in_flight});
  witness_.look(ends_.in());
  if (witness_.descriptor() >= 0) {
    auto watched = hub_->watch(witness_.descriptor(), process_, EPOLLIN);
    if (!watched) return watched;
  } else if (witness_.must_ask()) {
    check_at_ns_ = bus::steady_ns() + witness::look_every_ns;
    hub_->schedule(check_at_ns_);
  }
  state_ = bus::link_state::open;
  changed();
  return {};
}

bus::result<bus::loan> cable::announced(const bus::frame& head, std::uint32_t credit) {
  auto sound = bus::check(head, hub_->bytes_max());
  if (!sound || !tab_.may_use(credit, head.bytes)) return bus::unexpected(bus::errc::bad_message);
  auto memory = hub_->memory().lend(head.bytes);
  // From now on: others may be announced before this one is here.
  if (memory) tab_.use(credit, head.bytes);
  return memory;
}

void cable::arrived(bus::loan payload, const bus::frame& head, std::uint32_t credit) {
  speaks_ = true;
  // Whether a control message got through is asked by somebody who waits.
  urgent_ = urgent_ || (head.flags & bus::frame_flag::control) != 0;
  bus::frame ours = head;
  ours.node = peer_.value;
  arrivals_.push_back(
      {hub_->homes().send_out(std::move(payload).commit(ours), number_, credit), {}});
}

bus::result<void> cable::released(bus::credit_run run) {
  if (run.first >= owners_.size() || run.count > owners_.size() - run.first) {
    return bus::unexpected(bus::errc::bad_message);
  }
  {
    const auto alone = hub_->courier().lock();
    if (!outflow_.has_left(run) || !outflow_.purse().take_back(run)) {
      return bus::unexpected(bus::errc::bad_message);
    }
  }
  for (std::uint32_t credit = run.first; credit < run.first + run.count; ++credit) {
    if (owners_[credit]) owners_[credit]->settled();
  }
  changed();
  return {};
}

bus::result<void> cable::parted() {
  // Only what was begun can end.
  if (!std::exchange(speaks_, false)) return bus::unexpected(bus::errc::bad_message);
  arrivals_.push_back({{}, bus::errc::closed});
  ++leavings_;
  return {};
}

// ---------------------------------------------------------------- out of here

std::size_t cable::hand_out(std::size_t most, bus::sink& into) noexcept {
  std::size_t handed = 0;
  while (handed < most && !arrivals_.empty() && arrivals_.front().memory) {
    bus::sample one = std::move(arrivals_.front().memory);
    arrivals_.pop_front();
    handed += std::max(1U, one.messages());
    into.accept(std::move(one));
  }
  return handed;
}

void cable::tell_leaving(bus::sink& into) noexcept {
  while (!arrivals_.empty() && !arrivals_.front().memory) {
    const std::error_code why = arrivals_.front().left;
    arrivals_.pop_front();
    --leavings_;
    into.left(peer_, why);
  }
}

void cable::let_go(std::uint32_t credit, std::uint64_t bytes, std::int64_t now_ns) noexcept {
  if (state_ == bus::link_state::gone) return;
  if (!tab_.owes()) due_ns_ = now_ns + report_after_ns;
  tab_.release(credit, bytes);
}

std::int64_t cable::report(std::int64_t now_ns) noexcept {
  if (state_ == bus::link_state::gone || !tab_.owes()) return INT64_MAX;
  // Goes out with the rest when the pipe is read: see resume.
  if (is_full_) return INT64_MAX;
  const std::uint64_t much = std::min(hub_->setup().link_bytes_max / 4, report_bytes);
  if (!urgent_ && !tab_.is_missed(much) && now_ns < due_ns_) return due_ns_;
  flush(true);
  return INT64_MAX;
}

// ---------------------------------------------------------------- ends

void cable::stir(source what, std::uint32_t events) noexcept {
  if (state_ == bus::link_state::gone) return;
  if (what == source::process || (events & EPOLLERR) != 0) {
    bury();
  } else if (what == source::out) {
    resume();
  } else {
    receive();
  }
}

std::int64_t cable::check(std::int64_t now_ns) noexcept {
  if (state_ == bus::link_state::gone || now_ns < check_at_ns_) return check_at_ns_;
  check_at_ns_ = INT64_MAX;
  if (witness_.is_dead(ends_.in())) {
    bury();
  } else {
    check_at_ns_ = now_ns + witness::look_every_ns;
  }
  return check_at_ns_;
}

// The peer is no more, whoever else may still hold its ends. What it wrote is read first.
void cable::bury() noexcept {
  do {
    take_in(SIZE_MAX);
  } while (state_ != bus::link_state::gone && has_more_);
  if (state_ != bus::link_state::gone) end(bus::errc::gone);
}

bool cable::is_owing() noexcept {
  if (state_ != bus::link_state::open) return false;
  const auto alone = hub_->courier().lock();
  return !outflow_.is_idle() || (outflow_.has_lent() && outflow_.lends(ends_.unread()));
}

void cable::end(std::error_code why) noexcept {
  if (state_ == bus::link_state::gone) return;
  if (why != bus::errc::gone && why != bus::errc::closed) hub_->note_refusal(*this, why);
  state_ = bus::link_state::gone;
  reason_ = why;
  if (std::exchange(speaks_, false)) {
    arrivals_.push_back({{}, why});
    ++leavings_;
  }
  if (witness_.descriptor() >= 0) hub_->forget(witness_.descriptor());
  hub_->forget(ends_.in());
  hub_->forget(ends_.out());
  {
    const auto alone = hub_->courier().lock();
    stop_holding();
    // Pages that a peer may still read must not become somebody else's message.
    const bool lose_pages =
        outflow_.has_lent() && outflow_.lends(ends_.unread()) && !ends_.take_back_unread();
    outflow_.clear(lose_pages);
    ends_.close();
  }
  intake_ = intake();
  has_more_ = false;
  owners_.clear();
  for (peer_outbox* const one : outboxes_) one->settled_all();
  changed();
  hub_->note_end();
}

std::string cable::describe() const {
  const auto name = [](const end_name& one) { return std::to_string(one.descriptor); };
  const pair_name& pair = ends_.name();
  std::string text = "pipe " + name(pair.in) + "," + name(pair.out);
  if (pair.lends_pages) text += ",pages";
  text += ", node " + bus::to_hex(peer_.value);
  if (state_ == bus::link_state::gone) return text + ": gone, " + reason_.message();
  if (state_ == bus::link_state::opening) return text + ": waiting for its hello";
  const bus::purse& sent = outflow_.purse();
  return text + ": " + witness_.describe() + ", woken by the pipe, " +
         std::to_string(sent.in_flight()) + " of " + std::to_string(sent.depth()) +
         " samples and " + std::to_string(sent.bytes_in_flight()) + " of " +
         std::to_string(sent.bytes_max()) + " bytes in flight";
}

}  // namespace transports::pipes
