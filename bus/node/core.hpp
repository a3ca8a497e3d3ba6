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
#include "bus/node/allow.hpp"
#include "bus/node/ledger_file.hpp"
#include "bus/node/peer_link.hpp"
#include "bus/node/publication.hpp"
#include "bus/node/qos.hpp"
#include "bus/node/reception.hpp"
#include "bus/node/rendezvous.hpp"
#include "bus/node/sentry.hpp"
#include "bus/node/subscription.hpp"
#include "bus/node/supervised.hpp"
#include "bus/node/tide.hpp"
#include "bus/node/topics_file.hpp"
#include "bus/route/directory.hpp"
#include "bus/route/explain.hpp"
#include "bus/route/graveyard.hpp"
#include "bus/topic/topic_index.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <unistd.h>

namespace bus {

// What became of one publish call.
struct published {
  std::uint32_t links = 0;     // links that carry this publisher now; summed up over samples
  std::uint32_t taken = 0;     // of them, how many took the sample
  std::uint64_t messages = 0;  // published: they have a number, and are accounted for
  // Set when it was not sent at all, and has no number: no_memory, too_big, bad_message; timed_out
  // by publish_wait, closed when the publisher ended meanwhile.
  std::error_code error = {};
  // Subscriptions that block (drop::none), had no place for it, and have missed it; with timed_out,
  // those that stood in its way.
  std::uint32_t blocked = 0;
  node_id by = {};  // the node of the first one

  // Nobody was refused. True also when nobody listens.
  [[nodiscard]] explicit operator bool() const noexcept {
    return !error && taken == links && blocked == 0;
  }
};

// Where a child that a node has started finds its way to that node; and, if it is in no bus
// directory, the file for its ledger, `NUMBER@INODE`, which that node reads when the child is dead.
inline constexpr const char* parent_variable = "OMNIBUS_PARENT";
inline constexpr const char* books_variable = "OMNIBUS_BOOKS";

// Somebody waits for room in an event loop. The publisher may end first.
struct room_wait {
  publication* source;         // null: it has ended
  std::function<void()> wake;  // there may be room, or it has ended
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
  // What takes long to write is written a fifth of the time at the most.
  static constexpr std::int64_t pause_for_large = 4;
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
    next_ns = ended_ns + std::max(std::clamp(wanted_ns, pause_ns, pause_max_ns),
                                  (ended_ns - began_ns) * pause_for_large);
  }
  // When to look again; INT64_MAX when there is nothing to write.
  [[nodiscard]] std::int64_t due_ns() const noexcept { return dirty ? next_ns : INT64_MAX; }
};

// Who waits on the event loop for something that came.
class resumable {
 public:
  virtual ~resumable() = default;
  // Once, on the loop's thread. Throws what the user's code throws.
  virtual void resume(std::error_code why) = 0;
};

class gateway;
class overseer;

class core {
 public:
  // Throws bus::error when the node cannot be: no directory, no descriptors, no space. With an
  // overseer, which outlives it, the environment is not asked.
  explicit core(node_options options, overseer* watched_by = nullptr);
  // Says goodbye: waits up to a second for peers that are behind, then leaves.
  ~core();
  core(const core&) = delete;
  core& operator=(const core&) = delete;

  [[nodiscard]] node_id id() const noexcept { return id_; }
  [[nodiscard]] const node_options& options() const noexcept { return options_; }
  [[nodiscard]] rendezvous& meeting_place() noexcept { return *rendezvous_; }

  // Both throw bus::error for a bad name or pattern. The returned objects live until retire().
  publication& advertise(const std::string& topic, const type_info& type,
                         const wire::Kin& on_behalf_of = {});
  // `cause`: of what was published, and has not been sent and never will be.
  void retire(publication& source, loss cause = loss::queue_full);
  std::shared_ptr<subscription> subscribe(const std::string& pattern, const type_info* type,
                                          subscription_options options,
                                          std::function<void(sample&&)> callback,
                                          relaying how = {});
  void retire(const std::shared_ptr<subscription>& one);

  // Memory for a message of `source`, where its subscribers read it. Errors: too_big, no_memory.
  [[nodiscard]] result<loan> lend(publication& source, std::uint64_t bytes) noexcept {
    auto lent = lender_of(source).lend(bytes);
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
  // Whether `one` is the only subscription, so that what it leaves in the links delays no other.
  [[nodiscard]] bool is_alone(const subscription& one) const noexcept {
    return subscriptions_.size() == 1 && subscriptions_.begin()->second.get() == &one;
  }
  // Offers a sample of so many messages, sealed with next_frame(), to every link, and counts it.
  published send(publication& source, sample&& sealed, std::uint32_t messages = 1) noexcept;
  // A place for a message of so many bytes where its only reader will read it, to be written there
  // and sent by commit(). Null: there is none, and the message wants memory that is lent.
  [[nodiscard]] std::byte* claim(const publication& source, std::uint64_t bytes) const noexcept {
    if (source.routes.size() != 1 || source.gated != 0) return nullptr;
    return source.routes.front()->claim(bytes);
  }
  // Sends what was written there. Requires: claim(source, bytes) gave a place just now.
  published commit(publication& source, std::uint64_t bytes, std::uint16_t flags) noexcept;
  // Counts messages that nobody listens to. Requires: source.routes.empty().
  published publish_to_nobody(publication& source, std::uint64_t bytes,
                              std::uint64_t messages = 1) noexcept;
  // Whether every link has a place for the next sample, and every subscription that blocks, unless
  // its deadline is over; cheap.
  [[nodiscard]] bool has_room(const publication& source) noexcept;
  // Waits until every link has much room, and every subscription that blocks a place, or the
  // deadline; returns whether it has.
  bool wait_room(publication& source, deadline until);
  // Whether all that block have a place for a message of so many bytes, or are waited for no
  // longer. From the first time on that one has none, it is waited for. Cheap.
  [[nodiscard]] bool admits(const publication& source, std::uint64_t bytes = 0) noexcept;
  // Waits for places with those who block, for a message of so many bytes, and for nothing else.
  // Nothing: the publisher has ended. Else who is still in the way, in `blocked` and `by`.
  [[nodiscard]] std::optional<published> wait_places(publication& source, std::uint64_t bytes,
                                                     deadline until);
  // Waits until lend(source, bytes) would succeed. Errors: no_memory (the deadline), closed (the
  // publisher has ended), too_big.
  [[nodiscard]] std::error_code wait_memory(publication& source, std::uint64_t bytes,
                                            deadline until);
  // Calls back when has_room() may have become true, as long as the returned object lives.
  [[nodiscard]] std::shared_ptr<room_wait> expect_room(publication& source,
                                                       std::function<void()> wake);
  // When has_room() may become true because a deadline is over.
  [[nodiscard]] deadline next_lapse(const publication& source) const noexcept;
  // Looks after the control plane if it called; cheap when it did not. And listens for grants, now
  // and then, and when somebody who blocks has no place for what is about to be published.
  void in_passing(const publication& source) noexcept {
    const bool rarely = ++turns_ % now_and_then == 0;
    if (rarely || (sentry_ && sentry_->calls())) pass();
    if (source.gated != 0 && (rarely || !admits(source))) hear(false);
  }

  // One turn; takes at most `budget` samples; returns how many. A transport that had something is
  // the last to be looked at in the next turn, so that what it brings need not wait for the others.
  std::size_t pump(std::size_t budget);
  // Starts a child, and looks after it until let_go(). Errors: as child_process::start().
  // Whether it keeps its books for us: who is in no bus directory has no other place.
  [[nodiscard]] result<std::shared_ptr<supervised>> look_after(child_plan plan, restart when,
                                                               bool keeps_books);
  // The same, and locks it in: it is met through a gateway, and nothing else. Throws bus::error for
  // a bad pattern.
  [[nodiscard]] result<std::shared_ptr<supervised>> lock_in(child_plan plan, restart when,
                                                            allow rights);
  // Null: that child is not locked in.
  [[nodiscard]] const gateway* gateway_of(const supervised& one) const noexcept;
  // Kills it, if it runs, and waits for that. A forked child of ours does nothing: it is not its.
  void let_go(const std::shared_ptr<supervised>& one) noexcept;
  // Turns until it is over: how it ended; or until the deadline. In a callback nothing turns.
  [[nodiscard]] std::optional<exit_status> wait_end(supervised& one, deadline until);

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

  // How many publishers, attachments and subscriptions were looked at to match and to attach, so
  // far: the work of the control plane, whatever the time it takes.
  [[nodiscard]] std::uint64_t steps() const noexcept;

  // The nodes that are known, ourselves included; of those in the bus directory, without what they
  // advertise.
  [[nodiscard]] const directory& known() const noexcept { return directory_; }
  // The topic and the type under which a received sample was published; see reception.
  [[nodiscard]] reception::provenance provenance_of(const frame& head) noexcept {
    return reception_->provenance_of(node_id{head.node}, head.publisher);
  }
  // Why messages of `topic` do or do not arrive, read from the bus directory. Blocks for reading
  // files.
  [[nodiscard]] explanation why(const std::string& topic);

  // --- for a gateway (gateway.hpp)
  [[nodiscard]] ledger_file& books() noexcept { return *ledger_; }
  // Of our transports, those that can make a way to a child.
  [[nodiscard]] bill_of_transports bill_for_children() const;
  // What is known of a type; empty: nothing.
  [[nodiscard]] std::string schema_of(std::uint64_t hash) const;
  void links_changed() noexcept { links_file_.dirty = restless_ = true; }
  void introduce_again() noexcept { introductions_.dirty = restless_ = true; }
  // For people: in our links file, once.
  void complain(std::string trouble);

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
  // Somebody may go on: at the end of this turn if the loop turns us, else when it comes to it.
  void resume_soon(std::unique_ptr<resumable> one);
  // What came during the turn is in: who waited for it goes on. Throws what one of them threw.
  void begin_turn() noexcept { in_turn_ = true; }
  void end_turn();
  // One of doorbell().descriptors() is readable.
  void answer_bell(int descriptor);

  // A forked child holds a copy of everything, and may touch nothing: it is its parent's.
  [[nodiscard]] bool is_forked() const noexcept { return ::getpid() != process_id_; }

 private:
  // What epoll says about a descriptor: the number of its transport, or one of these.
  static constexpr std::uint32_t from_rendezvous = 1000;
  static constexpr std::uint32_t from_timer = 1001;
  static constexpr std::uint32_t from_child = 1002;
  static constexpr std::uint32_t from_gateway = 1003;

  // How many turns or publications pass between two looks at what need not be looked at each time;
  // and how many of a row of idle turns, in which nothing changes that descriptors do not tell, and
  // which are to notice the next arrival at once.
  static constexpr std::uint32_t now_and_then = 64;
  static constexpr std::uint32_t now_and_then_when_idle = 1024;
  static_assert(now_and_then_when_idle % now_and_then == 0);
  // Hearsay of a node that we have forgotten is not believed for so long. Whoever vouches for one
  // that is gone learns of it within about 10 s: a heartbeat that is missed, and its own rounds. A
  // death that was proved is certain; who could not be reached may be back, and speaks for itself
  // then.
  static constexpr std::int64_t grave_of_dead_ns = 60'000'000'000;
  static constexpr std::int64_t grave_of_lost_ns = 10'000'000'000;
  // Samples taken per turn when nobody says otherwise.
  static constexpr std::size_t usual_budget = 256;
  [[nodiscard]] bool is_time_for_the_rest() noexcept {
    // Remainders by constants: one by a variable is a division, in every pass.
    return ++turns_ % now_and_then == 0 &&
           (idle_turns_ < now_and_then || turns_ % now_and_then_when_idle == 0);
  }

  [[nodiscard]] transport& lender_of(const publication& source) const noexcept {
    return source.lender ? *source.lender : *transports_.front();
  }
  void pass() noexcept;
  void look_after_children() noexcept;
  void hang_bell();
  void come_up();
  void begin_card();
  [[nodiscard]] std::unique_ptr<reception> make_reception();
  void hear(bool called_only);
  [[nodiscard]] std::size_t room_to_hear() const noexcept;
  enum class waited : std::uint8_t { open, late, ended };
  struct room_wanted {
    std::uint64_t bytes = 0;  // of the message, for those who block
    bool links_too = false;   // every link half empty
  };
  [[nodiscard]] waited wait_for(publication& source, deadline until, const room_wanted& wanted);
  published send_gated(publication& source, sample&& sealed, std::uint32_t messages) noexcept;
  void wake_waits();
  void grant(node_id to, const wire::Grant& words);
  void share_places() noexcept;
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
  void meet_own(const wire::Interest& changed);
  template <class Visitor>
  void for_each_publication(const std::string& pattern, Visitor&& visit);
  void want(publication& source, node_id peer, const appetite& whose);
  [[nodiscard]] std::unique_ptr<peer_link> make_link(node_id peer);
  peer_link& link_to(node_id peer);
  void drop_link(node_id peer);
  void note_mismatch(const publication& source, node_id peer, const wire::Interest& interest);

  void call_peers();
  void call(const std::string& where);
  void watch_inboxes();
  [[nodiscard]] result<child_process> start_child(child_plan plan, bool keeps_books);
  [[nodiscard]] result<ledger_reading> books_of(node_id child) const;
  void forget_books(node_id child) noexcept;
  void introduced(node_id from, const wire::Introduce& words);
  // To kin: to whom we have, or who has to us, a way without a common directory.
  [[nodiscard]] wire::Introduce introduction(bool to_kin);
  void add_schemas(wire::Introduce& words) const;
  void introduce_everywhere();

  void tend();
  void check_suspects(std::int64_t now);
  void bury(node_id dead);
  [[nodiscard]] bool owes_farewells() const noexcept;
  void mend_directory(std::int64_t now);
  [[nodiscard]] std::error_code restore_directory();
  [[nodiscard]] result<void> keep_schema(std::uint64_t hash, const std::string& schema);
  void keep_books();
  void count_refusals();
  void set_timer();
  void card_changed();
  void topics_changed();
  void identity_changed();
  void add_advertisements(wire::Card& to) const;
  void flush_files();
  void flush_file(paced_file& pace, std::string_view what,
                  const std::function<result<void>()>& write);
  void fill_links(wire::Links& links) const;
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
  std::vector<std::vector<ledger_row*>> refusals_;  // by transport, a row for each tally
  // What comes in, by transport.
  struct entrance {
    inbox* arrivals = nullptr;
    bool asks_kernel = false;  // to poll it costs a system call, so it is polled when it has called
    bool is_watched = false;   // its descriptor
    bool has_called = false;   // it has something, or had when it was last polled
  };
  std::vector<entrance> entrances_;
  std::size_t first_entrance_ = 0;  // to be looked at in the next turn
  std::unique_ptr<reception> reception_;
  std::unique_ptr<sentry> sentry_;
  directory directory_;
  graveyard graves_;
  wire::Card card_;

  std::unique_ptr<shelter> shelter_;
  publications publications_;
  topic_index<publication> by_topic_;
  std::map<std::uint32_t, std::shared_ptr<subscription>> subscriptions_;
  // Books of publishers that are no more, while a peer still waits for their last word.
  std::vector<ledger_row*> retired_rows_;
  std::uint32_t last_number_ = 0;
  std::unordered_map<node_id, std::unique_ptr<peer_link>> links_;
  // To $OMNIBUS_PEERS, and to those who are at the other end of something: for these, once.
  struct phone_call {
    std::string address;
    bool is_once;
    std::unique_ptr<peer_link> link;
  };
  std::vector<phone_call> calls_;
  std::map<std::pair<std::uint32_t, node_id>, std::pair<std::uint32_t, std::string>> mismatches_;

  struct suspect {
    std::int64_t look_at_ns = 0;
    std::int64_t pause_ns = 1'000'000;
    bool left = false;  // it took its card away: it is forgotten, once what it sent is read
  };
  std::unordered_map<node_id, suspect> suspects_;
  std::vector<std::weak_ptr<room_wait>> waits_;
  std::vector<std::shared_ptr<supervised>> children_;
  std::vector<std::unique_ptr<gateway>> gateways_;
  // What children write down for us, until they are dead and it was read.
  struct kept_books {
    fd file;
    fd process;
  };
  std::vector<kept_books> books_;
  overseer* overseer_;
  // By whom we are locked in, and what it does not pass on for us.
  node_id keeper_{};
  std::vector<wire::Refused> refused_here_;
  // For publishers of nodes whose cards have not come yet.
  std::multimap<node_id, wire::Grant> early_grants_;
  std::vector<std::string> troubles_;
  // What we wrote of schemas, to write it again when somebody removes the directory.
  std::unordered_map<std::uint64_t, std::string> schemas_;
  std::size_t schemas_bytes_ = 0;
  std::unordered_map<std::uint64_t, std::weak_ptr<const std::string>> schemas_in_use_;
  std::uint64_t steps_ = 0;
  std::int64_t mend_at_ns_ = INT64_MAX;  // when to mend the directory; never: it is whole
  std::int64_t mend_pause_ns_ = 0;       // after it could not be mended
  std::int64_t look_at_ns_ = 0;          // before that, who waits at a pipe does not look again
  bool look_is_owed_ = false;            // and then it does, whatever else happens
  bool restless_ = false;
  bool in_pump_ = false;
  bool in_turn_ = false;
  std::vector<std::unique_ptr<resumable>> ready_;
  bool leaving_ = false;
  paced_file card_file_{.at_once = 4, .pause_ns = 20'000'000};
  topics_file topics_;
  paced_file topics_pace_{.at_once = 4, .pause_ns = 20'000'000};
  // What we say to those whom we know over a network.
  paced_file introductions_{.at_once = 4, .pause_ns = 20'000'000};
  paced_file links_file_{.at_once = 2, .pause_ns = 100'000'000};
  std::int64_t timer_set_ns_ = INT64_MAX;  // for when the timer is set; never
  std::uint32_t turns_ = 0;
  std::uint32_t idle_turns_ = 0;  // in a row
  tide tide_;
  stamp_clock stamps_;
};

// About 100 us: much longer than an answer takes from another core, and far less than the
// scheduler's time slice, which is what a sender without a core would wait for otherwise.
inline constexpr unsigned idle_turns_before_yield = 2048;
// Some microseconds, in which an answer comes; who sleeps afterwards gives way from then on, to
// others on this core, and with them to those who wait for them to send to us.
inline constexpr unsigned idle_turns_before_look = 16;
// While there is no pause, the clock is looked at after so many messages, a turn counting as four
// of them at least: under a nanosecond each, and a flood keeps nobody longer than it said.
inline constexpr std::size_t messages_before_look = 64;
inline constexpr std::size_t messages_for_turn = 4;

template <class Done>
bool core::drive(deadline until, std::size_t budget, Done&& done) {
  std::int64_t spin_until_ns = 0;
  unsigned idle_turns = 0;
  std::size_t unlooked = 0;
  for (;;) {
    if (done()) return true;
    if (const std::size_t came = pump(budget); came != 0) {
      spin_until_ns = 0;
      idle_turns = 0;
      unlooked += std::max(came, messages_for_turn);
      if (unlooked < messages_before_look) continue;
      unlooked = 0;
      if (until.passed()) return done();
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
    // The clock costs as much as a cache miss: look at it now and then, unless we are in the way.
    const bool in_the_way = tide_.shares_core();
    if (++idle_turns % idle_turns_before_look != 0 && !in_the_way) continue;
    if (until.passed()) return false;
    if (options_.waiting == wait_policy::spin) {
      if (idle_turns % idle_turns_before_yield == 0 || in_the_way) tide_.give_way();
      continue;
    }
    const std::int64_t now = steady_ns();
    if (spin_until_ns == 0) spin_until_ns = now + options_.spin.count();
    if (now >= spin_until_ns) {
      sleep(until);
      spin_until_ns = 0;
    } else if (idle_turns > idle_turns_before_look || in_the_way) {
      tide_.give_way();
    }
  }
}

}  // namespace bus
