#include "bus/tool/chaos_party.hpp"

#include "bus/bus.hpp"
#include "bus/tool/chaos_record.hpp"
#include "bus/topic/pattern.hpp"
#include "transports/standard.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <deque>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include <unistd.h>

#include <asio/io_context.hpp>

namespace bus::tool {
namespace {

using namespace std::chrono_literals;

// A party looks at what it is told at least this often.
constexpr auto turn = 5ms;
// How often a subscriber looks in its ledger for new sources.
constexpr std::int64_t look_every_ns = 5'000'000;
constexpr int takes_in_a_turn = 1000;

volatile std::sig_atomic_t asked_to_leave = 0;
void hear_leave(int /*number*/) { asked_to_leave = 1; }

node_options options_for(const chaos_party_options& options) {
  node_options made{
      .name = "chaos-" + std::to_string(options.seat) + "-life-" + std::to_string(options.life),
      .transports = chaos_transports(options.chaos.transport),
      .directory = bus_path(options.folder)};
  if (options.chaos.transport == "zmq") made.listen = {"tcp://127.0.0.1:*"};
  // Small enough that subscribers who keep messages use it up now and then.
  made.memory_bytes_max = 64 << 20;
  return made;
}

class stage {
 public:
  explicit stage(const std::string& folder) : file_(stage_path(folder), sizeof(stage_record)) {}
  // Whether the party goes on in this phase.
  [[nodiscard]] bool is(chaos_phase phase) const noexcept {
    return asked_to_leave == 0 &&
           seen(file_.as<stage_record>().phase) == static_cast<std::uint64_t>(phase);
  }

 private:
  mapped_file file_;
};

// --- publishing

class publishing {
 public:
  explicit publishing(const chaos_party_options& options)
      : options_(options),
        character_(publisher_like(options.chaos, options.seat, options.character)),
        file_(record_path(options.folder, options.life), sizeof(publisher_record)),
        record_(file_.as<publisher_record>()),
        draw_(options.chaos.seed + options.life),
        buffer_(character_.bytes_max) {}

  void live() {
    const stage told(options_.folder);
    {
      node_options wanted = options_for(options_);
      wanted.waiting = character_.waiting;
      wanted.link_depth = character_.link_depth;
      node here(std::move(wanted));
      note_down(record_.node, here.id().value);
      std::vector<publisher<raw>> topics;
      for (std::uint32_t i = 0; i < character_.topics; ++i) {
        topics.push_back(here.advertise<raw>(chaos_topic(options_.seat, i)));
        note_down(record_.topics[i].number, topics.back().number());
      }
      while (told.is(chaos_phase::run)) {
        burst(topics);
        here.run_for(character_.rest);
        alive();
      }
      while (told.is(chaos_phase::rest)) {
        here.run_for(turn);
        alive();
      }
    }
    note_down(record_.left, 1);
  }

 private:
  void alive() noexcept { note_down(record_.alive_ns, static_cast<std::uint64_t>(steady_ns())); }

  void burst(std::vector<publisher<raw>>& topics) {
    for (std::uint32_t i = 0; i < character_.burst; ++i) {
      const std::uint64_t topic = draw_.below(topics.size());
      publisher<raw>& to = topics[topic];
      if (character_.waits_for_room && !to.has_room() && !to.wait_room(turn)) return;
      publish(to, topic);
    }
  }

  // What is refused for want of memory is no message: its number is used again.
  void publish(publisher<raw>& to, std::uint64_t topic) {
    constexpr std::uint64_t word = sizeof(std::uint64_t);
    const std::uint64_t words = (character_.bytes_max - chaos_message::bytes_min) / word + 1;
    const std::uint64_t bytes = chaos_message::bytes_min + draw_.below(words) * word;
    const chaos_message message{options_.chaos.seed, options_.life, topic, to.sequence() + 1};
    note_down(record_.topics[topic].meant, message.sequence);
    if (character_.lends) {
      if (auto memory = to.loan(bytes)) {
        message.write(memory->bytes().first(bytes));
        static_cast<void>(to.publish(std::move(*memory), bytes));
      }
    } else {
      const auto filled = std::span(buffer_).first(bytes);
      message.write(filled);
      static_cast<void>(to.publish(filled));
    }
    note_down(record_.topics[topic].done, to.sequence());
  }

  const chaos_party_options& options_;
  publisher_character character_;
  mapped_file file_;
  publisher_record& record_;
  dice draw_;
  std::vector<std::byte> buffer_;
};

// --- subscribing

class subscribing {
 public:
  explicit subscribing(const chaos_party_options& options)
      : options_(options),
        character_(subscriber_like(options.chaos, options.seat, options.character)),
        arrays_(options.lives),
        file_(record_path(options.folder, options.life), arrays_.bytes()),
        record_(file_.as<subscriber_record>()) {}

  void live() {
    const stage told(options_.folder);
    node_options wanted = options_for(options_);
    wanted.waiting = character_.waiting;
    if (character_.habit == chaos_habit::event_loop) wanted.context = &loop_;
    here_.emplace(std::move(wanted));
    note_down(record_.node, here_->id().value);
    subscribe();
    while (told.is(chaos_phase::run) || told.is(chaos_phase::rest)) {
      if (!turn_once()) kept_.clear();
      look_around();
      note_down(record_.alive_ns, static_cast<std::uint64_t>(steady_ns()));
    }
    look_around();
    kept_.clear();
    subscribers_.clear();
    listeners_.clear();
    here_.reset();
    note_down(record_.left, 1);
  }

 private:
  void subscribe() {
    for (std::size_t i = 0; i < character_.subscriptions.size(); ++i) {
      const chaos_subscription& one = character_.subscriptions[i];
      const subscriber_base* made = nullptr;
      if (character_.habit == chaos_habit::take) {
        subscribers_.push_back(here_->subscribe<raw>(one.pattern, one.options));
      } else {
        listeners_.push_back(here_->subscribe<raw>(
            one.pattern, [this, i](const received<raw>& message) { hear(i, message); },
            one.options));
      }
      made = &of(i);
      note_down(record_.books[i].number, made->number());
    }
  }

  [[nodiscard]] const subscriber_base& of(std::size_t index) const {
    if (character_.habit == chaos_habit::take) return subscribers_[index];
    return listeners_[index];
  }

  // Whether anything came.
  bool turn_once() {
    const std::uint64_t before = seen(record_.takes);
    if (character_.habit != chaos_habit::take) {
      here_->run_for(turn);
      return seen(record_.takes) != before;
    }
    for (std::size_t i = 0; i < subscribers_.size(); ++i) {
      for (int count = 0; count < takes_in_a_turn; ++count) {
        const auto message = subscribers_[i].try_take();
        if (!message) break;
        hear(i, *message);
      }
    }
    if (seen(record_.takes) != before) return true;
    if (const auto message = subscribers_.front().take(turn)) hear(0, *message);
    return seen(record_.takes) != before;
  }

  void hear(std::size_t index, const received<raw>& message) {
    const auto [said, whole] = chaos_message::read(message.bytes(), options_.chaos.seed);
    books_record& books = record_.books[index];
    note_down(books.taken, seen(books.taken) + 1);
    if (!whole || said.life >= options_.lives || said.topic >= chaos_topics_max) {
      return complain(breach::torn, said, 0);
    }
    source_record& source = arrays_.source(record_, said.life, said.topic, index);
    const std::uint64_t last = seen(source.last);
    remember(said);
    if (said.sequence != message.head().sequence) complain(breach::stale, said, last);
    const std::string* const topic = here_->inside().provenance_of(message.head()).topic;
    // Of one that died while its messages waited here, the topic is forgotten; the director knows
    // it.
    if (topic && (!matches(character_.subscriptions[index].pattern, *topic) ||
                  !topic->ends_with("/t" + std::to_string(said.topic)))) {
      complain(breach::foreign, said, last);
    }
    if (said.sequence == last) complain(breach::duplicated, said, last);
    if (said.sequence < last) complain(breach::out_of_order, said, last);
    if (last == 0) {
      note_down(source.first, said.sequence);
      note_sources();
    }
    note_down(source.last, said.sequence);
    note_down(source.taken, seen(source.taken) + 1);
    if (character_.keep > 0) {
      kept_.push_back(message.whole());
      if (kept_.size() > character_.keep) kept_.pop_front();
    }
  }

  static void copy(take_record& into, const chaos_message& said) noexcept {
    note_down(into.at_ns, static_cast<std::uint64_t>(steady_ns()));
    note_down(into.life, said.life);
    note_down(into.topic, said.topic);
    note_down(into.sequence, said.sequence);
  }
  void remember(const chaos_message& said) noexcept {
    const std::uint64_t number = seen(record_.takes);
    copy(record_.recent[number % subscriber_record::recent_max], said);
    note_down(record_.takes, number + 1);
  }
  void complain(breach what, const chaos_message& said, std::uint64_t last) noexcept {
    const std::uint64_t number = seen(record_.breaches);
    if (number < subscriber_record::breaches_max) {
      breach_record& kept = record_.first_breaches[number];
      copy(kept.message, said);
      note_down(kept.what, static_cast<std::uint64_t>(what));
      note_down(kept.last, last);
    }
    note_down(record_.breaches, number + 1);
  }

  void look_around() {
    const std::int64_t now = steady_ns();
    if (now - looked_ns_ >= look_every_ns) note_sources();
    for (std::size_t i = 0; i < character_.subscriptions.size(); ++i) {
      const accounts told = of(i).accounts();
      books_record& books = record_.books[i];
      note_down(books.sources, of(i).matched());
      note_down(books.expected, told.expected);
      note_down(books.delivered, told.delivered);
      note_down(books.queued, told.queued);
      for (std::size_t cause = 0; cause < loss_count; ++cause) {
        note_down(books.lost[cause], told.lost[cause]);
      }
    }
  }

  // Where the counting of each source began, as our own ledger has it while the source is there.
  void note_sources() {
    looked_ns_ = steady_ns();
    const auto ledger = read_ledger(here_->inside().meeting_place().directory(), here_->id());
    if (!ledger) return;
    for (const ledger_entry& row : ledger->entries) {
      if (row.kind != row_kind::source) continue;
      if (!known_.emplace(row.peer, row.other, row.number).second) continue;
      for (std::size_t i = 0; i < character_.subscriptions.size(); ++i) {
        if (seen(record_.books[i].number) != row.number) continue;
        const std::uint64_t number = seen(record_.attachments);
        if (number >= arrays_.sources()) return;
        attachment_record& made = arrays_.attachment(record_, number);
        note_down(made.node, row.peer.value);
        note_down(made.publisher, row.other);
        note_down(made.subscription, i);
        note_down(made.start, row.counts[column::source_sequence] + 1 -
                                  row.counts[column::source_arrived] -
                                  row.counts[column::source_lost]);
        note_down(record_.attachments, number + 1);
      }
    }
  }

  const chaos_party_options& options_;
  subscriber_character character_;
  subscriber_arrays arrays_;
  mapped_file file_;
  subscriber_record& record_;
  asio::io_context loop_;
  std::optional<node> here_;
  std::vector<subscriber<raw>> subscribers_;
  std::vector<listener> listeners_;
  std::deque<sample> kept_;
  std::set<std::tuple<node_id, std::uint64_t, std::uint32_t>> known_;
  std::int64_t looked_ns_ = 0;
};

}  // namespace

bill_of_transports chaos_transports(const std::string& scheme) {
  bill_of_transports bill;
  for (transport_maker& one : transports::standard()) {
    if (one.scheme == scheme && scheme != "inproc") bill.push_back(std::move(one));
  }
  return bill;
}

int run_chaos_party(const chaos_party_options& options) {
  static_cast<void>(std::signal(SIGTERM, hear_leave));
  if (part_of(options.chaos, options.seat) == chaos_part::publisher) {
    publishing(options).live();
  } else {
    subscribing(options).live();
  }
  return 0;
}

}  // namespace bus::tool
