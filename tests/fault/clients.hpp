// Clients of the bus as processes of their own, which record what they saw: the publishers and
// subscribers of the numbered cases. A record lies in memory that is shared with the test, and so
// outlives a kill -9 at any instant.
//
// Words between a test and a client: the client says 1 when it is at work; any word to a publisher
// ends it, and it answers with its last sequence; a word to a subscriber ends it as soon as all
// publishers have left and it has accounted for so many messages.
#pragma once

#include "bus/bus.hpp"
#include "tests/fault/history.hpp"
#include "tests/fault/processes.hpp"
#include "tests/fault/shm_stage.hpp"
#include "transports/shm/shm.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include <sys/mman.h>

#include <asio/posix/stream_descriptor.hpp>

namespace fault {

using std::chrono_literals::operator""ns;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

// Many processes share few cores: what takes longer than this counts as never.
inline constexpr std::chrono::seconds long_patience = 90s;

// A history while it is made, by one process at a time. What a reader finds is what was there when
// the writer was last at work, whatever became of it.
class recorder {
 public:
  explicit recorder(std::size_t capacity = 1U << 20U) : capacity_(capacity) {
    void* const at = ::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    contract::must(at != MAP_FAILED, "no memory for a history");
    shared_ = static_cast<shared*>(at);
  }
  recorder(const recorder&) = delete;
  recorder& operator=(const recorder&) = delete;
  ~recorder() { ::munmap(shared_, bytes()); }

  // --- the client
  void begin(bus::node_id epoch) noexcept {
    shared_->epoch = epoch.value;
    shared_->began_ns = bus::steady_ns();
  }
  void attached() noexcept { shared_->attached_ns = bus::steady_ns(); }
  void attempt(std::uint64_t sequence) noexcept { shared_->attempted = sequence; }
  void publish(const message& sent, bool is_full) {
    append({.kind = what::published, .sequence = sent.sequence, .checksum = sent.checksum});
    shared_->full += is_full ? 1 : 0;
  }
  void deliver(const bus::received<message>& got) {
    append({.kind = what::delivered,
            .is_whole = got->checksum == checksum_of(*got) ? 1U : 0U,
            .sender = got.head().node,
            .sequence = got.head().sequence,
            .epoch = got->epoch,
            .claimed = got->sequence,
            .checksum = got->checksum});
  }
  void detach(std::uint64_t sender) { append({.kind = what::detached, .sender = sender}); }
  // A call that began then and has just ended, and was to take no longer than `allowed`.
  void lasted(std::int64_t since_ns, std::chrono::nanoseconds allowed = {}) noexcept {
    const std::int64_t took = bus::steady_ns() - since_ns - allowed.count();
    if (took > shared_->longest_call_ns) shared_->longest_call_ns = took;
  }
  void close(const bus::accounts& books) noexcept {
    shared_->expected = books.expected;
    shared_->delivered = books.delivered;
    shared_->queued = books.queued;
    shared_->lost = books.lost;
    shared_->has_books = 1;
  }
  void descriptors_left(std::int64_t count) noexcept { shared_->descriptors_left = count; }

  // --- client or test: it has left, or is dead
  void end() noexcept {
    if (shared_->ended_ns == 0) shared_->ended_ns = bus::steady_ns();
  }

  // --- the test
  [[nodiscard]] std::uint64_t epoch() const noexcept { return shared_->epoch; }
  // Publications and deliveries so far.
  [[nodiscard]] std::size_t count() const noexcept {
    return shared_->count.load(std::memory_order_acquire);
  }
  [[nodiscard]] history read() const {
    history made;
    made.epoch = shared_->epoch;
    made.began_ns = shared_->began_ns;
    made.attached_ns = shared_->attached_ns;
    made.ended_ns = shared_->ended_ns;
    made.longest_call_ns = shared_->longest_call_ns;
    made.descriptors_left = shared_->descriptors_left;
    made.attempted = shared_->attempted;
    made.full = shared_->full;
    made.has_books = shared_->has_books != 0;
    made.expected = shared_->expected;
    made.delivered = shared_->delivered;
    made.queued = shared_->queued;
    made.lost = shared_->lost;
    const std::size_t all = count();
    for (std::size_t i = 0; i < all; ++i) {
      const event& one = events()[i];
      if (one.kind == what::published) {
        made.published.push_back({one.sequence, one.checksum, one.at_ns});
      } else if (one.kind == what::detached) {
        made.detached[one.sender] = one.at_ns;
      } else {
        made.deliveries.push_back({one.sender, one.sequence, one.epoch, one.claimed, one.checksum,
                                   one.is_whole != 0, one.at_ns});
      }
    }
    return made;
  }

 private:
  enum class what : std::uint32_t { published, delivered, detached };
  struct event {
    what kind;
    std::uint32_t is_whole = 0;
    std::uint64_t sender = 0;
    std::uint64_t sequence = 0;
    std::uint64_t epoch = 0;
    std::uint64_t claimed = 0;
    std::uint64_t checksum = 0;
    std::int64_t at_ns = 0;
  };
  struct shared {
    std::uint64_t epoch;
    std::int64_t began_ns;
    std::int64_t attached_ns;
    std::int64_t ended_ns;
    std::int64_t longest_call_ns;
    std::int64_t descriptors_left;
    std::uint64_t attempted;
    std::uint64_t full;
    std::uint64_t has_books;
    std::uint64_t expected;
    std::uint64_t delivered;
    std::uint64_t queued;
    std::array<std::uint64_t, bus::loss_count> lost;
    std::atomic<std::uint64_t> count;  // events that are whole
  };

  [[nodiscard]] std::size_t bytes() const noexcept {
    return sizeof(shared) + capacity_ * sizeof(event);
  }
  [[nodiscard]] event* events() const noexcept { return reinterpret_cast<event*>(shared_ + 1); }
  void append(event one) {
    const std::uint64_t at = shared_->count.load(std::memory_order_relaxed);
    contract::must(at < capacity_, "a history is full");
    one.at_ns = bus::steady_ns();
    events()[at] = one;
    // Pairs with: count, acquire.
    shared_->count.store(at + 1, std::memory_order_release);
  }

  shared* shared_;
  std::size_t capacity_;
};

struct client_options {
  std::string name = "client";
  std::string topic = "numbers";
  std::string directory = {};  // empty: the stage's
  bus::wait_policy waiting = bus::wait_policy::spin_then_sleep;
  bus::loop_wakeup woken_by = bus::loop_wakeup::event;
  std::function<void()> before = [] {};  // in the client, before there is a node
  std::function<void(bus::node&)> at_work = [](bus::node&) {};  // and once it is at work
};

struct speaker_options {
  client_options client = {};
  std::size_t links = 1;  // subscribers to wait for
  std::uint64_t count = UINT64_MAX;
  std::uint32_t burst = 8;  // messages between two turns of the node
  std::chrono::nanoseconds pause = 1ms;
  bool waits_for_room = true;
  std::uint32_t link_depth = 1024;
};

enum class habit { blocking, event_loop };

struct listener_options {
  client_options client = {};
  habit waits = habit::blocking;
  std::chrono::nanoseconds turn = 20ms;  // between two looks at what the test says
  bus::subscription_options how = {.depth = 1024, .when_full = bus::drop::newest};
};

inline bus::node make_client(const client_options& options, std::uint32_t link_depth = 1024) {
  return bus::node({.name = options.name,
                    .transports = {transports::shm()},
                    .directory = options.directory,
                    .waiting = options.waiting,
                    .woken_by = options.woken_by,
                    .link_depth = link_depth});
}

inline void publish_one(bus::node& node, bus::publisher<message>& numbers, recorder& record) {
  const std::uint64_t sequence = numbers.sequence() + 1;
  const message next = make_message(node.id().value, sequence);
  record.attempt(sequence);
  const std::int64_t began = bus::steady_ns();
  const bus::published outcome = numbers.publish(next);
  record.lasted(began);
  if (!outcome.error) record.publish(next, outcome.taken < outcome.links);
}

inline void speak(channel& parent, recorder& record, const speaker_options& options) {
  options.client.before();
  const auto descriptors = static_cast<std::int64_t>(open_descriptors());
  {
    bus::node node = make_client(options.client, options.link_depth);
    record.begin(node.id());
    auto numbers = node.advertise<message>(options.client.topic);
    contract::must(numbers.wait_matched(options.links, long_patience), "nobody listens");
    record.attached();
    options.client.at_work(node);
    parent.say(1);
    while (!parent.has_news()) {
      for (std::uint32_t i = 0; i < options.burst && numbers.sequence() < options.count; ++i) {
        if (options.waits_for_room && !numbers.has_room()) break;
        publish_one(node, numbers, record);
      }
      const std::int64_t began = bus::steady_ns();
      node.run_for(options.pause);
      record.lasted(began, options.pause);
    }
    // Read, too: an end that is closed with something unread takes back what it had said.
    static_cast<void>(parent.hear());
    parent.say(numbers.sequence());
  }
  record.end();
  record.descriptors_left(static_cast<std::int64_t>(open_descriptors()) - descriptors);
}

// A subscription in either habit, whose messages are recorded as they come.
class recorded {
 public:
  recorded(bus::node& node, recorder& record, const listener_options& options)
      : node_(node), record_(record), turn_(options.turn) {
    if (options.waits == habit::blocking) {
      queue_.emplace(node.subscribe<message>(options.client.topic, options.how));
      return;
    }
    static_cast<void>(node.context());
    calls_.emplace(node.subscribe<message>(
        options.client.topic, [this](const bus::received<message>& got) { take(got); },
        options.how));
  }

  [[nodiscard]] const bus::subscriber_base& numbers() const {
    return queue_ ? static_cast<const bus::subscriber_base&>(*queue_) : *calls_;
  }
  // Takes what comes within a turn; returns early when `parent` has something to say.
  void turn(const channel& parent) {
    std::int64_t began = bus::steady_ns();
    if (calls_) {
      node_.run_for(turn_);
      record_.lasted(began, turn_);
    } else {
      // A stream may never pause.
      for (int i = 0; i < 64 && !parent.has_news(); ++i) {
        const auto got = queue_->take(turn_);
        record_.lasted(began, turn_);
        if (!got) break;
        take(*got);
        began = bus::steady_ns();
      }
    }
    note_who_left();
  }
  // From now on with short turns.
  void hurry() noexcept { turn_ = std::min<std::chrono::nanoseconds>(turn_, 5ms); }

 private:
  void take(const bus::received<message>& got) {
    record_.deliver(got);
    heard_[got.head().node] = got.head();
  }
  void note_who_left() {
    std::erase_if(heard_, [&](const auto& one) {
      if (node_.inside().provenance_of(one.second).topic) return false;
      record_.detach(one.first);
      return true;
    });
  }

  bus::node& node_;
  recorder& record_;
  std::chrono::nanoseconds turn_;
  std::optional<bus::subscriber<message>> queue_;
  std::optional<bus::listener> calls_;
  std::map<std::uint64_t, bus::frame> heard_;  // by sender, the last one
};

inline void hear(channel& parent, recorder& record, const listener_options& options) {
  options.client.before();
  const auto descriptors = static_cast<std::int64_t>(open_descriptors());
  {
    bus::node node = make_client(options.client);
    record.begin(node.id());
    recorded heard(node, record, options);
    options.client.at_work(node);
    parent.say(1);
    // Whoever sleeps in an event loop is woken by the test's word.
    std::optional<asio::posix::stream_descriptor> word;
    if (options.waits == habit::event_loop) {
      word.emplace(node.context(), parent.duplicate());
      word->async_wait(asio::posix::stream_descriptor::wait_read,
                       [&](std::error_code failed) { failed ? void() : node.stop(); });
    }
    while (!parent.has_news()) heard.turn(parent);
    const std::uint64_t least = parent.hear();
    word.reset();
    heard.hurry();
    const auto until = bus::deadline::after(long_patience);
    const bus::subscriber_base& numbers = heard.numbers();
    while (numbers.matched() > 0 || numbers.accounts().queued > 0 ||
           numbers.accounts().expected < least) {
      contract::must(!until.passed(),
                     "accounted for " + std::to_string(numbers.accounts().expected) + " of " +
                         std::to_string(least) +
                         ", publishers left: " + std::to_string(numbers.matched()));
      heard.turn(parent);
    }
    record.close(numbers.accounts());
  }
  record.end();
  record.descriptors_left(static_cast<std::int64_t>(open_descriptors()) - descriptors);
}

}  // namespace fault
