// Whether the accounts of a run of `bus chaos` balance, from what its parties wrote down and from
// the ledgers of the killed. A pure function of those: it starts nothing and asks nobody.
//
// What is held against one another, for each subscription:
//
//   taken by its user, counted by its user      = delivered, says its ledger
//   expected, says its ledger                   = delivered + queued + lost by each cause
//   published by each publisher while attached  = expected, in sum      (who lived to the end)
//   the last sequence taken                    <= what its publisher meant to publish
//
// and for each publisher: done <= published, says its ledger <= meant.
#pragma once

#include "bus/base/ids.hpp"
#include "bus/route/ledger.hpp"
#include "bus/tool/chaos_plan.hpp"
#include "bus/tool/chaos_record.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace bus::tool {

enum class chaos_ending : std::uint8_t { lives, killed, left };

// What is known of one life of a publisher, also after it has ended.
struct publisher_account {
  struct topic {
    std::uint64_t number = 0;
    std::uint64_t meant = 0;
    std::uint64_t done = 0;
    std::optional<std::uint64_t> published;  // of a killed one, as its ledger says
    [[nodiscard]] std::uint64_t last() const noexcept { return published.value_or(done); }
  };
  std::uint32_t seat = 0;
  std::uint32_t life = 0;
  chaos_ending how = chaos_ending::lives;
  node_id node;
  std::array<topic, chaos_topics_max> topics;
};
// The last messages that it took, in words.
[[nodiscard]] std::vector<std::string> last_takes(const subscriber_record& record);
[[nodiscard]] publisher_account account_of(const publisher_record& record);

struct finding {
  std::string words;
  std::uint32_t life = 0;
  std::int64_t at_ns = 0;                 // 0: unknown
  std::vector<std::string> details = {};  // what else is known, line by line
};

struct chaos_books {
  std::uint64_t published = 0;
  std::uint64_t taken = 0;
  std::uint64_t expected = 0;
  std::uint64_t delivered = 0;
  std::uint64_t queued = 0;
  std::array<std::uint64_t, loss_count> lost{};
  void add(const subscriber_record& one) noexcept;
};

// A subscriber's life, as it stands in its record.
struct subscriber_account {
  std::uint32_t seat = 0;
  std::uint32_t life = 0;
  chaos_ending how = chaos_ending::lives;
  subscriber_record* record = nullptr;
  const ledger_reading* ledger = nullptr;  // of a killed one, if it had come so far
};

class chaos_judge {
 public:
  chaos_judge(const chaos_options& options, std::uint32_t lives) noexcept
      : options_(options), arrays_(lives) {}

  // Publishers are known before subscribers are judged: those that have ended, and, each time anew,
  // those that live.
  void add_dead(const publisher_account& one);
  void set_living(std::vector<publisher_account> all) noexcept { living_ = std::move(all); }
  [[nodiscard]] const std::vector<publisher_account>& dead() const noexcept { return dead_; }

  [[nodiscard]] static std::vector<finding> judge(const publisher_account& one);
  // What must hold at any time, and, of one that was killed or has left, at its end.
  [[nodiscard]] std::vector<finding> judge(const subscriber_account& one,
                                           std::uint32_t character) const;
  // What must hold at rest, of one that lives, when everybody else's account has been added.
  [[nodiscard]] std::vector<finding> judge_at_rest(const subscriber_account& one,
                                                   std::uint32_t character) const;

 private:
  struct published_to {
    std::uint64_t attached = 0;
    // By those who came and were buried between two looks of the subscriber: it may count, and need
    // not.
    std::uint64_t overlooked = 0;
    std::vector<std::string> missing;  // topics of living publishers that are not attached
    std::vector<std::string> behind;   // sources whose last message was not taken
  };
  [[nodiscard]] published_to published(const subscriber_account& one, const std::string& pattern,
                                       std::size_t subscription) const;
  [[nodiscard]] const publisher_account* find(std::uint64_t node) const;
  void check_breaches(const subscriber_account& one, std::vector<finding>& found) const;
  void check_sources(const subscriber_account& one, const subscriber_character& like,
                     std::vector<finding>& found) const;

  const chaos_options& options_;
  subscriber_arrays arrays_;
  std::vector<publisher_account> living_;
  std::vector<publisher_account> dead_;
  std::unordered_map<std::uint64_t, std::size_t> dead_by_node_;
};

}  // namespace bus::tool
