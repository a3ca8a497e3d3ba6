// What the parties of `bus chaos` write down, in files that are mapped by them and by the director:
// whatever kills a party, its record stays as it was at that instant. Only the party writes its
// record; all numbers are atomic, so that the director may look at any time. Relaxed everywhere:
// each number stands for itself, and the verdict is taken when the writers have ended or rest.
//
// Messages prove themselves: see chaos_message.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/node/subscriber.hpp"
#include "bus/route/ledger.hpp"
#include "bus/tool/chaos_plan.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace bus::tool {

using recorded = std::atomic<std::uint64_t>;
inline void note_down(recorded& where, std::uint64_t value) noexcept {
  where.store(value, std::memory_order_relaxed);
}
[[nodiscard]] inline std::uint64_t seen(const recorded& where) noexcept {
  return where.load(std::memory_order_relaxed);
}

// What all parties do now, as the director says: publish and take; only take; go home.
enum class chaos_phase : std::uint64_t { run, rest, end };
struct stage_record {
  recorded phase;
};

struct publisher_record {
  struct topic {
    recorded number;  // the publisher's, within its node; 0: not advertised yet
    recorded meant;   // the sequence that was to be published, before
    recorded done;    // the last one that was, after
  };
  recorded node;
  recorded alive_ns;  // when it last turned
  recorded left;      // 1: it went home by itself
  std::array<topic, chaos_topics_max> topics;
};

enum class breach : std::uint64_t { torn = 1, stale, duplicated, out_of_order, foreign };
[[nodiscard]] std::string_view name_of(breach what) noexcept;

// One life's messages on one topic, as one subscription took them.
struct source_record {
  recorded first;
  recorded last;
  recorded taken;
};
// Where the counting of one publisher began, by the subscriber's own ledger.
struct attachment_record {
  recorded node;
  recorded publisher;
  recorded subscription;  // index
  recorded start;         // the first sequence that counts
};
struct take_record {
  recorded at_ns;
  recorded life;
  recorded topic;
  recorded sequence;
};
struct breach_record {
  take_record message;
  recorded what;
  recorded last;  // the one taken before, of the same source
};
struct books_record {
  recorded number;  // the subscription's, within its node
  recorded taken;   // by the user, counted by the user
  recorded sources;
  recorded expected;
  recorded delivered;
  recorded queued;
  std::array<recorded, loss_count> lost;
};

struct subscriber_record {
  static constexpr std::size_t breaches_max = 16;
  static constexpr std::size_t recent_max = 256;  // a ring
  recorded node;
  recorded alive_ns;
  recorded left;
  std::array<books_record, chaos_subscriptions_max> books;
  recorded breaches;  // all that there were; the first ones are kept
  std::array<breach_record, breaches_max> first_breaches;
  recorded takes;
  std::array<take_record, recent_max> recent;
  recorded attachments;
  // Behind it: a source_record per life, topic and subscription; then the attachments.
};

// The arrays behind a subscriber_record, for a run of so many lives. They are sparse: a subscriber
// touches what it hears.
class subscriber_arrays {
 public:
  explicit subscriber_arrays(std::uint32_t lives) noexcept : lives_(lives) {}
  [[nodiscard]] std::size_t sources() const noexcept {
    return std::size_t{lives_} * chaos_topics_max * chaos_subscriptions_max;
  }
  [[nodiscard]] std::size_t bytes() const noexcept {
    return sizeof(subscriber_record) +
           sources() * (sizeof(source_record) + sizeof(attachment_record));
  }
  [[nodiscard]] source_record& source(subscriber_record& of, std::uint64_t life,
                                      std::uint64_t topic, std::size_t subscription) const {
    auto* const first = reinterpret_cast<source_record*>(&of + 1);
    return first[(life * chaos_topics_max + topic) * chaos_subscriptions_max + subscription];
  }
  // As many as sources(): each source attaches once.
  [[nodiscard]] attachment_record& attachment(subscriber_record& of, std::uint64_t index) const {
    auto* const first = reinterpret_cast<source_record*>(&of + 1);
    return reinterpret_cast<attachment_record*>(first + sources())[index];
  }

 private:
  std::uint32_t lives_;
};

// A file that is mapped, all zero at first.
class mapped_file {
 public:
  mapped_file() noexcept = default;
  // Makes the file, or opens the one that is there. Throws std::runtime_error.
  mapped_file(const std::string& path, std::size_t bytes);
  mapped_file(mapped_file&& other) noexcept { *this = std::move(other); }
  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(at_, other.at_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  mapped_file(const mapped_file&) = delete;
  mapped_file& operator=(const mapped_file&) = delete;
  ~mapped_file();

  template <class Record>
  [[nodiscard]] Record& as() const noexcept {
    return *static_cast<Record*>(at_);
  }

 private:
  void* at_ = nullptr;
  std::size_t bytes_ = 0;
};

[[nodiscard]] std::string stage_path(const std::string& folder);
[[nodiscard]] std::string record_path(const std::string& folder, std::uint32_t life);
[[nodiscard]] std::string bus_path(const std::string& folder);

// A message says which life's it is, which topic's and which sequence, and every word after that
// follows from these, from the run's seed and from its place: nothing can be torn, stale or
// somebody else's without being seen.
class chaos_message {
 public:
  static constexpr std::uint64_t bytes_min = 32;
  std::uint64_t seed = 0;
  std::uint64_t life = 0;
  std::uint64_t topic = 0;
  std::uint64_t sequence = 0;

  // Requires: into.size() >= bytes_min, a multiple of 8.
  void write(std::span<std::byte> into) const noexcept;
  // What the message says of itself; whole only if all of it agrees.
  struct reading;
  [[nodiscard]] static reading read(std::span<const std::byte> from, std::uint64_t seed) noexcept;

 private:
  [[nodiscard]] std::uint64_t word(std::size_t index) const noexcept;
};
struct chaos_message::reading {
  chaos_message message;
  bool whole = false;
};

}  // namespace bus::tool
