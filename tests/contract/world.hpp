// The stage on which every transport plays the same contract (suite.inc): parties, each what a node
// would be to its transport (an id, a bell, a transport and a sink that remembers), in a scratch
// directory that goes away with the world.
//
// A party waits exactly as a node does: it polls; arms bell, inbox and outboxes; and sleeps in
// poll(2) on the bell and on wait_handle(). It attends only when wait_handle() is readable. Nothing
// here sleeps for a time and hopes: a wakeup that is lost becomes a deadline that passes.
//
// Trouble is thrown as std::runtime_error, since Catch's assertions belong to the main thread and
// parties may have threads of their own (see together()).
#pragma once

#include "bus/base/clock.hpp"
#include "bus/base/ids.hpp"
#include "bus/link/bell.hpp"
#include "bus/link/pool.hpp"
#include "bus/link/transport.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>

namespace contract {

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

// How long anything may take before it counts as never. Generous: machines are shared, and the
// sanitizers slow everything down.
inline constexpr std::chrono::seconds patience = 20s;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif
#else
inline constexpr bool sanitized = false;
#endif
// ThreadSanitizer has a thread of its own in every process.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool has_second_thread = true;
#else
inline constexpr bool has_second_thread = false;
#endif
// Repetitions of the stress cases: instrumented code is about ten times slower.
inline constexpr std::uint64_t times(std::uint64_t count) { return sanitized ? count / 10 : count; }

// For loops of millions, too: nothing is allocated for what holds.
inline void must(bool condition, std::string_view otherwise) {
  if (!condition) throw std::runtime_error(std::string(otherwise));
}

// --- payloads that prove themselves
// The first word is the key, the second the sequence, and each later one follows from both and from
// its place: no byte can be torn, swapped, stale or somebody else's without being seen.
[[nodiscard]] inline std::uint64_t word_at(std::uint64_t key, std::uint64_t sequence,
                                           std::size_t index) {
  if (index == 0) return key;
  if (index == 1) return sequence;
  std::uint64_t mixed = key + sequence * 0x9e3779b97f4a7c15ULL + index * 0xbf58476d1ce4e5b9ULL;
  mixed ^= mixed >> 31;
  return mixed * 0x94d049bb133111ebULL;
}

inline void fill(std::span<std::byte> payload, std::uint64_t key, std::uint64_t sequence) {
  for (std::size_t at = 0; at < payload.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t word = word_at(key, sequence, at / sizeof word);
    std::memcpy(payload.data() + at, &word, std::min(sizeof word, payload.size() - at));
  }
}

// Whether every byte is as filled for the key in frame::correlation and the sequence in the frame.
[[nodiscard]] inline bool proves(const bus::sample& arrived) {
  const auto payload = arrived.payload();
  if (payload.size() != arrived.head().bytes) return false;
  for (std::size_t at = 0; at < payload.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t word =
        word_at(arrived.head().correlation, arrived.head().sequence, at / sizeof word);
    if (std::memcmp(payload.data() + at, &word, std::min(sizeof word, payload.size() - at)) != 0) {
      return false;
    }
  }
  return true;
}

[[nodiscard]] inline bus::frame frame_for(std::uint64_t node, std::uint64_t key,
                                          std::uint64_t sequence, std::uint64_t bytes) {
  bus::frame head;
  head.node = node;
  head.publisher = 7;
  head.topic_hash = bus::hash64("contract");
  head.sequence = sequence;
  head.correlation = key;
  head.bytes = bytes;
  return head;
}

// A sample that claims `bytes` of payload and has none: whoever looks at its payload before its
// size crashes.
class phantom final : public bus::lender {
 public:
  explicit phantom(const bus::frame& claim) : head_(claim) {
    block_.home = this;
    block_.head = &head_;
    block_.references.store(1);
  }
  [[nodiscard]] bus::sample get() { return bus::sample(block_); }
  void take_back(bus::block&) noexcept override {}

 private:
  bus::frame head_;
  bus::block block_;
};

// --- a sink that remembers
class ear final : public bus::sink {
 public:
  struct departure {
    bus::node_id peer;
    std::error_code reason;
    std::uint64_t accepted_before = 0;  // samples of this peer accepted before it left
  };

  void accept(bus::sample&& arrived) noexcept override {
    ++accepted;
    const std::uint64_t node = arrived.head().node;
    for (const departure& gone : departures) spoke_after_leaving |= gone.peer.value == node;
    if (!proves(arrived)) ++unproved;
    if (on_sample) on_sample(arrived);
    if (keep) samples.push_back(std::move(arrived));
  }
  void left(bus::node_id peer, std::error_code reason) noexcept override {
    departures.push_back({peer, reason, from(peer)});
  }
  // Kept samples of one peer.
  [[nodiscard]] std::uint64_t from(bus::node_id peer) const {
    return static_cast<std::uint64_t>(
        std::count_if(samples.begin(), samples.end(),
                      [&](const bus::sample& one) { return one.head().node == peer.value; }));
  }
  // Whether the kept samples are exactly first, first + 1, ... in order.
  [[nodiscard]] bool in_order(std::uint64_t first = 1) const {
    return std::all_of(samples.begin(), samples.end(),
                       [&](const bus::sample& one) { return one.head().sequence == first++; });
  }

  bool keep = true;
  std::function<void(const bus::sample&)> on_sample;
  std::vector<bus::sample> samples;
  std::vector<departure> departures;
  std::uint64_t accepted = 0;
  std::uint64_t unproved = 0;
  bool spoke_after_leaving = false;
};

// --- what a node would be to its transport
class party {
 public:
  party(const bus::transport_maker& maker, bus::transport_setup setup) : depth(setup.link_depth) {
    auto made_bell = bus::bell::make();
    must(made_bell.has_value(), "bell: " + made_bell.error().message());
    doorbell = std::move(*made_bell);
    setup.id = id;
    setup.doorbell = doorbell.get();
    auto made = maker.make(setup);
    must(made.has_value(), maker.scheme + ": " + made.error().message());
    carrier = std::move(*made);
  }
  party(const party&) = delete;
  party& operator=(const party&) = delete;
  // Samples first, so that a case may hold them longer only on purpose; outboxes before transport.
  ~party() {
    heard.samples.clear();
    die();
  }
  // What peers see when the node ends. Kept samples stay.
  void die() {
    ways.clear();
    carrier.reset();
  }

  [[nodiscard]] bus::inbox& inbox() { return carrier->arrivals(); }
  [[nodiscard]] std::string where() const { return carrier->where(); }

  bus::outbox& connect(bus::node_id peer, const std::string& address) {
    auto opened = carrier->connect(peer, address);
    must(opened.has_value(), "connect " + address + ": " + opened.error().message());
    ways.push_back(std::move(*opened));
    return *ways.back();
  }

  // A message of `bytes`, filled where the transport lends it.
  [[nodiscard]] bus::sample make(std::uint64_t sequence, std::uint64_t bytes) {
    auto lent = carrier->lend(bytes);
    if (!lent) must(false, "lend " + std::to_string(bytes) + ": " + lent.error().message());
    if (lent->bytes().size() < bytes) must(false, "a loan smaller than asked for");
    fill(lent->bytes().first(bytes), id.value, sequence);
    return std::move(*lent).commit(frame_for(id.value, id.value, sequence, bytes));
  }
  [[nodiscard]] std::vector<bus::sample> make_many(std::uint64_t first, std::size_t count,
                                                   std::uint64_t bytes) {
    std::vector<bus::sample> made;
    for (std::size_t i = 0; i < count; ++i) made.push_back(make(first + i, bytes));
    return made;
  }

  // Attends if there is something to attend to, and polls once. True if anything arrived.
  bool step(std::size_t budget = 64) {
    if (!carrier) return false;
    pollfd control{inbox().wait_handle(), POLLIN, 0};
    if (control.fd >= 0 && ::poll(&control, 1, 0) == 1) inbox().attend(heard);
    return inbox().poll(budget, heard) > 0;
  }

  // The first half of sleeping: false means that something came first.
  [[nodiscard]] bool arm() {
    doorbell->arm_descriptors();
    bool quiet = !carrier || inbox().arm();
    for (auto& way : ways) {
      if (way->state() != bus::link_state::gone) quiet = way->arm() && quiet;
    }
    return quiet;
  }
  void disarm() {
    if (carrier) inbox().disarm();
    doorbell->disarm();
  }
  void add_descriptors(std::vector<pollfd>& to) {
    for (const int descriptor : doorbell->descriptors()) to.push_back({descriptor, POLLIN, 0});
    to.push_back({carrier ? inbox().wait_handle() : -1, POLLIN, 0});
  }
  void drain(std::span<const pollfd> found) {
    for (const pollfd& one : found.first(2)) {
      if (one.revents != 0) doorbell->drain(one.fd);
    }
  }

  bus::node_id id = bus::node_id::random();
  std::uint32_t depth;
  std::unique_ptr<bus::bell> doorbell;
  std::unique_ptr<bus::transport> carrier;
  std::vector<std::unique_ptr<bus::outbox>> ways;
  ear heard;
};

using parties = std::vector<party*>;

[[nodiscard]] inline int timeout_ms(bus::deadline until) {
  const std::int64_t left_ns = until.at_ns() - bus::steady_ns();
  return static_cast<int>(std::clamp<std::int64_t>((left_ns + 999'999) / 1'000'000, 0, INT_MAX));
}

// Sleeps until one of `all` has something to do; false if `until` passed first.
inline bool sleep(const parties& all, bus::deadline until) {
  constexpr std::size_t each = 3;  // signalfd, eventfd, wait_handle
  std::vector<pollfd> watched;
  bool quiet = true;
  for (party* one : all) {
    quiet = one->arm() && quiet;
    one->add_descriptors(watched);
  }
  int found = 1;
  if (quiet) found = ::poll(watched.data(), watched.size(), timeout_ms(until));
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i]->drain(std::span(watched).subspan(i * each, each));
    all[i]->disarm();
  }
  return found != 0;
}

struct pump_options {
  std::chrono::nanoseconds timeout = patience;
  // Memory that comes home rings nobody, so who waits for that looks again this often.
  std::chrono::nanoseconds look_every = patience;
  std::size_t budget = 64;  // of each party's poll; 0: the predicate polls
};

// Lets all parties live until `done`, or false after the timeout.
template <class Predicate>
[[nodiscard]] bool pump_until(const parties& all, Predicate done, pump_options options = {}) {
  const auto until = bus::deadline::after(options.timeout);
  for (;;) {
    bool busy = false;
    for (party* one : all) busy = one->step(options.budget) || busy;
    if (done()) return true;
    if (until.passed()) return false;
    if (busy) continue;
    const auto look = bus::deadline::after(options.look_every);
    static_cast<void>(sleep(all, look.at_ns() < until.at_ns() ? look : until));
  }
}

// Sends all of `batch`, letting `all` live while the way is full. Empties `batch` on success.
inline void send_all(const parties& all, bus::outbox& way, std::vector<bus::sample>& batch) {
  std::size_t sent = 0;
  std::error_code failed;
  const bool done = pump_until(all, [&] {
    auto taken = way.send(std::span<const bus::sample>(batch).subspan(sent));
    if (!taken) failed = taken.error();
    if (taken) sent += *taken;
    return failed || sent == batch.size();
  });
  must(!failed, "send: " + failed.message());
  must(done, "send: still full after " + std::to_string(patience.count()) + " s");
  batch.clear();
}
inline void send_all(const parties& all, bus::outbox& way, std::vector<bus::sample>&& batch) {
  send_all(all, way, batch);
}

// Runs each body in a thread of its own and throws what the first failing one threw.
inline void together(std::initializer_list<std::function<void()>> bodies) {
  std::vector<std::exception_ptr> failures(bodies.size());
  std::vector<std::thread> threads;
  for (const auto& body : bodies) {
    threads.emplace_back([&body, &failure = failures[threads.size()]] {
      try {
        body();
      } catch (...) {
        failure = std::current_exception();
      }
    });
  }
  for (std::thread& one : threads) one.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

struct limits {
  std::uint64_t memory_bytes_max = 256ULL << 20;
  std::uint32_t link_depth = 256;
};

template <class Case>
class world {
 public:
  world() {
    const char* const base = std::getenv("TMPDIR");
    scratch_ = std::string(base ? base : "/tmp") + "/omnibus-contract-XXXXXX";
    must(::mkdtemp(scratch_.data()) != nullptr, "mkdtemp " + scratch_);
  }
  world(const world&) = delete;
  world& operator=(const world&) = delete;
  ~world() {
    parties_.clear();
    std::error_code ignored;  // a test's rubbish is no reason to fail it
    std::filesystem::remove_all(scratch_, ignored);
  }

  // A party of the calling thread that belongs to the caller. Any thread.
  [[nodiscard]] std::unique_ptr<party> make(limits within = {}) const {
    bus::transport_setup setup;
    setup.memory_bytes_max = within.memory_bytes_max;
    setup.link_depth = within.link_depth;
    Case::prepare(setup, scratch_);
    return std::make_unique<party>(Case::maker(), setup);
  }
  // A party of the main thread that lives as long as the world.
  [[nodiscard]] party& add(limits within = {}) {
    parties_.push_back(make(within));
    return *parties_.back();
  }
  [[nodiscard]] parties all() const {
    parties pointers;
    for (const auto& one : parties_) pointers.push_back(one.get());
    return pointers;
  }

  template <class Predicate>
  [[nodiscard]] bool pump_until(Predicate done, pump_options options = {}) const {
    return contract::pump_until(all(), done, options);
  }
  // Waits for memory to come home.
  template <class Predicate>
  [[nodiscard]] bool comes_home(Predicate done) const {
    return contract::pump_until(all(), done, {.look_every = 5ms});
  }

  // An open way from one party into another.
  [[nodiscard]] bus::outbox& link(party& from, party& to) const {
    bus::outbox& way = from.connect(to.id, to.where());
    must(pump_until([&] { return way.state() != bus::link_state::opening; }), "never opened");
    must(way.state() == bus::link_state::open, "gone: " + way.reason().message());
    return way;
  }
  // Waits until every peer has let go of everything. Drop what was kept first.
  void settle() const {
    must(pump_until([&] {
           for (const auto& one : parties_) {
             for (const auto& way : one->ways) {
               if (way->unsettled() != 0) return false;
             }
           }
           return true;
         }),
         "never settled");
  }
  [[nodiscard]] const std::string& scratch() const { return scratch_; }

 private:
  std::string scratch_;
  std::vector<std::unique_ptr<party>> parties_;
};

}  // namespace contract
