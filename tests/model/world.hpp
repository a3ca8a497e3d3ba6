// What is explored: some publishers and subscribers, and all memory between them.
//
// Each is a process. Killed, it does nothing more, its samples and its half-done work stay where
// they are, and the others get the kernel's news: the end of its socket.
//
// The world checks itself while it runs. It keeps its own account, in which no production code is
// believed: what was sent and not yet delivered, and what of a publisher's memory a live subscriber
// may still read. A permission to write ends with an effect that the publisher can see, and not
// with the reading itself: so it does not matter how soon a subscriber reads what it may.
#pragma once

#include "tests/model/actors.hpp"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace model {

class world {
 public:
  // In the region, with nothing else in it.
  [[nodiscard]] static world* make(const plan& of);
  // The whole as it was made, from now on with these scheduling points.
  void restart(points at) noexcept;
  [[nodiscard]] static points paused_at() noexcept;
  ~world();
  world(const world&) = delete;
  world& operator=(const world&) = delete;

  // Those that can be killed come first.
  [[nodiscard]] unsigned processes() const noexcept { return plan_.publishers + plan_.subscribers; }
  [[nodiscard]] unsigned actors() const noexcept {
    return processes() + (plan_.keepers ? plan_.subscribers : 0);
  }
  [[nodiscard]] fiber& run_of(unsigned which) noexcept { return actor_of(which).run; }
  [[nodiscard]] const fiber& run_of(unsigned which) const noexcept;
  [[nodiscard]] std::string name_of(unsigned which) const;
  [[nodiscard]] bool can_go(unsigned which) const noexcept;
  void resume(unsigned which) noexcept;
  void kill(unsigned which) noexcept;

  // The next step of this actor commutes with all that others may do before it (alone.cpp).
  // Which is asked at points::seen and points::shared.
  [[nodiscard]] bool goes_alone(unsigned which, bool may_die) const noexcept;

  [[nodiscard]] bool is_over() const noexcept;
  // What went wrong so far; null: nothing.
  [[nodiscard]] const char* failure() const noexcept { return failure_; }
  void fail(const char* what) noexcept {
    if (!failure_) failure_ = what;
  }
  // After each step: what must hold always.
  void check_now() noexcept;
  // When it is over: all is delivered or counted, and everything is home.
  void check_end() noexcept;

  // Brings the state into its canonical form (canonical.cpp): what nobody will look at again is no
  // difference.
  void tidy() noexcept;

  // --- for the actors
  [[nodiscard]] const plan& about() const noexcept { return plan_; }
  [[nodiscard]] publisher& from(unsigned which) noexcept { return publishers_[which]; }
  [[nodiscard]] subscriber& to(unsigned which) noexcept { return subscribers_[which]; }
  [[nodiscard]] actor& running() noexcept { return *running_; }

  // --- the account (account.cpp)
  // A payload's slot, by its offset; leaving::no_slot if it is in none.
  [[nodiscard]] std::uint64_t slot_of(unsigned from, const std::byte* payload) const noexcept;
  // A subscriber may read a publisher's slot from now on.
  void may_read(unsigned from, unsigned to, std::uint64_t slot) noexcept;
  // A slot, the next entry, the next cell is written: nobody alive may read it.
  void writes_slot(unsigned from, std::uint64_t slot) noexcept;
  void writes_entry(unsigned from, unsigned to) noexcept;
  void writes_cell(unsigned from, unsigned to) noexcept;
  // It has been offered to all who shall have it.
  void was_offered(unsigned from) noexcept { written_[from] = nothing; }
  void was_sent(unsigned from, unsigned to) noexcept { ++links_[from][to].unread; }
  void was_delivered(unsigned from, unsigned to) noexcept { --links_[from][to].unread; }
  // The running actor's bit or count is out.
  void has_answered() noexcept;

 private:
  // One publisher's memory, as far as one subscriber goes.
  struct link {
    std::uint64_t slots = 0;    // one bit for each slot that may be read
    std::uint64_t entries = 0;  // so many were read, and a sample said so
    std::uint64_t cells = 0;    // so many were reported
    std::int64_t unread = 0;    // sent, and not delivered
  };

  explicit world(const plan& of);
  void begin() noexcept;
  void make_publisher(unsigned which);
  void make_subscriber(unsigned which);
  void connect(unsigned from, unsigned to);
  [[nodiscard]] actor& actor_of(unsigned which) noexcept;
  [[nodiscard]] process& process_of(unsigned which) noexcept;
  [[nodiscard]] bool is_at(unsigned which, std::string_view place) const noexcept;
  [[nodiscard]] bool publisher_goes_alone(const publisher& one, bool may_die) const noexcept;
  [[nodiscard]] bool subscriber_goes_alone(const subscriber& one) const noexcept;
  void bury(unsigned which) noexcept;
  void tidy_links_of(unsigned from) noexcept;
  void tidy_slots_of(unsigned from) noexcept;
  void tidy_bells() noexcept;

  plan plan_;
  const char* failure_ = nullptr;
  actor* running_ = nullptr;
  std::vector<publisher> publishers_;
  std::vector<subscriber> subscribers_;
  std::vector<keeper> keepers_;
  std::array<std::array<link, each_max>, each_max> links_{};  // by publisher and subscriber
  std::array<std::byte*, each_max> slots_at_{};               // by publisher
  // By publisher: the slot that it writes or offers.
  static constexpr std::uint64_t nothing = UINT64_MAX;
  std::array<std::uint64_t, each_max> written_{nothing, nothing, nothing, nothing};
};

// One chunk for each slot, so that the arena's cap says how many there are.
inline constexpr std::uint64_t slot_bytes = 16 << 10;
inline constexpr std::uint64_t lend_bytes = 10'000;
// What of a slot is written: the frame, and a payload of three words.
inline constexpr std::size_t words = 3;
inline constexpr std::uint64_t payload_bytes = words * sizeof(std::uint64_t);

[[nodiscard]] constexpr std::uint64_t node_of(unsigned publisher) { return 0x100 + publisher; }
[[nodiscard]] constexpr std::uint64_t proof_of(std::uint64_t node, std::uint64_t sequence) {
  return (node * 0x9e3779b97f4a7c15ULL) ^ (sequence * 0xbf58476d1ce4e5b9ULL);
}

}  // namespace model
