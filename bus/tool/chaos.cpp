#include "bus/tool/chaos.hpp"

#include "bus/base/clock.hpp"
#include "bus/node/rendezvous.hpp"
#include "bus/tool/chaos_cast.hpp"
#include "bus/tool/chaos_party.hpp"
#include "bus/tool/chaos_record.hpp"
#include "bus/tool/chaos_verdict.hpp"
#include "bus/tool/figures.hpp"
#include "bus/tool/leftovers.hpp"
#include "bus/topic/pattern.hpp"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace bus::tool {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

constexpr std::int64_t sample_every_ns = 100'000'000;
// What takes longer than this on a crowded machine counts as never.
constexpr auto patience = 20s;
// The share of the calm throughput at which it has returned: rates of crowded machines vary by two.
constexpr double returned_share = 0.5;
// No more of it is printed.
constexpr std::size_t findings_max = 20;

std::size_t descriptors_open() {
  const fs::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

class director {
 public:
  explicit director(const chaos_options& options)
      : options_(options), plan_(plan_chaos(options)), cast_(options, plan_.lives) {}

  void play() {
    perform();
    flow_again();
    come_to_rest();
    go_home();
    tidy_up();
  }
  void add(finding one) { findings_.push_back(std::move(one)); }
  int report();

 private:
  void perform();
  void flow_again();
  void come_to_rest();
  void go_home();
  void tidy_up();
  void rest_until(std::int64_t at_ns);
  void sample(std::int64_t now_ns);
  [[nodiscard]] bool all_hear_all() const;
  void print_findings() const;
  [[nodiscard]] json as_json() const;
  [[nodiscard]] std::string again() const;

  const chaos_options& options_;
  chaos_plan plan_;
  chaos_cast cast_;
  std::vector<finding> findings_;
  std::int64_t began_ns_ = 0;
  std::int64_t sampled_ns_ = 0;
  std::uint64_t sampled_taken_ = 0;
  double rate_ = 0;  // messages taken per second, in the last sample
  std::vector<double> calm_rates_;
  double rate_after_ = 0;
  std::int64_t returned_ns_ = -1;  // after the last fault; -1: it has not
};

void director::sample(std::int64_t now_ns) {
  if (now_ns - sampled_ns_ < sample_every_ns) return;
  const std::uint64_t taken = cast_.taken();
  rate_ =
      static_cast<double>(taken - sampled_taken_) * 1e9 / static_cast<double>(now_ns - sampled_ns_);
  sampled_ns_ = now_ns;
  sampled_taken_ = taken;
  // The first quarter goes to coming up.
  const std::int64_t since_ns = now_ns - began_ns_;
  if (since_ns > plan_.calm_ns / 4 && since_ns < plan_.calm_ns) calm_rates_.push_back(rate_);
}

// Watches over the parties until then.
void director::rest_until(std::int64_t at_ns) {
  for (std::int64_t now = steady_ns();; now = steady_ns()) {
    sample(now);
    cast_.watch(std::min(at_ns, sampled_ns_ + sample_every_ns), findings_);
    if (steady_ns() >= at_ns) return;
  }
}

void director::perform() {
  began_ns_ = sampled_ns_ = steady_ns();
  for (const deed& one : plan_.deeds) {
    rest_until(began_ns_ + one.at_ns);
    if (!findings_.empty()) return;
    cast_.perform(one, findings_);
  }
}

bool director::all_hear_all() const {
  bool all = true;
  cast_.for_each_pair([&](const source_record& source) { all = all && seen(source.taken) > 0; });
  return all;
}

void director::flow_again() {
  const std::int64_t from_ns = steady_ns();
  const deadline until = deadline::after(patience);
  const double wanted = returned_share * median(calm_rates_);
  while (findings_.empty()) {
    rest_until(sampled_ns_ + sample_every_ns);
    rate_after_ = std::max(rate_after_, rate_);
    if (rate_ >= wanted && all_hear_all()) {
      returned_ns_ = steady_ns() - from_ns;
      return;
    }
    if (!until.passed()) continue;
    add({fmt::format("{} s after the last fault {:.0f} messages/s were taken, and {:.0f} before "
                     "the first; every subscriber hears every publisher: {}",
                     patience.count(), rate_after_, median(calm_rates_), all_hear_all()),
         0, from_ns});
  }
}

void director::come_to_rest() {
  cast_.say(chaos_phase::rest);
  const deadline until = deadline::after(patience);
  while (findings_.empty()) {
    rest_until(steady_ns() + 20'000'000);
    std::vector<finding> open = cast_.judge_at_rest();
    if (open.empty()) return;
    if (until.passed()) std::move(open.begin(), open.end(), std::back_inserter(findings_));
  }
}

void director::go_home() {
  // Where something is broken, nobody is waited for.
  if (findings_.empty()) cast_.say(chaos_phase::end);
  cast_.go_home(findings_);
}

void director::tidy_up() {
  const std::string path = bus_path(cast_.folder());
  const auto place = rendezvous::visit(path);
  if (!place) return add({"the bus directory is gone: " + place.error().message()});
  for (const leftover& one : find_leftovers(*place)) {
    if (const auto done = remove_leftover(*place, one); !done) {
      add({"bus gc cannot remove " + one.path + ": " + done.error().message()});
    }
  }
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    const std::string name = fs::relative(entry.path(), path);
    // The folders of schemas and of pipes belong to the directory, and are empty.
    if (entry.is_directory() && (name == "schemas" || name == "waiting")) continue;
    add({"after bus gc there is still " + name});
  }
}

std::string director::again() const {
  return fmt::format(
      "bus chaos --seconds {} --seed {} --transport {} --publishers {} "
      "--subscribers {}",
      options_.seconds, options_.seed, options_.transport, options_.publishers,
      options_.subscribers);
}

json director::as_json() const {
  const chaos_deeds& did = cast_.did();
  const chaos_books books = cast_.books();
  json line = {{"seed", options_.seed},
               {"seconds", options_.seconds},
               {"transport", options_.transport},
               {"publishers", options_.publishers},
               {"subscribers", options_.subscribers},
               {"started", did.started},
               {"killed", did.killed},
               {"stopped", did.stopped},
               {"left", did.left},
               {"published", books.published},
               {"expected", books.expected},
               {"delivered", books.delivered},
               {"taken", books.taken},
               {"queued", books.queued}};
  for (std::size_t cause = 0; cause < loss_count; ++cause) {
    line["lost"][std::string(name_of(static_cast<loss>(cause)))] = books.lost[cause];
  }
  line["per_second_before"] = median(calm_rates_);
  line["per_second_after"] = rate_after_;
  line["returned_s"] = returned_ns_ < 0 ? json() : json(static_cast<double>(returned_ns_) / 1e9);
  line["balanced"] = findings_.empty();
  line["broken"] = json::array();
  for (const finding& one : findings_) line["broken"].push_back(one.words);
  return line;
}

void director::print_findings() const {
  for (std::size_t i = 0; i < std::min(findings_.size(), findings_max); ++i) {
    const finding& one = findings_[i];
    fmt::print("broken: {}\n", one.words);
    for (const std::string& line : cast_.history(one, began_ns_)) fmt::print("    {}\n", line);
  }
  if (findings_.size() > findings_max) {
    fmt::print("broken: {} more\n", findings_.size() - findings_max);
  }
}

int director::report() {
  if (options_.json) {
    fmt::print("{}\n", as_json().dump(-1, ' ', false, json::error_handler_t::replace));
    return findings_.empty() ? 0 : 1;
  }
  const chaos_deeds& did = cast_.did();
  const chaos_books books = cast_.books();
  fmt::print("seed {}, {} s over {}, {} publishers, {} subscribers\n", options_.seed,
             options_.seconds, options_.transport, options_.publishers, options_.subscribers);
  fmt::print("faults: {} killed, {} stopped, {} asked to leave; {} started in all\n", did.killed,
             did.stopped, did.left, did.started);
  fmt::print("messages: {} published; {} expected = {} delivered + {} queued", books.published,
             books.expected, books.delivered, books.queued);
  for (std::size_t cause = 0; cause < loss_count; ++cause) {
    if (books.lost[cause] == 0) continue;
    fmt::print(" + {} {}", books.lost[cause], name_of(static_cast<loss>(cause)));
  }
  fmt::print("\nthroughput: {:.0f} messages/s before the faults, {:.0f} after", median(calm_rates_),
             rate_after_);
  if (returned_ns_ >= 0) {
    fmt::print(", back within {:.1f} s", static_cast<double>(returned_ns_) / 1e9);
  }
  fmt::print("\n");
  print_findings();
  fmt::print("{}\n", findings_.empty() ? "balanced; nothing is left over"
                                       : "not balanced; again: " + again());
  return findings_.empty() ? 0 : 1;
}

}  // namespace

int run_chaos(const chaos_options& options) {
  if (chaos_transports(options.transport).empty()) {
    fmt::print(stderr,
               "bus chaos: nobody can be killed over '{}': use shm or zmq, which join processes\n",
               options.transport);
    return 2;
  }
  const std::size_t before = descriptors_open();
  director one(options);
  one.play();
  // The folder, the stage and the line to the parties are still open.
  if (const std::size_t after = descriptors_open(); after > before + chaos_cast::descriptors) {
    one.add({fmt::format("{} descriptors are open that were not", after - before)});
  }
  return one.report();
}

}  // namespace bus::tool
