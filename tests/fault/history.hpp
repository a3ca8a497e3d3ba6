// What clients of the bus saw, and the one checker that proves from these histories alone that
//
//   I2  nothing torn, foreign, stale or duplicated was delivered, and
//   I3  per publisher, order was kept; delivered + reported lost = published, for each subscriber
//       that was attached throughout.
//
// Every incarnation of a client has a history of its own and an epoch, which is its node's id. The
// checker is pure: it reads histories and returns sentences; none means that both hold.
#pragma once

#include "bus/base/ids.hpp"
#include "bus/route/ledger.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace fault {

// A payload that proves itself: whose it is, which one, and a checksum over all of it. 1 KiB, so
// that one which is half written is seen.
struct message {
  std::uint64_t epoch;
  std::uint64_t sequence;
  std::array<std::uint64_t, 125> filling;
  std::uint64_t checksum;
};
static_assert(sizeof(message) == 1024);

[[nodiscard]] inline std::uint64_t checksum_of(const message& one) noexcept {
  std::uint64_t hash = 14695981039346656037ULL;
  const auto mix = [&](std::uint64_t word) { hash = (hash ^ word) * 1099511628211ULL; };
  mix(one.epoch);
  mix(one.sequence);
  for (const std::uint64_t word : one.filling) mix(word);
  return hash;
}

[[nodiscard]] inline message make_message(std::uint64_t epoch, std::uint64_t sequence) noexcept {
  message one{.epoch = epoch, .sequence = sequence, .filling = {}, .checksum = 0};
  for (std::size_t i = 0; i < one.filling.size(); ++i) one.filling[i] = sequence * (epoch + i);
  one.checksum = checksum_of(one);
  return one;
}

struct publication_made {
  std::uint64_t sequence = 0;
  std::uint64_t checksum = 0;
  std::int64_t at_ns = 0;  // steady clock, as all moments here
};

struct delivery {
  std::uint64_t sender = 0;    // by the frame
  std::uint64_t sequence = 0;  // by the frame
  std::uint64_t epoch = 0;     // by the payload
  std::uint64_t claimed = 0;   // the payload's sequence
  std::uint64_t checksum = 0;  // the payload's
  bool is_whole = false;       // the checksum is right
  std::int64_t at_ns = 0;
};

// A publisher's, or a subscriber's; the other half is empty.
struct history {
  std::uint64_t epoch = 0;
  std::int64_t began_ns = 0;  // when its node was there
  std::int64_t ended_ns = 0;  // when it had left, or was proved dead; 0: it lives
  std::int64_t longest_call_ns = 0;
  // Descriptors that it had more after its node had gone than before it came.
  std::int64_t descriptors_left = 0;

  // publisher
  std::int64_t attached_ns = 0;  // when all whom it waited for were attached, and it began
  std::uint64_t attempted = 0;   // the last sequence that it may have published
  std::uint64_t full = 0;        // publications that a link did not take
  std::vector<publication_made> published;

  // subscriber
  std::vector<delivery> deliveries;
  std::map<std::uint64_t, std::int64_t> detached;  // sender -> when it was told that it had left
  bool has_books = false;                          // it ended well, and said:
  std::uint64_t expected = 0;
  std::uint64_t delivered = 0;
  std::uint64_t queued = 0;
  std::array<std::uint64_t, bus::loss_count> lost{};

  [[nodiscard]] std::uint64_t lost_in_all() const noexcept {
    std::uint64_t sum = 0;
    for (const std::uint64_t each : lost) sum += each;
    return sum;
  }
  [[nodiscard]] std::uint64_t lost_by(bus::loss cause) const noexcept {
    return lost[static_cast<std::size_t>(cause)];
  }
};

class checker {
 public:
  // One sentence for each violation, at most `sentences_max`.
  [[nodiscard]] static std::vector<std::string> check(const std::vector<history>& all) {
    checker one;
    for (const history& each : all) {
      if (each.attempted > 0 || !each.published.empty()) one.publishers_[each.epoch] = &each;
    }
    for (const history& each : all) {
      one.check_deliveries(each);
      if (each.has_books) one.check_books(each);
    }
    return one.found_;
  }

 private:
  static constexpr std::size_t sentences_max = 20;

  void complain(const history& of, const std::string& what) {
    if (found_.size() < sentences_max) found_.push_back(bus::to_hex(of.epoch) + ": " + what);
  }

  void check_deliveries(const history& of) {
    std::map<std::uint64_t, std::vector<bool>> seen;
    std::map<std::uint64_t, std::uint64_t> last;
    for (const delivery& one : of.deliveries) {
      const std::string name = std::to_string(one.sequence) + " from " + bus::to_hex(one.sender);
      if (const std::string wrong = verdict_on(one, of); !wrong.empty()) {
        complain(of, std::string(name).append(" is ").append(wrong));
        continue;
      }
      std::vector<bool>& had = seen[one.sender];
      if (had.size() <= one.sequence) had.resize(one.sequence + 1);
      if (had[one.sequence]) {
        complain(of, name + " is duplicated");
      } else if (one.sequence < last[one.sender]) {
        complain(of, name + " is reordered: it came after " + std::to_string(last[one.sender]));
      }
      had[one.sequence] = true;
      last[one.sender] = std::max(last[one.sender], one.sequence);
    }
  }

  // What is wrong with one delivery by itself; nothing when nothing is.
  [[nodiscard]] std::string verdict_on(const delivery& one, const history& of) const {
    if (!one.is_whole) return "torn";
    const auto found = publishers_.find(one.sender);
    if (found == publishers_.end()) return "foreign: no publisher has that epoch";
    if (one.epoch != one.sender) {
      return publishers_.contains(one.epoch) ? "stale: another epoch's payload"
                                             : "foreign: another's payload";
    }
    if (one.claimed != one.sequence) return "stale: the payload of " + std::to_string(one.claimed);
    const history& by = *found->second;
    if (one.sequence == 0 || one.sequence > by.attempted) return "foreign: it was never published";
    const auto at = std::lower_bound(
        by.published.begin(), by.published.end(), one.sequence,
        [](const publication_made& each, std::uint64_t wanted) { return each.sequence < wanted; });
    const bool is_known = at != by.published.end() && at->sequence == one.sequence;
    if (is_known && at->checksum != one.checksum) return "torn: not the checksum published";
    if (by.ended_ns != 0 && by.ended_ns < of.began_ns) return "stale: from before we came";
    const auto gone = of.detached.find(one.sender);
    if (gone != of.detached.end() && gone->second < one.at_ns) return "stale: it had left";
    return {};
  }

  // Killed in the middle of a call, a publisher may or may not have published that one.
  void check_books(const history& of) {
    if (of.delivered != of.deliveries.size()) {
      complain(of, "its books say " + std::to_string(of.delivered) + " delivered, it had " +
                       std::to_string(of.deliveries.size()));
    }
    if (of.expected != of.delivered + of.queued + of.lost_in_all()) {
      complain(of, "delivered + queued + lost is not what its books expect");
    }
    std::uint64_t least = 0;
    std::uint64_t most = 0;
    for (const auto& [epoch, by] : publishers_) {
      const bool throughout = of.began_ns <= by->attached_ns && by->attached_ns != 0 &&
                              by->ended_ns != 0 && by->ended_ns <= of.ended_ns;
      const auto from_it = static_cast<std::uint64_t>(
          std::count_if(of.deliveries.begin(), of.deliveries.end(),
                        [sender = epoch](const delivery& one) { return one.sender == sender; }));
      least += throughout ? by->published.size() : from_it;
      const bool met = by->ended_ns == 0 || by->ended_ns >= of.began_ns;
      most += met ? by->attempted : 0;
    }
    if (of.expected < least || of.expected > most) {
      complain(of, std::to_string(of.expected) + " accounted for of " + std::to_string(least) +
                       " to " + std::to_string(most) + " published: lost and not counted");
    }
  }

  std::map<std::uint64_t, const history*> publishers_;
  std::vector<std::string> found_;
};

// --- I1, I8 and I9, from histories and from what was said

// Who was longer than `limit_ns` in one call, as a sentence each.
[[nodiscard]] inline std::vector<std::string> blocked(const std::vector<history>& all,
                                                      std::int64_t limit_ns) {
  std::vector<std::string> found;
  for (const history& each : all) {
    if (each.longest_call_ns <= limit_ns) continue;
    found.push_back(bus::to_hex(each.epoch) + " was in one call for " +
                    std::to_string(each.longest_call_ns / 1'000'000) + " ms");
  }
  return found;
}

// Which of the words a sentence that names a fault lacks.
[[nodiscard]] inline std::vector<std::string> lacking(const std::string& sentence,
                                                      const std::vector<std::string>& words) {
  std::vector<std::string> missing;
  for (const std::string& word : words) {
    if (sentence.find(word) == std::string::npos) missing.push_back(word);
  }
  return missing;
}

// Messages that a subscriber got in [from, to).
[[nodiscard]] inline std::uint64_t delivered_between(const history& of, std::int64_t from_ns,
                                                     std::int64_t to_ns) {
  return static_cast<std::uint64_t>(std::count_if(
      of.deliveries.begin(), of.deliveries.end(),
      [&](const delivery& one) { return one.at_ns >= from_ns && one.at_ns < to_ns; }));
}

// How long after `healed_ns` the first window of `window_ns` ended in which a subscriber got at
// least half of what it got in the window before `fault_ns`; -1: never.
[[nodiscard]] inline std::int64_t recovery_ns(const history& of, std::int64_t fault_ns,
                                              std::int64_t healed_ns, std::int64_t window_ns) {
  const std::uint64_t before = delivered_between(of, fault_ns - window_ns, fault_ns);
  if (of.deliveries.empty() || before == 0) return -1;
  const std::int64_t end_ns = of.deliveries.back().at_ns;
  for (std::int64_t at = healed_ns; at + window_ns <= end_ns; at += window_ns / 4) {
    if (delivered_between(of, at, at + window_ns) * 2 >= before) return at + window_ns - healed_ns;
  }
  return -1;
}

}  // namespace fault
