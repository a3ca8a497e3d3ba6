// The demo as a whole: starts the processes, kills some as asked, starts again who died, shows what
// happens, stops them, and settles the accounts.
//
//   playing --(all is accounted for, or patience is over, or Ctrl-C)--> stopping: the replays, then
//   the detector, then archive and observer --(the last one has ended)--> settled
#pragma once

#include "bus/bus.hpp"
#include "examples/quakes/board.hpp"
#include "examples/quakes/crew.hpp"
#include "examples/quakes/far_place.hpp"
#include "examples/quakes/feed.hpp"

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>

namespace demo {

struct wishes {
  std::string data;
  double speed = 30'000;
  // NAME[@SHARE]: whom to kill, and after which share of the features was published. "each" is one
  // of each kind, "none" is nobody.
  std::vector<std::string> kills;
  double patience_s = 60;  // without any progress
  bool try_namespace = true;
  bool live = true;  // a table that is drawn over itself; else lines
};

class orchestra {
 public:
  // Throws std::runtime_error or bus::error: no feed, no directory, a name that nobody has.
  explicit orchestra(wishes wanted);
  ~orchestra();
  // 0 if every feature is accounted for at every subscriber.
  int run();

 private:
  struct kill_order {
    std::string name;
    double share;
  };
  void plan(const std::string& kill);
  void plan(const std::string& name, double share);
  void start_all();
  [[nodiscard]] task task_of(const std::string& as, const std::string& network = "") const;
  void hear(const Status& status);
  void tick();
  void draw();
  void say(const std::string& event);
  void kill_who_is_due();
  [[nodiscard]] bool is_calm() const;
  [[nodiscard]] bool is_linked() const;
  [[nodiscard]] bool is_complete() const;
  void ended(const std::string& name, int status);
  void restart(const task& what);
  void begin_to_stop(const std::string& why);
  void stop_next();
  int settle_all();

  wishes wanted_;
  feed input_;
  std::string root_;
  far_place far_;
  asio::io_context context_{1};
  bus::node node_;
  bus::listener statuses_;
  link_report link_report_;
  asio::signal_set interrupts_;
  asio::steady_timer ticker_;
  crew crew_;
  reports heard_;
  std::vector<link_line> links_;
  std::vector<kill_order> orders_;
  std::set<std::string> dying_;  // killed by us, and not yet reaped
  lines events_;
  std::int64_t begun_ns_;
  std::int64_t moved_ns_;
  std::uint64_t moved_to_ = 0;
  std::int64_t stop_until_ns_ = 0;
  std::int64_t drawn_ns_ = 0;
  std::int64_t start_ns_ = 0;
  bool stopping_ = false;
  bool failed_ = false;
};

}  // namespace demo
