#include "bus/tool/chaos_cast.hpp"

#include "bus/base/clock.hpp"
#include "bus/node/ledger_file.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <fmt/format.h>

namespace bus::tool {
namespace {

using namespace std::chrono_literals;

// A party that may run and has not turned for so long is blocked by somebody.
constexpr std::int64_t blocked_after_ns = 15'000'000'000;
// From then on it is asked whether the kernel lets it run.
constexpr std::int64_t doubted_after_ns = 1'000'000'000;
// How long one that goes home may take: it lingers up to two seconds for peers that are behind.
constexpr auto leaving_within = 15s;
// What a finding's history shows.
constexpr std::size_t deeds_shown = 24;

// How long a process was ready to run, and the kernel ran others. 0 where the kernel does not say.
std::int64_t starved_ns(pid_t process) {
  std::ifstream words("/proc/" + std::to_string(process) + "/schedstat");
  std::int64_t ran = 0;
  std::int64_t waited = 0;
  words >> ran >> waited;
  return words ? waited : 0;
}

void append(std::vector<std::string>& to, std::vector<std::string> more) {
  std::move(more.begin(), more.end(), std::back_inserter(to));
}

}  // namespace

chaos_cast::chaos_cast(const chaos_options& options, std::uint32_t lives)
    : options_(options),
      lives_(lives),
      stage_(stage_path(folder()), sizeof(stage_record)),
      judge_(options, lives) {
  parties_.resize(options.publishers + options.subscribers);
  for (std::uint32_t seat = 0; seat < parties_.size(); ++seat) parties_[seat].seat = seat;
}

bool chaos_cast::publishes(const party& at) const noexcept {
  return part_of(options_, at.seat) == chaos_part::publisher;
}

void chaos_cast::say(chaos_phase phase) noexcept {
  note_down(stage_.as<stage_record>().phase, static_cast<std::uint64_t>(phase));
}

void chaos_cast::start(party& at, std::uint32_t character) {
  at.life = started_++;
  at.character = character;
  at.stopped = at.asked = false;
  at.record =
      mapped_file(record_path(folder(), at.life),
                  publishes(at) ? sizeof(publisher_record) : subscriber_arrays(lives_).bytes());
  auto made =
      child_process::start({.command = {"/proc/self/exe", "chaos-peer",
                                        "--folder",       folder(),
                                        "--transport",    options_.transport,
                                        "--seed",         std::to_string(options_.seed),
                                        "--publishers",   std::to_string(options_.publishers),
                                        "--subscribers",  std::to_string(options_.subscribers),
                                        "--seat",         std::to_string(at.seat),
                                        "--life",         std::to_string(at.life),
                                        "--lives",        std::to_string(lives_),
                                        "--character",    std::to_string(character)}});
  if (!made) throw std::runtime_error("cannot start a party: " + made.error().message());
  at.process.emplace(std::move(*made));
  at.turned_ns = steady_ns();
  ++did_.started;
}

void chaos_cast::send(party& at, int number) { static_cast<void>(at.process->signal(number)); }

void chaos_cast::perform(const deed& one, std::vector<finding>& found) {
  party& at = parties_[one.seat];
  if (one.what == deed_kind::start && at.process) bury(at, found);  // it was asked to leave
  if (one.what != deed_kind::start && !at.process) return;          // and had left already
  switch (one.what) {
    case deed_kind::start:
      start(at, one.character);
      break;
    case deed_kind::kill:
      send(at, SIGKILL);
      bury(at, found);
      ++did_.killed;
      break;
    case deed_kind::stop:
      send(at, SIGSTOP);
      at.stopped = true;
      ++did_.stopped;
      break;
    case deed_kind::go_on:
      at.turned_ns = steady_ns();
      at.stopped = false;
      send(at, SIGCONT);
      break;
    case deed_kind::leave:
      at.asked = true;
      send(at, SIGTERM);
      ++did_.left;
      break;
  }
  log_.push_back({steady_ns(), one.what, at.seat, at.life});
}

void chaos_cast::watch(std::int64_t until_ns, std::vector<finding>& found) {
  std::vector<pollfd> ends;
  for (const party& one : parties_) {
    if (one.process) ends.push_back({.fd = one.process->handle(), .events = POLLIN, .revents = 0});
  }
  const std::int64_t left_ns = std::max<std::int64_t>(0, until_ns - steady_ns());
  const timespec pause{left_ns / 1'000'000'000, left_ns % 1'000'000'000};
  static_cast<void>(::ppoll(ends.data(), ends.size(), &pause, nullptr));
  const std::int64_t now = steady_ns();
  for (party& one : parties_) {
    if (one.process && one.process->poll()) bury(one, found);
    if (one.process) look_at(one, now, found);
  }
}

void chaos_cast::look_at(party& at, std::int64_t now_ns, std::vector<finding>& found) {
  const recorded& alive = publishes(at) ? at.record.as<publisher_record>().alive_ns
                                        : at.record.as<subscriber_record>().alive_ns;
  at.turned_ns = std::max(at.turned_ns, static_cast<std::int64_t>(seen(alive)));
  const std::int64_t still_ns = now_ns - at.turned_ns;
  if (at.stopped || at.asked || still_ns < doubted_after_ns) {
    at.starved_ns = -1;
    return;
  }
  // On a busy machine it may stand still because it is not let run: that is not its fault.
  if (at.starved_ns < 0) at.starved_ns = starved_ns(at.process->pid());
  if (still_ns < blocked_after_ns) return;
  const std::int64_t kept_ns = starved_ns(at.process->pid()) - at.starved_ns;
  if (still_ns - kept_ns < blocked_after_ns) return;
  found.push_back({fmt::format("seat {}, life {} has not turned for {} s, {} of them for want of a "
                               "processor, and nobody stopped it",
                               at.seat, at.life, still_ns / 1'000'000'000, kept_ns / 1'000'000'000),
                   at.life, now_ns});
}

void chaos_cast::bury(party& at, std::vector<finding>& found) {
  const std::int64_t now = steady_ns();
  auto ended = at.process->wait_for(leaving_within);
  if (!ended) {
    send(at, SIGKILL);
    ended = at.process->wait();
  }
  const bool left = ended->succeeded() && at.asked;
  // It was killed by us, or left; or was asked to leave before it had learned what that means.
  if (!left && ended->signal != SIGKILL && !(at.asked && ended->signal == SIGTERM)) {
    found.push_back(
        {fmt::format("seat {}, life {} of itself {}", at.seat, at.life, ended->describe()), at.life,
         now});
  }
  if (at.asked && ended->signal == SIGKILL) {
    found.push_back({fmt::format("seat {}, life {} did not leave within {} s", at.seat, at.life,
                                 leaving_within.count()),
                     at.life, now});
  }
  const chaos_ending how = left ? chaos_ending::left : chaos_ending::killed;
  if (publishes(at)) {
    bury_publisher(at, how);
  } else {
    bury_subscriber(at, how, found);
  }
  ::unlink(record_path(folder(), at.life).c_str());
  at.process.reset();
  at.record = mapped_file();
}

void chaos_cast::bury_publisher(const party& at, chaos_ending how) {
  publisher_account account = account_of(at.record.as<publisher_record>());
  account.seat = at.seat;
  account.life = at.life;
  account.how = how;
  const fd directory(::open(bus_path(folder()).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (how == chaos_ending::killed && account.node.value != 0) {
    if (const auto books = read_ledger(directory.get(), account.node)) {
      for (publisher_account::topic& topic : account.topics) {
        const auto number = static_cast<std::uint32_t>(topic.number);
        const ledger_entry* const row = find_entry(*books, row_kind::publisher, number);
        if (row) topic.published = row->counts[column::published];
      }
    }
  }
  judge_.add_dead(account);
}

subscriber_account chaos_cast::account(const party& at, chaos_ending how) {
  return {.seat = at.seat,
          .life = at.life,
          .how = how,
          .record = &at.record.as<subscriber_record>(),
          .ledger = nullptr};
}

void chaos_cast::bury_subscriber(const party& at, chaos_ending how, std::vector<finding>& found) {
  subscriber_account one = account(at, how);
  dead_books_.add(*one.record);
  const node_id node{seen(one.record->node)};
  const fd directory(::open(bus_path(folder()).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  result<ledger_reading> books = unexpected(errc::not_found);
  if (how == chaos_ending::killed && node.value != 0) books = read_ledger(directory.get(), node);
  if (books) one.ledger = &*books;
  for (finding& each : judge().judge(one, at.character)) {
    append(each.details, last_takes(*one.record));
    found.push_back(std::move(each));
  }
}

const chaos_judge& chaos_cast::judge() {
  std::vector<publisher_account> living;
  for (const party& at : parties_) {
    if (!at.process || !publishes(at)) continue;
    living.push_back(account_of(at.record.as<publisher_record>()));
    living.back().seat = at.seat;
    living.back().life = at.life;
  }
  judge_.set_living(std::move(living));
  return judge_;
}

std::vector<finding> chaos_cast::judge_at_rest() {
  const chaos_judge& knows = judge();
  std::vector<finding> found;
  for (const publisher_account& one : knows.dead()) {
    for (finding& each : chaos_judge::judge(one)) found.push_back(std::move(each));
  }
  for (const party& at : parties_) {
    if (!at.process || publishes(at)) continue;
    const subscriber_account one = account(at, chaos_ending::lives);
    std::vector<finding> all = knows.judge(one, at.character);
    for (finding& each : knows.judge_at_rest(one, at.character)) all.push_back(std::move(each));
    for (finding& each : all) {
      append(each.details, last_takes(*one.record));
      found.push_back(std::move(each));
    }
  }
  return found;
}

void chaos_cast::go_home(std::vector<finding>& found) {
  const bool wait = found.empty();
  for (party& at : parties_) {
    if (!at.process) continue;
    at.asked = wait;
    if (!wait) send(at, SIGKILL);
    bury(at, found);
  }
}

std::uint64_t chaos_cast::taken() const noexcept {
  std::uint64_t sum = dead_books_.taken;
  for (const party& at : parties_) {
    if (!at.process || publishes(at)) continue;
    for (const books_record& books : at.record.as<subscriber_record>().books) {
      sum += seen(books.taken);
    }
  }
  return sum;
}

chaos_books chaos_cast::books() const {
  chaos_books sum = dead_books_;
  for (const publisher_account& one : judge_.dead()) {
    for (const publisher_account::topic& topic : one.topics) sum.published += topic.last();
  }
  return sum;
}

std::vector<std::string> chaos_cast::history(const finding& about, std::int64_t began_ns) const {
  std::vector<std::string> lines;
  const std::int64_t until_ns = about.at_ns == 0 ? INT64_MAX : about.at_ns + 100'000'000;
  const auto end = std::find_if(log_.begin(), log_.end(),
                                [&](const done_deed& one) { return one.at_ns > until_ns; });
  const auto count = std::min<std::ptrdiff_t>(deeds_shown, end - log_.begin());
  for (auto at = end - count; at != end; ++at) {
    lines.push_back(fmt::format("{:9.6f} s: seat {}, life {} {}",
                                static_cast<double>(at->at_ns - began_ns) / 1e9, at->seat, at->life,
                                name_of(at->what)));
  }
  lines.insert(lines.end(), about.details.begin(), about.details.end());
  return lines;
}

}  // namespace bus::tool
