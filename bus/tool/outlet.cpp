#include "bus/tool/outlet.hpp"

#include "bus/link/batch.hpp"

#include <algorithm>
#include <cstdio>
#include <set>

#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <fmt/format.h>

namespace bus::tool {
namespace {

using namespace std::chrono_literals;

// A subscriber that is there already is waited for this long when nobody said how many.
constexpr std::chrono::nanoseconds courtesy = 2s;
// Whoever waits for room looks this often whether it is still to wait.
constexpr std::chrono::nanoseconds slice = 100ms;
// Memory comes home, and messages are let go of, without a word.
constexpr std::chrono::nanoseconds pause_for_memory = 1ms;

// How many peers will take what we publish, as far as their cards say.
std::size_t interested(core& inside, const std::string& topic, const type_info& type) {
  wire::Type words;
  words.set_name(type.name);
  words.set_hash(type.hash);
  std::set<node_id> peers;
  inside.known().for_each_interested(topic, [&](node_id peer, const wire::Interest& interest) {
    if (types_agree(words, interest)) peers.insert(peer);
  });
  return peers.size();
}

// What its parent says of a topic that a locked-in child may not publish; empty: nothing.
std::string refusal_of(node& child, const std::string& topic) {
  const explanation told = child.why(topic);
  return told.broken.starts_with("rights: ") ? told.broken + "; " + told.fix : std::string();
}

asio::awaitable<void> pause(asio::io_context& context, std::chrono::nanoseconds length) {
  asio::steady_timer timer(context, length);
  co_await timer.async_wait(asio::use_awaitable);
}

}  // namespace

outlet::outlet(session& joined, const manner& how)
    : joined_(joined),
      type_(how.type),
      patience_(how.patience),
      source_(joined.node().advertise(how.topic, how.type)) {}

void outlet::wait_subscribers(std::uint64_t wanted, double timeout_s) {
  // Who is in no bus directory cannot know who is there already, and waits for the first one.
  const bool is_apart = joined_.node().directory() == no_directory;
  std::uint64_t there = wanted;
  if (wanted == 0) there = is_apart ? 1 : interested(joined_.inside(), topic(), type_);
  std::string refusal;
  const auto how = joined_.run(wanted > 0 ? seconds(timeout_s) : courtesy, [&] {
    if (is_apart) refusal = refusal_of(joined_.node(), topic());
    return source_.matched() >= there || is_over() || !refusal.empty();
  });
  if (!refusal.empty()) throw failure(exit_code::not_so, refusal);
  if (how != session::ending::timeout) return;
  if (wanted == 0 && is_apart) {
    std::fprintf(stderr, "bus: nobody takes what is published to %s so far\n", topic().c_str());
    return;
  }
  if (wanted == 0) {
    std::fprintf(stderr, "bus: %zu of %zu subscribers do not answer; try: bus why '%s'\n",
                 static_cast<std::size_t>(there) - source_.matched(),
                 static_cast<std::size_t>(there), topic().c_str());
    return;
  }
  throw failure(exit_code::timeout,
                fmt::format("{} of {} subscribers matched in {} s; try: bus why '{}'",
                            source_.matched(), wanted, timeout_s, topic()));
}

// Whether a link is full, and that is not so for long. Who blocks is asked when it is published to.
bool outlet::must_wait() {
  if (patience_ == 0ns) return false;
  if (source_.has_room()) {
    stalled_since_ns_ = 0;
    return false;
  }
  if (is_over()) return false;
  const std::int64_t now = steady_ns();
  if (stalled_since_ns_ == 0) stalled_since_ns_ = now;
  return now - stalled_since_ns_ < patience_.count();
}

// False: nothing has happened, and it can be tried again.
bool outlet::settle(const published& outcome, std::size_t bytes) {
  const bool is_short = outcome.error == errc::timed_out || outcome.error == errc::no_memory;
  if (is_short && !is_over()) return false;
  if (outcome.error && !is_short) {
    throw failure(exit_code::not_so,
                  fmt::format("a message of {} bytes cannot be published on {}: {}", bytes, topic(),
                              outcome.error.message()));
  }
  const std::uint64_t refused = outcome.links - outcome.taken;
  missed_ += is_short ? 1 : refused * outcome.messages + outcome.blocked;
  return true;
}

bool outlet::send_now(message one) {
  if (must_wait()) return false;
  return settle(is_over() ? source_.publish(one) : source_.publish_wait(one, 0ns), one.size());
}

asio::awaitable<void> outlet::wait() {
  // Room is told of; memory is not.
  if (source_.has_room()) {
    co_await pause(joined_.context(), pause_for_memory);
  } else {
    static_cast<void>(co_await source_.room(slice));
  }
}

asio::awaitable<void> outlet::send(message one) {
  while (!send_now(one)) co_await wait();
}

// Publishes as many from the front as make one batch; returns how many, 0: somebody is to be waited
// for.
std::size_t outlet::send_batch(std::span<const message> all) {
  std::uint64_t end = 0;
  std::uint32_t count = 0;
  for (; count < all.size() && count < batch::messages_max; ++count) {
    const std::uint64_t longer = batch::next_place(end) + all[count].size();
    if (count > 0 && batch::bytes_for(longer, count + 1) > batch::bytes_usual) break;
    end = longer;
  }
  // Places with those who block are counted in messages.
  if (count == 1 || source_.is_gated()) return send_now(all.front()) ? 1 : 0;
  if (must_wait()) return 0;
  return settle(source_.publish(all.first(count)), end) ? count : 0;
}

asio::awaitable<void> outlet::send(std::span<const message> all) {
  while (!all.empty()) {
    const std::size_t sent = send_batch(all);
    if (sent == 0) co_await wait();
    all = all.subspan(sent);
  }
}

asio::awaitable<void> outlet::drain() {
  std::size_t least = source_.backlog();
  std::int64_t progress_ns = steady_ns();
  while (least > 0 && !is_over() && steady_ns() - progress_ns < patience_.count()) {
    co_await pause(joined_.context(), pause_for_memory);
    const std::size_t now = source_.backlog();
    if (now < least) progress_ns = steady_ns();
    least = std::min(least, now);
  }
}

}  // namespace bus::tool
