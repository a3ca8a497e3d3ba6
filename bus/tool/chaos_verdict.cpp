#include "bus/tool/chaos_verdict.hpp"

#include "bus/topic/pattern.hpp"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace bus::tool {
namespace {

constexpr std::uint64_t takes_shown = 8;

std::string_view name_of(chaos_ending how) {
  switch (how) {
    case chaos_ending::lives:
      return "lives";
    case chaos_ending::killed:
      return "killed";
    case chaos_ending::left:
      return "left";
  }
  return "";
}

std::uint64_t lost_in_all(const books_record& books) {
  std::uint64_t sum = 0;
  for (const recorded& each : books.lost) sum += seen(each);
  return sum;
}

std::string who(std::uint32_t seat, std::uint32_t life) {
  return fmt::format("seat {}, life {}", seat, life);
}

std::string message_words(const take_record& one) {
  return fmt::format("message {} of life {}, topic t{}", seen(one.sequence), seen(one.life),
                     seen(one.topic));
}

}  // namespace

publisher_account account_of(const publisher_record& record) {
  publisher_account made;
  made.node = node_id{seen(record.node)};
  for (std::size_t i = 0; i < record.topics.size(); ++i) {
    made.topics[i].number = seen(record.topics[i].number);
    made.topics[i].meant = seen(record.topics[i].meant);
    made.topics[i].done = seen(record.topics[i].done);
  }
  return made;
}

void chaos_books::add(const subscriber_record& one) noexcept {
  for (const books_record& books : one.books) {
    taken += seen(books.taken);
    expected += seen(books.expected);
    delivered += seen(books.delivered);
    queued += seen(books.queued);
    for (std::size_t cause = 0; cause < loss_count; ++cause) lost[cause] += seen(books.lost[cause]);
  }
}

std::vector<std::string> last_takes(const subscriber_record& record) {
  std::vector<std::string> lines;
  const std::uint64_t end = seen(record.takes);
  for (std::uint64_t i = end - std::min(end, takes_shown); i < end; ++i) {
    lines.push_back("took " + message_words(record.recent[i % subscriber_record::recent_max]));
  }
  return lines;
}

void chaos_judge::add_dead(const publisher_account& one) {
  if (one.node.value != 0) dead_by_node_[one.node.value] = dead_.size();
  dead_.push_back(one);
}

const publisher_account* chaos_judge::find(std::uint64_t node) const {
  for (const publisher_account& one : living_) {
    if (one.node.value == node) return &one;
  }
  const auto at = dead_by_node_.find(node);
  return at == dead_by_node_.end() ? nullptr : &dead_[at->second];
}

std::vector<finding> chaos_judge::judge(const publisher_account& one) {
  std::vector<finding> found;
  for (std::size_t i = 0; i < one.topics.size(); ++i) {
    const publisher_account::topic& topic = one.topics[i];
    if (!topic.published) continue;
    if (*topic.published >= topic.done && *topic.published <= topic.meant) continue;
    found.push_back(
        {fmt::format("publisher at {}: its ledger says that {} was the last one of "
                     "topic t{}; it had published {} and meant to publish {}",
                     who(one.seat, one.life), *topic.published, i, topic.done, topic.meant),
         one.life});
  }
  return found;
}

void chaos_judge::check_breaches(const subscriber_account& one, std::vector<finding>& found) const {
  const std::uint64_t count = seen(one.record->breaches);
  for (std::size_t i = 0; i < std::min(count, subscriber_record::breaches_max); ++i) {
    const breach_record& each = one.record->first_breaches[i];
    found.push_back(
        {fmt::format("subscriber at {}: {} was {} (the one before was {}; {} breaches "
                     "in all)",
                     who(one.seat, one.life), message_words(each.message),
                     name_of(static_cast<breach>(seen(each.what))), seen(each.last), count),
         one.life, static_cast<std::int64_t>(seen(each.message.at_ns))});
  }
}

// Nothing is taken that was never meant, from nobody who may publish there.
void chaos_judge::check_sources(const subscriber_account& one, const subscriber_character& like,
                                std::vector<finding>& found) const {
  for (std::uint64_t i = 0; i < seen(one.record->attachments); ++i) {
    const attachment_record& each = arrays_.attachment(*one.record, i);
    const publisher_account* const from = find(seen(each.node));
    const std::size_t subscription = seen(each.subscription);
    if (!from) {
      found.push_back({fmt::format("subscriber at {}: node {} is attached, which is nobody here",
                                   who(one.seat, one.life), to_hex(seen(each.node))),
                       one.life});
      continue;
    }
    for (std::size_t topic = 0; topic < chaos_topics_max; ++topic) {
      if (from->topics[topic].number != seen(each.publisher)) continue;
      const std::string name = chaos_topic(from->seat, static_cast<std::uint32_t>(topic));
      if (!matches(like.subscriptions[subscription].pattern, name)) {
        found.push_back(
            {fmt::format("subscriber at {}: {} is attached to {}", who(one.seat, one.life), name,
                         like.subscriptions[subscription].pattern),
             one.life});
      }
      const source_record& source = arrays_.source(*one.record, from->life, topic, subscription);
      if (seen(source.last) > from->topics[topic].meant) {
        found.push_back({fmt::format("subscriber at {}: took {} of life {}, topic t{}, which had "
                                     "come to {} only",
                                     who(one.seat, one.life), seen(source.last), from->life, topic,
                                     from->topics[topic].meant),
                         one.life});
      }
    }
  }
}

std::vector<finding> chaos_judge::judge(const subscriber_account& one,
                                        std::uint32_t character) const {
  const subscriber_character like = subscriber_like(options_, one.seat, character);
  std::vector<finding> found;
  check_breaches(one, found);
  check_sources(one, like, found);
  for (std::size_t i = 0; i < like.subscriptions.size(); ++i) {
    const books_record& books = one.record->books[i];
    const std::uint64_t taken = seen(books.taken);
    if (one.how == chaos_ending::left) {
      const std::uint64_t accounted =
          seen(books.delivered) + seen(books.queued) + lost_in_all(books);
      if (seen(books.expected) != accounted || taken != seen(books.delivered)) {
        found.push_back(
            {fmt::format("subscriber at {}: when it left, {} were expected, {} "
                         "delivered, {} taken, {} queued, {} lost",
                         who(one.seat, one.life), seen(books.expected), seen(books.delivered),
                         taken, seen(books.queued), lost_in_all(books)),
             one.life});
      }
    }
    if (one.how != chaos_ending::killed || !one.ledger) continue;
    const auto number = static_cast<std::uint32_t>(seen(books.number));
    const ledger_entry* const row = find_entry(*one.ledger, row_kind::subscription, number);
    if (!row) continue;
    const std::uint64_t delivered = row->counts[column::delivered];
    std::uint64_t accounted = delivered + row->counts[column::queued];
    for (std::size_t cause = 0; cause < loss_count; ++cause) {
      accounted += row->counts[column::lost + cause];
    }
    // It may have been killed between any two of these.
    if (delivered < taken || delivered > taken + 1 || row->counts[column::expected] < accounted) {
      found.push_back({fmt::format("subscriber at {}: its ledger says that {} were expected, {} "
                                   "delivered, {} accounted for; it had taken {}",
                                   who(one.seat, one.life), row->counts[column::expected],
                                   delivered, accounted, taken),
                       one.life});
    }
  }
  return found;
}

// What was published to one subscription, as the publishers say.
chaos_judge::published_to chaos_judge::published(const subscriber_account& one,
                                                 const std::string& pattern,
                                                 std::size_t subscription) const {
  published_to sum;
  std::set<std::pair<std::uint64_t, std::uint64_t>> attached;
  for (std::uint64_t a = 0; a < seen(one.record->attachments); ++a) {
    const attachment_record& each = arrays_.attachment(*one.record, a);
    const publisher_account* const from = find(seen(each.node));
    if (!from || seen(each.subscription) != subscription) continue;
    attached.insert({seen(each.node), seen(each.publisher)});
    for (std::size_t t = 0; t < from->topics.size(); ++t) {
      const publisher_account::topic& topic = from->topics[t];
      if (topic.number != seen(each.publisher)) continue;
      sum.attached += topic.last() + 1 - seen(each.start);
      const source_record& source = arrays_.source(*one.record, from->life, t, subscription);
      if (seen(source.last) == topic.last()) continue;
      sum.behind.push_back(
          fmt::format("life {}, topic t{} ({}): attached from {}, published up to "
                      "{}, taken {}, the last one {}",
                      from->life, t, name_of(from->how), seen(each.start), topic.last(),
                      seen(source.taken), seen(source.last)));
    }
  }
  const auto look_for = [&](const publisher_account& from) {
    for (std::size_t t = 0; t < from.topics.size(); ++t) {
      const auto& topic = from.topics[t];
      const std::string name = chaos_topic(from.seat, static_cast<std::uint32_t>(t));
      if (topic.number == 0 || !matches(pattern, name)) continue;
      if (attached.contains({from.node.value, topic.number})) continue;
      if (from.how == chaos_ending::lives) sum.missing.push_back(name);
      sum.overlooked += topic.last();
    }
  };
  std::for_each(living_.begin(), living_.end(), look_for);
  std::for_each(dead_.begin(), dead_.end(), look_for);
  return sum;
}

std::vector<finding> chaos_judge::judge_at_rest(const subscriber_account& one,
                                                std::uint32_t character) const {
  const subscriber_character like = subscriber_like(options_, one.seat, character);
  std::vector<finding> found;
  for (std::size_t i = 0; i < like.subscriptions.size(); ++i) {
    const books_record& books = one.record->books[i];
    const std::string& pattern = like.subscriptions[i].pattern;
    const published_to sum = published(one, pattern, i);
    const std::string whose =
        fmt::format("subscriber at {}, {}: ", who(one.seat, one.life), pattern);
    for (const std::string& name : sum.missing) {
      found.push_back({whose + name + " is not attached", one.life});
    }
    const std::uint64_t expected = seen(books.expected);
    const std::uint64_t accounted = seen(books.delivered) + seen(books.queued) + lost_in_all(books);
    if (expected == accounted && seen(books.taken) == seen(books.delivered) &&
        seen(books.queued) == 0 && expected >= sum.attached &&
        expected <= sum.attached + sum.overlooked) {
      continue;
    }
    found.push_back({whose + fmt::format("{} were published, {} expected, {} delivered, {} taken, "
                                         "{} queued, {} lost",
                                         sum.attached, expected, seen(books.delivered),
                                         seen(books.taken), seen(books.queued), lost_in_all(books)),
                     one.life, 0, sum.behind});
  }
  return found;
}

}  // namespace bus::tool
