// The node behind bus::node: it owns the transports, the links to peers, the rendezvous and the
// books, and turns the wheel. Everything here happens on one thread, the one that calls; the only
// other thread is the sentry, which touches nothing.
//
// One turn of the wheel is pump(): take what has arrived, and, if a descriptor called, attend() to
// newcomers, cards and timers. Who turns it: a blocking take() or run() on the caller's thread,
// publish() in passing, or an event loop (loop.hpp).
#pragma once

#include "bus/base/clock.hpp"
#include "bus/codec/type.hpp"
#include "bus/node/ledger_file.hpp"
#include "bus/node/peer_link.hpp"
#include "bus/node/publication.hpp"
#include "bus/node/qos.hpp"
#include "bus/node/reception.hpp"
#include "bus/node/rendezvous.hpp"
#include "bus/node/sentry.hpp"
#include "bus/node/subscription.hpp"
#include "bus/node/tide.hpp"
#include "bus/route/directory.hpp"
#include "bus/route/explain.hpp"
#include "bus/route/graveyard.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <sched.h>
#include <unistd.h>

namespace bus {

// What became of one publish call.
struct published {
  std::uint32_t links = 0;  // links that carry this publisher now
  std::uint32_t taken = 0;  // of them, how many took the sample
  std::error_code error;    // set when it could not be sent at all: no_memory, too_big, bad_message

  // Nobody was refused. True also when nobody listens.
  [[nodiscard]] explicit operator bool() const noexcept { return !error && taken == links; }
};

// When to replace a file that changes in bursts. Every write wakes all nodes of the directory, and
// the kernel lets only one at a time into it: the first few changes are written at once, so that
// whoever advertises a little is seen at once, and the rest of a burst together, once per pause.
// Where writing is slow, pauses are long, so that a crowd spends a sixteenth of its time on it.
struct paced_file {
  // A burst is over when nothing was written for so many pauses.
  static constexpr std::int64_t quiet_pauses = 10;
  static constexpr std::int64_t pause_for_cost = 16;
  static constexpr std::int64_t pause_max_ns = 1'000'000'000;
  unsigned at_once;
  std::int64_t pause_ns;
  bool dirty = false;
  unsigned written = 0;  // since the last burst was over
  std::int64_t written_ns = 0;
  std::int64_t next_ns = 0;  // when the pause is over

  [[nodiscard]] bool is_due(std::int64_t now_ns) noexcept {
    if (now_ns - written_ns >= quiet_pauses * pause_ns) written = 0;
    return dirty && (written < at_once || now_ns >= next_ns);
  }
  void write_took(std::int64_t began_ns, std::int64_t ended_ns) noexcept {
    const std::int64_t wanted_ns = (ended_ns - began_ns) * pause_for_cost;
    written = wanted_ns > pause_ns ? at_once : written + 1;
    written_ns = ended_ns;
    next_ns = ended_ns + std::clamp(wanted_ns, pause_ns, pause_max_ns);
  }
  // When to look again; INT64_MAX when there is nothing to write.
  [[nodiscard]] std::int64_t due_ns() const noexcept { return dirty ? next_ns : INT64_MAX; }
};

class core {
 public:
  // Throws bus::error when the node cannot be: no directory, no descriptors, no space.
  explicit core(node_options options);
  // Says goodbye: waits up to a second for peers that are behind, then leaves.
  ~core();
  core(const core&) = delete;
  core& operator=(const core&) = delete;

  [[nodiscard]] node_id id() const noexcept { return id_; }
  [[nodiscard]] const node_options& options() const noexcept { return options_; }
  [[nodiscard]] rendezvous& meeting_place() noexcept { return *rendezvous_; }

  // Both throw bus::error for a bad name or pattern. The returned objects live until retire().
  publication& advertise(const std::string& topic, const type_info& type);
  void retire(publication& source);
  std::shared_ptr<subscription> subscribe(const std::string& pattern, const type_info* type,
                                          subscription_options options,
                                          std::function<void(sample&&)> callback);
  void retire(const std::shared_ptr<subscription>& one);

  // Memory for a message of `source`, where its subscribers read it. Errors: too_big, no_memory.
  [[nodiscard]] result<loan> lend(publication& source, std::uint64_t bytes) noexcept {
    transport& lender = source.lender ? *source.lender : *transports_.front();
    auto lent = lender.lend(bytes);
    if (!lent) source.row->add(column::refused, 1);
    return lent;
  }
  // The frame of the next sample, complete but for `bytes`. The number is used up by send() only.
  [[nodiscard]] frame next_frame(const publication& source, std::uint16_t flags) noexcept {
    // Field by field, as in loan::commit and for its reason.
    return {.version = source.head.version,
            .flags = flags,
            .publisher = source.head.publisher,
            .node = source.head.node,
            .topic_hash = source.head.topic_hash,
            .type_hash = source.head.type_hash,
            .sequence = source.head.sequence + 1,
            .sent_ns = stamps_.now_ns(),
            .correlation = source.head.correlation,
            .bytes = 0};
  }
  // Offers a sample sealed with next_frame() to every link, and counts it.
  published send(publication& source, sample&& sealed) noexcept;
  // Counts a sample that nobody listens to. Requires: source.routes.empty().
  void publish_to_nobody(publication& source, std::uint64_t bytes) noexcept;
  // Whether every link has a place for the next sample; cheap.
  [[nodiscard]] static bool has_room(const publication& source) noexcept;
  // Waits until every link has much room, or the deadline; returns whether it has.
  bool wait_room(publication& source, deadline until);
  // Looks after the control plane if it called; cheap when it did not.
  void in_passing() noexcept {
    if (++turns_ % now_and_then == 0 || (sentry_ && sentry_->calls())) pass();
  }

  // One turn; takes at most `budget` samples; returns how many.
  std::size_t pump(std::size_t budget);
  // Turns until done() or the deadline; sleeps between by the node's policy. Returns done().
  // Rethrows what a callback threw.
  template <class Done>
  bool drive(deadline until, std::size_t budget, Done&& done);
  // Sleeps until something may have come, at most until `until`. For drive().
  void sleep(deadline until);

  [[nodiscard]] std::size_t confirmed(const publication& source) const;
  [[nodiscard]] std::size_t sources(const subscription& one) const;
  // The most samples that any link of this publisher has on the way.
  [[nodiscard]] std::size_t backlog(const publication& source) const noexcept;

  // The nodes that are known, ourselves included.
  [[nodiscard]] const directory& known() const noexcept { return directory_; }
  // The topic and the type under which a received sample was published; see reception.
  [[nodiscard]] reception::provenance provenance_of(const frame& head) noexcept {
    return reception_->provenance_of(node_id{head.node}, head.publisher);
  }
  // Why messages of `topic` do or do not arrive, read from the bus directory. Blocks for reading
  // files.
  [[nodiscard]] explanation why(const std::string& topic);

  // --- for the event loop (loop.hpp)
  // From now on an event loop turns the node, and the sentry is not needed.
  void adopt(asio::io_context& context) noexcept;
  [[nodiscard]] bell& doorbell() noexcept { return *bell_; }
  [[nodiscard]] int control_handle() const noexcept { return watch_.get(); }
  // Arms everything for a sleep on descriptors; false: something is here, turn again.
  [[nodiscard]] bool arm_for_descriptors();
  void disarm() noexcept;
  // The descriptor of control_handle() is readable.
  void attend();
  // One of doorbell().descriptors() is readable.
  void answer_bell(int descriptor);

  // A forked child holds a copy of everything, and may touch nothing: it is its parent's.
  [[nodiscard]] bool is_forked() const noexcept { return ::getpid() != process_id_; }

 private:
  // What epoll says about a descriptor: the number of its transport, or one of these.
  static constexpr std::uint32_t from_rendezvous = 1000;
  static constexpr std::uint32_t from_timer = 1001;

  // How many turns or publications pass between two looks at what need not be looked at each time.
  static constexpr std::uint32_t now_and_then = 64;

  void pass() noexcept;
  void come_up();
  void hear_network();
  void open_directory();
  void open_transports();
  void watch(int descriptor, std::uint32_t what);
  void post_sentry();
  [[nodiscard]] bool arm_inboxes();

  void on_cards(std::vector<card_change> changes);
  void learn(const wire::Card& card, directory::origin from);
  void forget(node_id id, std::int64_t grave_ns);
  void rematch(node_id peer);
  void rematch(publication& source);
  void want(publication& source, node_id peer);
  [[nodiscard]] std::unique_ptr<peer_link> make_link(node_id peer);
  peer_link& link_to(node_id peer);
  void drop_link(node_id peer);
  void note_mismatch(const publication& source, node_id peer, const wire::Interest& interest);

  void call_peers();
  void introduced(node_id from, const wire::Introduce& words);
  [[nodiscard]] wire::Introduce introduction();
  void introduce_everywhere();

  void tend();
  void check_suspects(std::int64_t now);
  void mend_directory(std::int64_t now);
  [[nodiscard]] std::error_code restore_directory();
  [[nodiscard]] result<void> keep_schema(std::uint64_t hash, const std::string& schema);
  void keep_books();
  void set_timer();
  void card_changed();
  void flush_files();
  void fill_links(wire::Links& links) const;
  void complain(std::string trouble);
  void complain_of_signal();

  node_options options_;
  node_id id_;
  pid_t process_id_;
  std::unique_ptr<bell> bell_;
  fd watch_;  // epoll: transports, inotify, timer
  fd timer_;
  std::unique_ptr<rendezvous> rendezvous_;
  std::unique_ptr<ledger_file> ledger_;
  std::vector<std::unique_ptr<transport>> transports_;
  std::vector<traits> traits_;
  std::vector<bool> has_called_;  // the transport has something, or had when it was last polled
  std::unique_ptr<reception> reception_;
  std::unique_ptr<sentry> sentry_;
  directory directory_;
  graveyard graves_;
  wire::Card card_;

  std::map<std::uint32_t, std::unique_ptr<publication>> publications_;
  std::unordered_multimap<std::string, publication*> by_topic_;
  std::map<std::uint32_t, std::shared_ptr<subscription>> subscriptions_;
  std::uint32_t last_number_ = 0;
  std::unordered_map<node_id, std::unique_ptr<peer_link>> links_;
  std::vector<std::pair<std::string, std::unique_ptr<peer_link>>> calls_;  // to $OMNIBUS_PEERS
  std::map<std::pair<std::uint32_t, node_id>, std::pair<std::uint32_t, std::string>> mismatches_;

  struct suspect {
    std::int64_t look_at_ns;
    std::int64_t pause_ns;
  };
  std::unordered_map<node_id, suspect> suspects_;
  std::vector<std::string> troubles_;
  // What we wrote of schemas, to write it again when somebody removes the directory.
  std::unordered_map<std::uint64_t, std::string> schemas_;
  std::size_t schemas_bytes_ = 0;
  std::int64_t mend_at_ns_ = INT64_MAX;  // when to mend the directory; never: it is whole
  std::int64_t mend_pause_ns_ = 0;       // after it could not be mended
  std::int64_t look_at_ns_ = 0;          // before that, who waits at a pipe does not look again
  bool restless_ = false;
  bool in_pump_ = false;
  bool leaving_ = false;
  paced_file card_file_{.at_once = 4, .pause_ns = 20'000'000};
  // What we say to those whom we know over a network.
  paced_file introductions_{.at_once = 4, .pause_ns = 20'000'000};
  paced_file links_file_{.at_once = 2, .pause_ns = 100'000'000};
  std::int64_t timer_set_ns_ = INT64_MAX;  // for when the timer is set; never
  std::uint32_t turns_ = 0;
  tide tide_;
  stamp_clock stamps_;
};

// About 100 us: much longer than an answer takes from another core, and far less than the
// scheduler's time slice, which is what a sender without a core would wait for otherwise.
inline constexpr unsigned idle_turns_before_yield = 2048;

template <class Done>
bool core::drive(deadline until, std::size_t budget, Done&& done) {
  std::int64_t spin_until_ns = 0;
  unsigned idle_turns = 0;
  for (;;) {
    if (done()) return true;
    if (pump(budget) != 0) {
      spin_until_ns = 0;
      idle_turns = 0;
      continue;
    }
    if (done()) return true;
    if (tide_.linger(options_.waiting != wait_policy::spin)) continue;
    if (options_.waiting == wait_policy::sleep) {
      if (until.passed()) return false;
      sleep(until);
      continue;
    }
    __builtin_ia32_pause();
    // The clock costs as much as a cache miss: look at it every sixteenth idle turn.
    if (++idle_turns % 16 != 0) continue;
    if (until.passed()) return false;
    if (options_.waiting == wait_policy::spin) {
      // Nothing for long: whoever should send may be waiting for our core.
      if (idle_turns % idle_turns_before_yield == 0) ::sched_yield();
      continue;
    }
    const std::int64_t now = steady_ns();
    if (spin_until_ns == 0) {
      spin_until_ns = now + options_.spin.count();
    } else if (now >= spin_until_ns) {
      sleep(until);
      spin_until_ns = 0;
    }
  }
}

}  // namespace bus
