// The wheel: how a node comes up, turns, sleeps and ends.
#include "bus/node/core.hpp"

#include "bus/node/error.hpp"
#include "bus/node/gateway.hpp"
#include "bus/node/overseer.hpp"
#include "bus/topic/name.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string_view>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace bus {
namespace {

// A goodbye waits this long for peers that are behind.
constexpr std::chrono::seconds linger{1};

// Turns in a row that brought nothing, in which an answer over the kernel is looked for: as long as
// a node spins by default, at 0.4 us a look.
constexpr std::uint32_t turns_of_hope = 128;

std::vector<std::string> words_of(const char* variable) {
  std::vector<std::string> words;
  const char* const text = std::getenv(variable);
  if (!text) return words;
  std::string_view rest = text;
  while (!rest.empty()) {
    const auto comma = rest.find(',');
    if (comma != 0) words.emplace_back(rest.substr(0, comma));
    rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
  }
  return words;
}

std::string process_name() {
  std::ifstream comm("/proc/self/comm");
  std::string name;
  std::getline(comm, name);
  return name.empty() ? "node" : name;
}

node_options completed(node_options options) {
  if (options.name.empty()) options.name = process_name();
  if (options.directory.empty()) options.directory = default_directory();
  if (options.listen.empty()) options.listen = words_of("OMNIBUS_LISTEN");
  if (options.peers.empty()) options.peers = words_of("OMNIBUS_PEERS");
  // Who started us has left a way to itself.
  if (const char* const parent = std::getenv(parent_variable)) options.peers.emplace_back(parent);
  const char* const insecure = std::getenv("OMNIBUS_INSECURE");
  options.insecure = options.insecure || (insecure && std::string_view(insecure) == "1");
  return options;
}

// The file that who started us has given us for a ledger; once: whoever comes second in this
// process, or is started by it, finds something else under that number, or nothing.
fd given_books() {
  const char* const text = std::getenv(books_variable);
  if (!text) return {};
  const char* const end = text + std::strlen(text);
  int number = -1;
  std::uint64_t inode = 0;
  const char* const at = std::from_chars(text, end, number).ptr;
  if (at == end || *at != '@' || std::from_chars(at + 1, end, inode).ptr != end) return {};
  struct stat about {};
  if (::fstat(number, &about) != 0 || !S_ISREG(about.st_mode) || about.st_ino != inode) return {};
  fd own(::fcntl(number, F_DUPFD_CLOEXEC, 0));
  return own && ::close(number) == 0 ? std::move(own) : fd();
}

bool lacks_descriptors(std::error_code why) {
  return why == std::errc::too_many_files_open || why == std::errc::too_many_files_open_in_system;
}

constexpr const char* more_descriptors = "raise the limit of open files (ulimit -n)";

constexpr const char* more_memory =
    "give this process more (ulimit -v, ulimit -f, its cgroup's memory.max), or ask `bus doctor`";

// The next step for somebody whose bus directory refused.
std::string advice(std::error_code why) {
  if (why == errc::no_space) return "free some space or set OMNIBUS_DIR to another directory";
  if (lacks_descriptors(why)) return more_descriptors;
  return "set OMNIBUS_DIR to a directory of your own, mode 0700";
}

// Which rule of the directory somebody met who was denied; empty where it cannot be seen.
std::string rule_of(std::error_code why, const std::string& path) {
  struct stat about {};
  if (why != errc::denied || ::stat(path.c_str(), &about) != 0) return {};
  std::array<char, 8> mode;
  std::snprintf(mode.data(), mode.size(), "%04o", about.st_mode & 07777U);
  std::string rule = std::string(" (mode ") + mode.data() + ", owner " +
                     std::to_string(about.st_uid) + ", group " + std::to_string(about.st_gid);
  if ((about.st_mode & S_IWOTH) != 0) return rule + ": everybody may write there)";
  if ((about.st_mode & S_IWGRP) != 0) return rule + ": neither its owner nor in its group)";
  return rule + ": not its owner)";
}

template <class T>
T must(result<T> made, const std::string& what) {
  if (made) return std::move(*made);
  std::string step;
  if (lacks_descriptors(made.error())) step = std::string("; ") + more_descriptors;
  if (made.error() == errc::no_memory) step = std::string("; ") + more_memory;
  throw error(made.error(), what + ": " + made.error().message() + step);
}

}  // namespace

core::core(node_options options, overseer* watched_by)
    : options_(watched_by ? std::move(options) : completed(std::move(options))),
      id_(node_id::random()),
      process_id_(::getpid()),
      overseer_(watched_by) {
  if (options_.transports.empty()) {
    throw error(errc::unsupported, "node '" + options_.name +
                                       "' has no transports: pass transports::standard() in "
                                       "node_options::transports");
  }
  try {
    come_up();
  } catch (...) {
    // Whatever failed, nothing of a node that never was stays behind.
    if (rendezvous_) rendezvous_->remove(id_);
    throw;
  }
}

void core::hang_bell() {
  bell_ =
      must(bell::make(options_.woken_by), "cannot make the node's bell in shared memory (memfd)");
  if (bell_->signal_is_taken()) complain_of_signal();
}

void core::come_up() {
  hang_bell();
  watch_ = fd(::epoll_create1(EPOLL_CLOEXEC));
  timer_ = fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!watch_ || !timer_) {
    throw error(last_system_error(),
                "no descriptors left for the node: raise the limit of open files (ulimit -n)");
  }
  open_directory();
  shelter_ = std::make_unique<shelter>(options_.memory_bytes_max);
  reception_ = make_reception();
  open_transports();
  begin_card();
  // A node is its own peer: its publishers may meet its own subscriptions. What changes later is
  // told to the directory piece by piece.
  directory_.upsert(card_, directory::origin::local);
  if (auto written = rendezvous_->write_card(card_); !written) {
    throw error(written.error(), "cannot write the node's card in " + rendezvous_->path() + ": " +
                                     written.error().message() + "; " + advice(written.error()));
  }
  if (rendezvous_->wait_handle() >= 0) watch(rendezvous_->wait_handle(), from_rendezvous);
  watch(timer_.get(), from_timer);
  on_cards(rendezvous_->changes());
  call_peers();
  // An event loop watches our descriptors itself, and so does the node around us.
  if (!options_.context && !overseer_) post_sentry();
  flush_files();
}

std::unique_ptr<reception> core::make_reception() {
  return std::make_unique<reception>(
      *ledger_,
      reception::surroundings{
          .self = id_,
          .introduced = [this](node_id from,
                               const wire::Introduce& words) { introduced(from, words); },
          .schema_seen =
              [this](const wire::Attach& words) {
                if (hash64(words.schema()) == 0) return;
                static_cast<void>(keep_schema(words.type().hash(), words.schema()));
              },
          .departed =
              [this](node_id peer) {
                suspects_[peer] = {.left = suspects_[peer].left};
                directory_.fell_silent(peer);
                links_file_.dirty = true;
                restless_ = true;  // no descriptor will call for it
              },
          .grant = [this](node_id to, const wire::Grant& words) { grant(to, words); },
          .revoke =
              [this](node_id to, std::uint32_t publisher, std::uint32_t subscription) {
                std::erase_if(early_grants_, [&](const auto& each) {
                  return each.first == to && each.second.publisher() == publisher &&
                         each.second.subscription() == subscription;
                });
                const auto link = links_.find(to);
                if (link == links_.end()) return;
                link->second->revoke(publisher, subscription);
                restless_ = true;
              },
          .granted =
              [this](node_id from, const wire::Grant& words) {
                const auto link = links_.find(from);
                if (link == links_.end()) return;
                link->second->granted(words, steady_ns());
                restless_ = restless_ || link->second->restless();
              },
          .admits =
              overseer_
                  ? [this](node_id from,
                           const wire::Attach& words) { return overseer_->admits(from, words); }
                  : std::function<bool(node_id, const wire::Attach&)>(),
          .turned_away = overseer_
                             ? [this](std::uint64_t messages) { overseer_->turned_away(messages); }
                             : std::function<void(std::uint64_t)>()});
}

void core::begin_card() {
  card_.set_version(card_version);
  card_.set_node(id_.value);
  card_.set_name(options_.name);
  card_.set_born_ns(wall_ns());
  card_.set_pid(static_cast<std::uint32_t>(::getpid()));
  for (const auto& one : transports_) {
    // A scheme alone says that we can be reached by whom we have called: as soon as we have.
    std::string where = one->where();
    if (!where.empty() && !where.ends_with(':')) card_.add_addresses(std::move(where));
  }
  card_.set_revision(1);
}

core::~core() {
  // What children have sent goes on, as far as it can.
  gateways_.clear();
  leaving_ = true;
  while (!publications_.empty()) retire(*publications_.begin()->second);
  const deadline until = deadline::after(linger);
  const auto drained = [this] {
    tend();
    return std::all_of(links_.begin(), links_.end(),
                       [](const auto& entry) { return entry.second->drained(); });
  };
  try {
    drive(until, usual_budget, drained);
  } catch (...) {
    // A callback threw while we were leaving: there is nobody left to tell.
  }
  sentry_.reset();
  // Somebody here is behind, and will not hear from us any more: our books stay for it, as those of
  // a killed node do, until `bus gc`.
  const bool is_missed = std::any_of(links_.begin(), links_.end(), [this](const auto& entry) {
    const known_node* const peer = directory_.find(entry.first);
    return entry.second->owes_farewells() && peer && peer->local &&
           is_alive(rendezvous_->directory(), entry.first);
  });
  if (!is_missed) rendezvous_->remove(id_);
  links_.clear();
  calls_.clear();
  entrances_.clear();
  transports_.clear();
}

void core::open_directory() {
  const std::string& path = options_.directory;
  const auto refuse = [&](std::error_code why) {
    throw error(why, "cannot use the bus directory " + path + ": " + why.message() +
                         rule_of(why, path) + "; " + advice(why));
  };
  auto opened = path == no_directory ? rendezvous::nowhere(id_) : rendezvous::open(path, id_);
  if (!opened) refuse(opened.error());
  rendezvous_ = std::make_unique<rendezvous>(std::move(*opened));
  fd given = path == no_directory && !overseer_ ? given_books() : fd();
  auto ledger = given ? ledger_file::keep_in(std::move(given), id_)
                      : ledger_file::create(rendezvous_->directory(), id_);
  if (!ledger) {
    throw error(ledger.error(), "cannot create the node's ledger in " + path + ": " +
                                    ledger.error().message() + "; " + advice(ledger.error()));
  }
  ledger_ = std::move(*ledger);
  if (auto watched = rendezvous_->begin_watching(); !watched) refuse(watched.error());
  if (rendezvous_->waits_at_pipe()) {
    complain(
        "no inotify instance left, so others call by a pipe: raise "
        "fs.inotify.max_user_instances");
  }
}

void core::open_transports() {
  transport_setup setup;
  setup.id = id_;
  setup.doorbell = bell_.get();
  if (options_.directory != no_directory) setup.directory = options_.directory;
  setup.memory_bytes_max = options_.memory_bytes_max;
  setup.link_depth = options_.link_depth;
  setup.listen = options_.listen;
  setup.insecure = options_.insecure;
  std::error_code failed = errc::unsupported;
  for (const transport_maker& maker : options_.transports) {
    auto made = maker.make(setup);
    if (!made) {
      failed = made.error();
      complain("transport " + maker.scheme + " is not available: " + made.error().message());
      continue;
    }
    traits_.push_back((*made)->about());
    entrances_.push_back({.arrivals = &(*made)->arrivals(),
                          .asks_kernel = !(*made)->about().shares_memory,
                          .is_watched = false,
                          .has_called = false});
    refusals_.emplace_back();
    transports_.push_back(std::move(*made));
  }
  watch_inboxes();
  if (!transports_.empty()) return;
  throw error(failed, "node '" + options_.name + "' has no working transport: " + troubles_.back() +
                          (lacks_descriptors(failed) ? std::string("; ") + more_descriptors : ""));
}

void core::watch_inboxes() {
  for (std::size_t i = 0; i < entrances_.size(); ++i) {
    entrance& one = entrances_[i];
    const int handle = one.is_watched ? -1 : one.arrivals->wait_handle();
    if (handle < 0) continue;
    watch(handle, static_cast<std::uint32_t>(i));
    one.is_watched = true;
  }
}

void core::watch(int descriptor, std::uint32_t what) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u32 = what;
  if (::epoll_ctl(watch_.get(), EPOLL_CTL_ADD, descriptor, &event) != 0) {
    const std::error_code failed = last_system_error();
    throw error(failed, "cannot watch the node's descriptors: " + failed.message() +
                            "; raise fs.epoll.max_user_watches");
  }
}

void core::post_sentry() {
  if (!sentry_)
    sentry_ = must(sentry::post(watch_.get(), *bell_), "cannot start the sentry thread");
}

void core::adopt(asio::io_context& context) noexcept {
  options_.context = &context;
  sentry_.reset();
}

void core::pass() noexcept {
  if (in_pump_) return;
  try {
    if (sentry_ && sentry_->calls()) {
      attend();
      hear(true);
    } else if (restless_) {
      tend();
    }
    keep_books();
  } catch (...) {
    complain("out of memory while looking after the bus");
  }
}

// How many samples to take in passing: as many as a subscription that is alone has room for.
std::size_t core::room_to_hear() const noexcept {
  if (subscriptions_.size() != 1) return usual_budget;
  const subscription& only = *subscriptions_.begin()->second;
  if (only.has_callback() || only.when_full() != drop::newest) return usual_budget;
  return std::clamp<std::size_t>(only.room(), 1, usual_budget);
}

// Who only publishes never takes, and still has to hear of those who want it, over a network, and
// what those who block have room for.
void core::hear(bool called_only) {
  if (in_pump_) return;
  in_pump_ = true;
  for (entrance& one : entrances_) {
    if (called_only && !(one.has_called && one.asks_kernel)) continue;
    one.has_called = one.arrivals->poll(room_to_hear(), *reception_) != 0;
  }
  in_pump_ = false;
}

std::size_t core::pump(std::size_t budget) {
  if (in_pump_) return 0;
  in_pump_ = true;
  std::size_t came = 0;
  const bool rarely = is_time_for_the_rest();
  std::size_t at = first_entrance_;
  // An answer mostly comes the way that the last message came. While we spin for it, that one is
  // asked in each turn, since a call costs a twentieth of a sleep and its wakeup.
  const std::size_t likely = (at == 0 ? entrances_.size() : at) - 1;
  const bool is_spinning = idle_turns_ < turns_of_hope;
  for (std::size_t left = entrances_.size(); left > 0 && came < budget; --left) {
    entrance& one = entrances_[at];
    const bool is_likely = is_spinning && at == likely;
    at = at + 1 == entrances_.size() ? 0 : at + 1;
    // What does not share memory calls by its descriptor; between calls it is looked at rarely,
    // since asking the kernel or a network library costs more than asking shared memory.
    if (one.asks_kernel && !one.has_called && !rarely && !is_likely) continue;
    const std::size_t here = one.arrivals->poll(budget - came, *reception_);
    one.has_called = here != 0;
    if (here != 0) first_entrance_ = at;
    came += here;
  }
  in_pump_ = false;
  for (const auto& one : gateways_) came += one->turn(budget);
  idle_turns_ = came == 0 ? idle_turns_ + 1 : 0;
  bell_->came(came);
  tide_.turned(came);
  if (sentry_ && sentry_->calls()) {
    attend();
    ++came;
  } else if (restless_ && (rarely || came == 0)) {
    tend();
  }
  if (rarely) keep_books();
  if (!waits_.empty()) wake_waits();
  reception_->rethrow_trouble();
  return came;
}

void core::attend() {
  if (in_pump_) return;
  in_pump_ = true;
  bool gateways_called = false;
  std::array<epoll_event, 16> ready;
  const int count = ::epoll_wait(watch_.get(), ready.data(), static_cast<int>(ready.size()), 0);
  for (int i = 0; i < count; ++i) {
    const std::uint32_t what = ready[static_cast<std::size_t>(i)].data.u32;
    if (what == from_rendezvous) {
      on_cards(rendezvous_->changes());
      if (rendezvous_->policy_changed()) {
        for (const auto& one : transports_) one->reconsider();
      }
    } else if (what == from_timer) {
      std::uint64_t ticks = 0;
      static_cast<void>(!::read(timer_.get(), &ticks, sizeof ticks));
      timer_set_ns_ = INT64_MAX;
    } else if (what == from_gateway) {
      gateways_called = true;
    } else if (what != from_child) {
      entrances_[what].arrivals->attend(*reception_);
      // The next turns take what came, and no more than the subscriptions have room for.
      entrances_[what].has_called = true;
    }
  }
  in_pump_ = false;
  if (sentry_) sentry_->looked(count > 0);
  if (gateways_called) {
    for (const auto& one : gateways_) one->attend();
    for (const auto& one : gateways_) one->turn(usual_budget);
  }
  look_after_children();
  tend();
  keep_books();
}

void core::answer_bell(int descriptor) {
  const bool knew = bell_->signal_is_taken();
  bell_->drain(descriptor);
  if (knew || !bell_->signal_is_taken()) return;
  complain_of_signal();
  tend();
}

void core::complain_of_signal() {
  complain("the application uses signal " + std::to_string(bell_signal()) +
           " (SIGRTMIN+7) itself, so event loops are woken by eventfd: use another one there");
}

bool core::arm_inboxes() {
  if (restless_) {
    for (auto& [peer, link] : links_) {
      if (link->restless() && !link->arm()) return false;
    }
    for (const auto& one : calls_) {
      if (one.link->restless() && !one.link->arm()) return false;
    }
  }
  const bool quiet = std::all_of(entrances_.begin(), entrances_.end(), [](entrance& one) {
    const bool nothing = one.arrivals->arm();
    one.has_called = one.has_called || !nothing;
    return nothing;
  });
  return quiet && std::all_of(gateways_.begin(), gateways_.end(),
                              [](const auto& one) { return one->arm(); });
}

void core::disarm() noexcept {
  for (const entrance& one : entrances_) one.arrivals->disarm();
  for (const auto& one : gateways_) one->disarm();
}

void core::sleep(deadline until) {
  tide_.slept();
  post_sentry();
  sentry_->back_to_post();
  keep_books();
  bell_->arm_semaphore();
  if (arm_inboxes() && !sentry_->calls()) {
    static_cast<void>(bell_->wait(until));
  } else {
    bell_->disarm();
  }
  disarm();
  if (restless_) tend();
}

bool core::arm_for_descriptors() {
  keep_books();
  bell_->arm_descriptors();
  if (arm_inboxes()) return true;
  bell_->disarm();
  disarm();
  if (restless_) tend();
  return false;
}

void core::keep_books() {
  const std::int64_t now = steady_ns();
  for (auto& [peer, link] : links_) link->keep_books(now);
  count_refusals();
}

void core::count_refusals() {
  for (std::size_t i = 0; i < transports_.size(); ++i) {
    const auto tallies = transports_[i]->arrivals().refused();
    auto& rows = refusals_[i];
    for (std::size_t which = 0; which < tallies.size(); ++which) {
      if (which == rows.size()) {
        rows.push_back(&ledger_->take(row_kind::refusals, static_cast<std::uint32_t>(i + 1),
                                      node_id{tallies[which].user},
                                      scheme_word(traits_[i].scheme)));
      }
      for (std::size_t cause = 0; cause < refusal_count; ++cause) {
        rows[which]->set(column::refused_for + cause, tallies[which].counts[cause]);
      }
    }
  }
}

void core::set_timer() {
  std::int64_t next = INT64_MAX;
  for (const auto& [peer, link] : links_) next = std::min(next, link->wake_at_ns());
  for (const auto& one : calls_) next = std::min(next, one.link->wake_at_ns());
  for (const auto& [peer, one] : suspects_) next = std::min(next, one.look_at_ns);
  for (const auto& one : children_) next = std::min(next, one->due_ns());
  if (!leaving_) {
    next = std::min({next, mend_at_ns_, card_file_.due_ns(), topics_pace_.due_ns(),
                     links_file_.due_ns(), introductions_.due_ns()});
    if (look_is_owed_) next = std::min(next, look_at_ns_);
  }
  // Asked after every turn, and nearly always the same: the kernel is told of changes only.
  if (next == timer_set_ns_) return;
  timer_set_ns_ = next;
  itimerspec when{};
  if (next != INT64_MAX) {
    // Zero would switch the timer off; a time that has passed fires at once.
    next = std::max<std::int64_t>(next, 1);
    when.it_value = {next / 1'000'000'000, next % 1'000'000'000};
  }
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
}

void core::complain(std::string trouble) {
  constexpr std::size_t troubles_max = 32;
  const bool known = std::find(troubles_.begin(), troubles_.end(), trouble) != troubles_.end();
  if (known || troubles_.size() >= troubles_max) return;
  troubles_.push_back(std::move(trouble));
  links_file_.dirty = true;
}

}  // namespace bus
