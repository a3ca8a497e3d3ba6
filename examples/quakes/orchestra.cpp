#include "examples/quakes/orchestra.hpp"

#include "bus/base/clock.hpp"
#include "examples/quakes/desk.hpp"
#include "transports/standard.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <stdexcept>

#include <sys/ioctl.h>
#include <unistd.h>

#include <fmt/format.h>

namespace demo {
namespace {

constexpr auto between_ticks = std::chrono::milliseconds(100);
constexpr auto before_restart = std::chrono::milliseconds(300);
// The replays need so long to be there; who is late catches up.
constexpr std::int64_t before_start_ns = 2'000'000'000;
constexpr std::int64_t to_stop_ns = 20'000'000'000;
// A process that keeps dying is a bug, not an accident.
constexpr unsigned lives_max = 6;

const char* const listeners[] = {"archive", "detector", "observer"};

std::string make_root() {
  std::string path = std::filesystem::temp_directory_path() / "omnibus-demo-XXXXXX";
  if (!::mkdtemp(path.data())) throw std::runtime_error("cannot make " + path);
  return path;
}

bus::node_options options_of(const std::string& root, const far_place& far,
                             asio::io_context& context) {
  bus::node_options options{.name = "orchestra", .transports = transports::standard()};
  options.directory = root + "/bus";
  options.listen = {far.near_listen};
  options.peers = {far.far_listen};
  options.insecure = true;
  options.context = &context;
  return options;
}

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

double seconds_since(std::int64_t then_ns) {
  return static_cast<double>(bus::steady_ns() - then_ns) / 1e9;
}

}  // namespace

orchestra::orchestra(wishes wanted)
    : wanted_(std::move(wanted)),
      input_(read_feed_file(wanted_.data)),
      root_(make_root()),
      far_(make_far_place(wanted_.try_namespace)),
      node_(options_of(root_, far_, context_)),
      statuses_(
          node_.subscribe<Status>("demo/status/*", [this](const auto& status) { hear(*status); })),
      link_report_({root_ + "/bus", root_ + "/far"}),
      interrupts_(context_, SIGINT, SIGTERM),
      ticker_(context_),
      crew_(context_, [this](const std::string& name, int status) { ended(name, status); }),
      begun_ns_(bus::steady_ns()),
      moved_ns_(begun_ns_) {
  for (const std::string& kill : wanted_.kills) plan(kill);
  std::stable_sort(
      orders_.begin(), orders_.end(),
      [](const kill_order& one, const kill_order& other) { return one.share < other.share; });
}

orchestra::~orchestra() {
  std::error_code ignored;
  std::filesystem::remove_all(root_, ignored);
}

void orchestra::plan(const std::string& kill) {
  if (kill == "none") return;
  const auto at = kill.find('@');
  const std::string name = kill.substr(0, at);
  char* end = nullptr;
  const double share = at == std::string::npos ? 0.5 : std::strtod(kill.c_str() + at + 1, &end);
  if (end && (*end != '\0' || share < 0 || share > 1)) {
    throw std::runtime_error("--kill " + kill + ": what follows @ is a share from 0 to 1");
  }
  if (name == "each") {
    plan("ci", 0.2);
    plan("detector", 0.4);
    plan("archive", 0.6);
    plan("observer", 0.8);
    return;
  }
  plan(name, share);
}

void orchestra::plan(const std::string& name, double share) {
  std::set<std::string> all(std::begin(listeners), std::end(listeners));
  for (const std::string& network : input_.networks()) all.insert("replay-" + network);
  if (name == "random") {
    std::random_device dice;
    orders_.push_back({*std::next(all.begin(), dice() % static_cast<unsigned>(all.size())), share});
    return;
  }
  const std::string whole = all.contains(name) ? name : "replay-" + name;
  if (!all.contains(whole)) {
    std::string known;
    for (const std::string& one : all) known += " " + one;
    throw std::runtime_error("--kill " + name + ": nobody is called so; there are" + known);
  }
  orders_.push_back({whole, share});
}

task orchestra::task_of(const std::string& as, const std::string& network) const {
  const bool is_far = as == "observer";
  return {.as = as,
          .network = network,
          .root = root_,
          .data = wanted_.data,
          .listen = is_far ? far_.far_listen : far_.near_listen,
          .peer = is_far ? "" : far_.far_listen,
          .start_ns = start_ns_,
          .speed = wanted_.speed,
          .network_namespace = is_far ? far_.network.get() : -1};
}

void orchestra::start_all() {
  start_ns_ = bus::steady_ns() + before_start_ns;
  for (const char* const one : listeners) crew_.start(task_of(one));
  for (const std::string& network : input_.networks()) crew_.start(task_of("replay", network));
  say(fmt::format("{} processes were started; the observer lives {}", crew_.tasks().size(),
                  far_.words));
}

int orchestra::run() {
  for (const std::string& line : show_feed(input_)) std::puts(line.c_str());
  interrupts_.async_wait([this](std::error_code cancelled, int) {
    if (!cancelled) begin_to_stop("interrupted");
  });
  start_all();
  tick();
  context_.run();
  return settle_all();
}

void orchestra::hear(const Status& status) {
  auto& lives = heard_[status.name()];
  const bool is_back = status.incarnation() > 1 && !lives.contains(status.incarnation());
  lives[status.incarnation()] = status;
  if (!is_back) return;
  const std::string place =
      status.features() > 0
          ? fmt::format("goes on at {} of {}", status.position(), status.features())
          : fmt::format("its journal held {} reports", distinct(status.quakes()));
  say(fmt::format("{} is back, life {}, pid {}: {}", status.name(), status.incarnation(),
                  status.pid(), place));
}

void orchestra::tick() {
  ticker_.expires_after(between_ticks);
  ticker_.async_wait([this](std::error_code cancelled) {
    if (!cancelled) tick();
  });
  std::uint64_t reached = published(heard_);
  for (const char* const one : listeners) reached += distinct(latest(heard_, one).quakes());
  if (reached != std::exchange(moved_to_, reached)) moved_ns_ = bus::steady_ns();
  if (stopping_) {
    if (bus::steady_ns() < stop_until_ns_) return;
    for (const auto& [name, what] : crew_.tasks()) {
      if (!crew_.runs(name)) continue;
      say(name + " did not stop when asked to");
      failed_ = true;
      crew_.signal(name, SIGKILL);
    }
    return;
  }
  links_ = link_report_.read();
  kill_who_is_due();
  if (is_complete()) begin_to_stop("");
  if (seconds_since(moved_ns_) > wanted_.patience_s) {
    begin_to_stop(fmt::format("nothing has moved for {} s", wanted_.patience_s));
  }
  draw();
}

void orchestra::draw() {
  const double every_s = wanted_.live ? 0.25 : 1.0;
  if (seconds_since(drawn_ns_) < every_s) return;
  drawn_ns_ = bus::steady_ns();
  const std::string progress =
      show_progress(heard_, input_.quakes.size(), seconds_since(begun_ns_));
  if (!wanted_.live) {
    std::puts(progress.c_str());
    std::fflush(stdout);
    return;
  }
  lines all{progress, ""};
  const auto add = [&](const lines& more) { all.insert(all.end(), more.begin(), more.end()); };
  add(show_replays(heard_));
  add({""});
  add(show_links_briefly(links_));
  add({""});
  constexpr std::size_t events_shown = 8;
  const std::size_t skipped = events_.size() - std::min(events_.size(), events_shown);
  add(lines(events_.begin() + static_cast<std::ptrdiff_t>(skipped), events_.end()));
  add({""});
  add(show_topics(heard_, links_));
  winsize size{};
  const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0;
  const std::size_t rows = known ? size.ws_row - 1U : 50;
  const std::size_t columns = known ? size.ws_col : 120;
  std::string screen = "\033[H";
  for (std::size_t i = 0; i < std::min(all.size(), rows); ++i) {
    screen += all[i].substr(0, columns) + "\033[K\n";
  }
  screen += "\033[J";
  std::fputs(screen.c_str(), stdout);
  std::fflush(stdout);
}

void orchestra::say(const std::string& event) {
  events_.push_back(fmt::format("{:6.1f} s  {}", seconds_since(begun_ns_), event));
  if (wanted_.live) return;
  std::puts(events_.back().c_str());
  std::fflush(stdout);
}

// Whether everybody is up and has been heard of.
bool orchestra::is_calm() const {
  const auto is_up = [&](const auto& one) {
    return crew_.runs(one.first) &&
           latest(heard_, one.first).incarnation() == one.second.incarnation;
  };
  return dying_.empty() && std::all_of(crew_.tasks().begin(), crew_.tasks().end(), is_up);
}

// Whether every replay has its way to every subscriber, also to those who came back.
bool orchestra::is_linked() const {
  return std::all_of(std::begin(listeners), std::end(listeners), [&](const char* to) {
    std::size_t open = 0;
    for (const link_line& line : links_) {
      if (line.from == "replay" && line.to == to && !line.scheme.empty()) open += line.count;
    }
    return open >= input_.networks().size();
  });
}

void orchestra::kill_who_is_due() {
  if (orders_.empty() || !is_calm()) return;
  const kill_order next = orders_.front();
  const auto total = static_cast<double>(input_.quakes.size());
  if (static_cast<double>(published(heard_)) < next.share * total) return;
  orders_.erase(orders_.begin());
  say(fmt::format("{} (pid {}) is killed with SIGKILL, as planned", next.name,
                  crew_.pid(next.name)));
  dying_.insert(next.name);
  crew_.signal(next.name, SIGKILL);
}

bool orchestra::is_complete() const {
  if (!orders_.empty() || !is_calm() || !is_linked()) return false;
  const std::size_t features = input_.quakes.size();
  const std::uint64_t different = features - input_.found.repeats;
  if (published(heard_) < features) return false;
  for (const char* const one : listeners) {
    if (distinct(latest(heard_, one).quakes()) < different) return false;
  }
  const std::uint64_t alerts = latest(heard_, "detector").alerts_raised();
  return distinct(latest(heard_, "archive").alerts()) >= alerts &&
         distinct(latest(heard_, "observer").alerts()) >= alerts;
}

void orchestra::ended(const std::string& name, int status) {
  dying_.erase(name);
  if (stopping_) {
    // One that was only just starting knows SIGTERM by its usual meaning yet.
    if (status != 0 && status != -SIGTERM) {
      say(fmt::format("{} ended badly when stopped ({})", name, status));
      failed_ = true;
    }
    stop_next();
    return;
  }
  say(status < 0 ? fmt::format("{} was killed by signal {}; it is started again", name, -status)
                 : fmt::format("{} ended by itself ({}); it is started again", name, status));
  if (crew_.incarnation(name) >= lives_max) {
    failed_ = true;
    begin_to_stop(name + " keeps dying");
    return;
  }
  const task what = crew_.tasks().at(name);
  auto pause = std::make_shared<asio::steady_timer>(context_, before_restart);
  pause->async_wait([this, pause, what](std::error_code cancelled) {
    if (!cancelled && !stopping_) restart(what);
  });
}

void orchestra::restart(const task& what) { crew_.start(what); }

void orchestra::begin_to_stop(const std::string& why) {
  if (stopping_) return;
  stopping_ = true;
  stop_until_ns_ = bus::steady_ns() + to_stop_ns;
  if (!why.empty()) {
    failed_ = true;
    say(why + ": it ends before all is accounted for");
  } else {
    say("everything is accounted for; the processes are stopped");
  }
  stop_next();
}

// Publishers first, so that what subscribers say at last is final.
void orchestra::stop_next() {
  for (const char* const stage : {"replay", "detector", ""}) {
    if (crew_.running(stage) == 0) continue;
    for (const auto& [name, what] : crew_.tasks()) {
      if (name.starts_with(stage)) crew_.signal(name, SIGTERM);
    }
    return;
  }
  context_.stop();
}

int orchestra::settle_all() {
  for (const auto& [name, what] : crew_.tasks()) {
    Status last;
    if (last.ParseFromString(read_all(what.last_words())) && last.name() == name) {
      heard_[name][last.incarnation()] = last;
    }
  }
  const std::set<std::string> alerts = alerts_of(journal::read(task_of("detector").journal()));
  std::vector<account> accounts;
  for (const char* const one : listeners) {
    const bool hears_alerts = std::string(one) != "detector";
    accounts.push_back(settle(one, journal::read(task_of(one).journal()), input_,
                              hears_alerts ? &alerts : nullptr));
  }
  const auto print = [](const std::string& title, const lines& all) {
    std::printf("\n%s\n", title.c_str());
    for (const std::string& line : all) std::printf("  %s\n", line.c_str());
  };
  if (wanted_.live) std::fputs("\033[H\033[J", stdout);
  print("Topics, with the latency of each message from publish to callback",
        show_topics(heard_, links_));
  print("Links, and why each is what it is", show_links(links_));
  if (wanted_.live) print("What happened", events_);
  print("Reconciliation: every feature of the feed, looked for in each subscriber's journal",
        show_accounts(accounts, heard_, input_, alerts.size()));
  const bool settled = std::all_of(accounts.begin(), accounts.end(), [&](const account& one) {
    return one.is_settled() && latest(heard_, one.name).balanced();
  });
  if (settled && !failed_) {
    std::printf("\nAll %s features are accounted for at each of %zu subscribers.\n",
                with_commas(input_.quakes.size()).c_str(), accounts.size());
    return 0;
  }
  std::printf("\nNOT RECONCILED: see above.\n");
  return 1;
}

}  // namespace demo
