// Our way to one peer: it tries the ways in order of their cost, keeps the outbox, tells the peer
// which publishers it carries, and owes it the truth about what did not fit.
//
//   idle --(a publisher matches)--> opening --> open --(death, cut)--> idle, after a pause
//
// For each publisher: wanted --(Attach taken)--> attached --(peer let go of Attach)--> confirmed.
// Data is only offered while attached, so the peer always knows where its counting begins. When the
// link had no room, a Notice says later up to where it should have heard.
//
// Subscriptions that block have a gate each (bus/route/credit.hpp), which their grants open. What
// they have no place for is still sent if another subscription of the peer wants it; else it is
// withheld, so that a peer that stands still is left nothing to hold.
#pragma once

#include "bus/base/clock.hpp"
#include "bus/link/outbox.hpp"
#include "bus/link/transport.hpp"
#include "bus/node/ledger_file.hpp"
#include "bus/node/publication.hpp"
#include "bus/route/credit.hpp"
#include "bus/route/select.hpp"
#include "schemas/bus/control.pb.h"
#include "schemas/bus/links.pb.h"

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace bus {

// Whom among a peer's subscriptions a publisher meets.
struct appetite {
  bool is_free = false;  // one of them at least does not block
  // The others, each with how long it is to be waited for.
  std::vector<std::pair<std::uint32_t, std::int64_t>> blocking = {};
};

class peer_link {
 public:
  struct setup {
    node_id self;
    node_id peer;
    std::span<const std::unique_ptr<transport>> transports;  // outlive the link
    std::uint32_t depth = 0;        // samples in flight, as the transports have it
    ledger_file* ledger = nullptr;  // for the gates' rows; outlives the link
  };
  // `row` is the link's row in the ledger, and outlives it.
  peer_link(const setup& about, ledger_row& row);
  ~peer_link();
  peer_link(const peer_link&) = delete;
  peer_link& operator=(const peer_link&) = delete;

  [[nodiscard]] node_id peer() const noexcept { return peer_; }
  // The ways to try from now on. An open link is kept if its way is still among them.
  void set_ways(std::vector<way> ways, std::string peer_name);

  // Again, when the peer's subscriptions have changed.
  void want(publication& source, const appetite& whose);
  // `cause`: of what it has published and nobody will bring.
  void unwant(publication& source, loss cause = loss::queue_full);
  [[nodiscard]] bool wants(const publication& source) const {
    return attachments_.contains(source.number);
  }
  // Whether the peer has proved that the publisher's link carries: it let go of our Attach, and
  // those who block have granted something.
  [[nodiscard]] bool confirmed(const publication& source) const {
    const auto at = attachments_.find(source.number);
    return at != attachments_.end() && is_confirmed(at->second);
  }
  // The card to introduce ourselves with, over a network; sent when there is room.
  void introduce(const wire::Introduce& words);

  // The data path. Returns whether the sample was taken. Requires: attached.
  bool offer(publication& source, const sample& one) noexcept {
    return took(source, box_->send({&one, 1}));
  }
  // The same for a sample that nobody else wants.
  bool give(publication& source, sample&& one) noexcept {
    return took(source, box_->give(std::move(one)));
  }
  // The same for a message that nobody else wants, and that is written where the peer reads it; as
  // outbox::claim and commit. Requires: attached.
  [[nodiscard]] std::byte* claim(std::uint64_t bytes) noexcept { return box_->claim(bytes); }
  void commit(const frame& head) noexcept {
    box_->commit(head);
    places_ -= places_ > 0 ? 1 : 0;
  }

  // --- subscriptions that block
  // What they say to a sample.
  struct verdict {
    std::uint32_t waiting = 0;  // have no place
    std::uint32_t lapsed = 0;   // have none, and are not waited for
    bool is_wanted = true;      // somebody there can take it
  };
  // Whether the next sample, of so many bytes, would find places with all of them, lapsed ones left
  // aside. From the first such call on the others are waited for.
  [[nodiscard]] bool admits(const publication& source, std::uint64_t bytes) noexcept;
  // When the first one that is being waited for will lapse; never: none is.
  [[nodiscard]] deadline lapses_at(const publication& source) const noexcept;
  // How many are being waited for.
  [[nodiscard]] std::uint32_t waited_for(const publication& source) const noexcept;
  // The same as admits(), for a sample that is to be published now; the peer is told before whom we
  // have ceased to wait for. If nobody can take it, it is theirs to miss: a Notice is owed.
  [[nodiscard]] verdict judge(publication& source, const frame& head) noexcept;
  // As offer(), and counted.
  [[nodiscard]] bool offer_counted(publication& source, const sample& one,
                                   std::uint32_t messages) noexcept;
  void granted(const wire::Grant& words, std::int64_t now_ns);
  // Tells the peer what its publisher may send to a subscription of ours; kept, and told again when
  // the link was away, until it is revoked.
  void grant(const wire::Grant& words);
  void revoke(std::uint32_t publisher, std::uint32_t subscription);

  // Whether the next sample will find a place, as far as messages are counted. Cheap: it asks the
  // outbox only when all places that it knew of are used up.
  [[nodiscard]] bool has_room() noexcept;
  // Whether at least half of the places are free: the time to go on after having waited.
  [[nodiscard]] bool has_much_room() noexcept;

  // What comes home over this link is waited for: arm() then says of it.
  void wait_for_returns() noexcept { unsettled_work_ = true; }
  // Does what can be done now; true when anything changed that the links file should show.
  bool step(std::int64_t now_ns);
  // Whether step() has something to do, now or when the outbox changes or the pause is over.
  [[nodiscard]] bool restless() const noexcept;
  // When a pause ends; INT64_MAX when none is running.
  [[nodiscard]] std::int64_t wake_at_ns() const noexcept { return resume_at_ns_; }
  // Asks the outbox to ring our bell at its next change; false: it changed already.
  [[nodiscard]] bool arm() noexcept;
  // Nobody there is told anything any more, or all has been heard.
  [[nodiscard]] bool drained() const noexcept { return !open() || farewells_.empty(); }
  // Whether the peer has not heard yet that a publisher is no more, and with it all that it sent.
  [[nodiscard]] bool owes_farewells() const noexcept { return !farewells_.empty(); }
  // True when nothing is wanted or owed any more, so that the link can go.
  [[nodiscard]] bool useless() const noexcept;

  [[nodiscard]] bool open() const noexcept { return box_ && box_->state() == link_state::open; }
  [[nodiscard]] bool over_network() const noexcept;
  // How many times in a row all ways have failed.
  [[nodiscard]] unsigned failures() const noexcept { return failures_; }
  // How many samples the peer has been sent and not yet let go of.
  [[nodiscard]] std::size_t unsettled() const noexcept { return box_ ? box_->unsettled() : 0; }
  // Whether the peer hung up, or could not be reached at all, since the last call: is it dead?
  [[nodiscard]] bool take_doubt() noexcept { return std::exchange(doubt_, false); }
  // Copies the outbox's figures into the ledger row.
  void keep_books(std::int64_t now_ns) noexcept;
  void describe(wire::Link& into) const;
  [[nodiscard]] ledger_row& row() const noexcept { return row_; }
  // Attachments looked at so far.
  [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }

 private:
  struct own_gate {
    gate state;
    bool wanted = true;  // the peer's card names it
    bool told = false;   // the peer knows that it has lapsed
    ledger_row* row = nullptr;
  };
  struct attachment {
    publication* source = nullptr;
    bool attached = false;
    bool owed = false;           // something did not fit: a Notice is due
    sample probe;                // our reference to the Attach, until the peer has let go of it
    std::uint64_t counting = 0;  // what the peer knows our count by; 0: a Count is due
    std::uint64_t sent = 0;      // samples in this counting
    bool is_free = true;         // somebody there does not block
    bool counted = false;        // in publication::gated
    bool withheld = false;       // what is owed is of no use to anybody before the next grant
    std::map<std::uint32_t, own_gate> gates = {};  // by subscription
  };
  struct farewell {
    wire::Detach words;
    sample sent = {};  // our reference to it, until the peer has let go of it
  };
  struct promise {
    wire::Grant words;
    bool is_due = true;
  };

  [[nodiscard]] bool carries(std::uint64_t bytes) noexcept {
    const bool has_way = has_room() && (!box_ || box_->has_room_for(bytes));
    unsettled_work_ = unsettled_work_ || !has_way;
    return has_way;
  }
  bool took(publication& source, const result<std::size_t>& sent) noexcept {
    if (!sent || *sent != 1) {
      owe(source);
      return false;
    }
    places_ -= places_ > 0 ? 1 : 0;
    return true;
  }
  [[nodiscard]] static bool is_confirmed(const attachment& one) noexcept;
  void owe(publication& source) noexcept;
  void count_gates(attachment& one) noexcept;
  [[nodiscard]] static gate::state ask(own_gate& one, bool can) noexcept;
  static void enter(const own_gate& one) noexcept;
  void close_gates(attachment& one) noexcept;
  [[nodiscard]] bool tell_lapses(attachment& one, std::uint64_t last) noexcept;
  [[nodiscard]] bool send_notice(attachment& one, std::uint64_t last);
  bool send_grants();
  bool send_counts();
  void no_longer_withheld(attachment& one);
  [[nodiscard]] bool send_count(attachment& one);
  void attach(attachment& one);
  void drop_out(attachment& one);
  void lose_box(std::error_code why);
  void try_next_way(std::int64_t now_ns);
  bool send_control(const wire::Control& words, sample* keep);
  bool send_owed();
  bool send_farewells();
  void hear_farewells() noexcept;
  bool send_attaches();
  bool send_notices();
  bool hear_confirmations() noexcept;
  [[nodiscard]] transport& via() const noexcept { return *transports_[ways_[at_].transport]; }

  node_id self_;
  node_id peer_;
  std::span<const std::unique_ptr<transport>> transports_;
  std::uint32_t depth_;
  std::uint32_t places_ = 0;  // known to be free
  ledger_row& row_;
  std::string peer_name_;
  std::vector<way> ways_;
  std::size_t at_ = 0;
  std::unique_ptr<outbox> box_;
  std::map<std::uint32_t, attachment> attachments_;
  // What is to be done about attachments, by publisher: with a million of them, looking at each for
  // the sake of one would make each new one dearer than the one before. A number whose attachment
  // has gone, or has been seen to, is passed over.
  std::deque<std::uint32_t> due_;         // to be attached
  std::deque<std::uint32_t> probing_;     // attached, and not yet known to be confirmed
  std::vector<std::uint32_t> owing_;      // a Notice is due
  std::vector<std::uint32_t> uncounted_;  // a Count is due, for subscriptions that block
  // The first farewells_sent_ of them are on their way, and the peer lets go of them in this order.
  std::deque<farewell> farewells_;
  std::size_t farewells_sent_ = 0;
  std::uint64_t steps_ = 0;
  std::unique_ptr<wire::Introduce> introduction_;
  ledger_file* ledger_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, promise> promises_;
  std::uint64_t last_counting_ = 0;
  bool changed_ = true;
  bool was_open_ = false;
  bool doubt_ = false;
  bool unsettled_work_ = true;  // attachments to make, to confirm or to notify
  std::int64_t resume_at_ns_ = INT64_MAX;
  unsigned failures_ = 0;
  std::string reason_;
};

}  // namespace bus
