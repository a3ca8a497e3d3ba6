// The parties of `bus chaos`, as their director holds them: one process per seat at a time, each
// life with its record. It starts, signals and reaps; it keeps what the dead have left until that
// has been judged, and the books of all.
#pragma once

#include "bus/base/child_process.hpp"
#include "bus/tool/chaos_plan.hpp"
#include "bus/tool/chaos_record.hpp"
#include "bus/tool/chaos_verdict.hpp"
#include "bus/tool/private_folder.hpp"
#include "bus/topic/pattern.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace bus::tool {

// How often it did what.
struct chaos_deeds {
  std::uint64_t started = 0;
  std::uint64_t killed = 0;
  std::uint64_t stopped = 0;
  std::uint64_t left = 0;
};

class chaos_cast {
 public:
  // Throws std::runtime_error when there is no place for its files.
  chaos_cast(const chaos_options& options, std::uint32_t lives);
  ~chaos_cast() = default;  // kills all
  chaos_cast(const chaos_cast&) = delete;
  chaos_cast& operator=(const chaos_cast&) = delete;

  // Descriptors that it holds while it lives, and no process does: the folder's.
  static constexpr std::size_t descriptors = 1;

  [[nodiscard]] const std::string& folder() const noexcept { return folder_.path(); }
  void say(chaos_phase phase) noexcept;
  // Does as planned. Waits only for who was asked to leave.
  void perform(const deed& one, std::vector<finding>& found);
  // Waits until then, or until a party ends that nobody asked to; and looks whether all turn.
  void watch(std::int64_t until_ns, std::vector<finding>& found);
  // After say(end): waits for all, and judges. With a finding already: kills all.
  void go_home(std::vector<finding>& found);

  // What does not balance, of those who live.
  [[nodiscard]] std::vector<finding> judge_at_rest();
  [[nodiscard]] std::uint64_t taken() const noexcept;
  [[nodiscard]] chaos_books books() const;
  [[nodiscard]] const chaos_deeds& did() const noexcept { return did_; }
  // What happened around a finding, line by line.
  [[nodiscard]] std::vector<std::string> history(const finding& about, std::int64_t began_ns) const;

  // Calls visit(source_record) for each topic of a living publisher that meets a subscription of
  // a living subscriber.
  template <class Visitor>
  void for_each_pair(Visitor&& visit) const {
    for (const party& from : parties_) {
      for (const party& to : parties_) meet(from, to, visit);
    }
  }

 private:
  struct party {
    std::optional<child_process> process;  // empty: nobody sits there
    std::uint32_t seat = 0;
    std::uint32_t life = 0;
    std::uint32_t character = 0;
    std::int64_t turned_ns = 0;    // when it was started, continued or last seen to turn
    std::int64_t starved_ns = -1;  // when that had become long ago; -1: it has not
    bool stopped = false;
    bool asked = false;  // to leave
    mapped_file record;
  };
  struct done_deed {
    std::int64_t at_ns;
    deed_kind what;
    std::uint32_t seat;
    std::uint32_t life;
  };

  void start(party& at, std::uint32_t character);
  void send(party& at, int number);
  // Its process has ended, or is about to: reaps and judges it.
  void bury(party& at, std::vector<finding>& found);
  void bury_publisher(const party& at, chaos_ending how);
  void bury_subscriber(const party& at, chaos_ending how, std::vector<finding>& found);
  void look_at(party& at, std::int64_t now_ns, std::vector<finding>& found);
  [[nodiscard]] bool publishes(const party& at) const noexcept;
  // The judge, who knows how far the living publishers are now.
  [[nodiscard]] const chaos_judge& judge();
  [[nodiscard]] static subscriber_account account(const party& at, chaos_ending how);

  template <class Visitor>
  void meet(const party& from, const party& to, Visitor& visit) const;

  const chaos_options& options_;
  std::uint32_t lives_;
  std::uint32_t started_ = 0;
  private_folder folder_{"omnibus-chaos"};
  mapped_file stage_;
  std::vector<party> parties_;  // by seat
  chaos_judge judge_;
  chaos_books dead_books_;
  chaos_deeds did_;
  std::vector<done_deed> log_;
};

template <class Visitor>
void chaos_cast::meet(const party& from, const party& to, Visitor& visit) const {
  if (!from.process || !to.process || !publishes(from) || publishes(to)) return;
  const subscriber_character like = subscriber_like(options_, to.seat, to.character);
  const publisher_character source = publisher_like(options_, from.seat, from.character);
  const subscriber_arrays arrays(lives_);
  for (std::uint32_t topic = 0; topic < source.topics; ++topic) {
    for (std::size_t i = 0; i < like.subscriptions.size(); ++i) {
      if (!matches(like.subscriptions[i].pattern, chaos_topic(from.seat, topic))) continue;
      visit(arrays.source(to.record.as<subscriber_record>(), from.life, topic, i));
    }
  }
}

}  // namespace bus::tool
