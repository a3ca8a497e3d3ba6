// The demo's processes: each is one node on one event loop, until SIGTERM. What they do:
//
//   replay NETWORK   quakes/NETWORK/MAGTYPE, in the order of events, as fast as --speed says
//   detector         hears quakes/**, tells alerts/LEVEL
//   archive          hears both and keeps them
//   observer         the same, somewhere else, over the network
#include "bus/bus.hpp"
#include "examples/quakes/desk.hpp"
#include "examples/quakes/feed.hpp"
#include "examples/quakes/task.hpp"
#include "examples/quakes/teller.hpp"
#include "examples/quakes/watch.hpp"
#include "transports/standard.hpp"

#include <charconv>
#include <csignal>
#include <fstream>
#include <iostream>
#include <stdexcept>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/post.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

namespace demo {
namespace {

constexpr auto between_reports = std::chrono::milliseconds(200);
// A replay begins when the three subscribers are there, or after this time without them.
constexpr auto patience = std::chrono::seconds(10);
constexpr std::size_t subscribers = 3;

bus::node_options options_of(const task& what, asio::io_context& context) {
  bus::node_options options{.name = what.name(), .transports = transports::standard()};
  options.directory = what.directory();
  options.listen = {what.listen};
  if (!what.peer.empty()) options.peers = {what.peer};
  options.insecure = true;  // the wire has no keys; the orchestra says so on the screen
  options.context = &context;
  return options;
}

// The node, its loop, and its reports to the orchestra.
class process {
 public:
  explicit process(const task& what)
      : what_(what),
        node_(options_of(what, context_)),
        reports_(node_.advertise<Status>("demo/status/" + what.name())),
        timer_(context_),
        end_(context_, SIGTERM) {
    end_.async_wait([this](std::error_code, int) { context_.stop(); });
  }

  [[nodiscard]] bus::node& node() noexcept { return node_; }
  [[nodiscard]] asio::io_context& context() noexcept { return context_; }

  // Runs until SIGTERM; `describe` fills in what is particular to the role.
  void run(const std::function<void(Status&)>& describe) {
    describe_ = describe;
    report();
    context_.run();
    std::ofstream(what_.last_words(), std::ios::binary) << words().SerializeAsString();
  }
  // The next report is due now.
  void report() {
    // A lost one is followed by the next.
    static_cast<void>(reports_.publish(words()));
    timer_.expires_after(between_reports);
    timer_.async_wait([this](std::error_code cancelled) {
      if (!cancelled) report();
    });
  }

 private:
  [[nodiscard]] Status words() const {
    Status status;
    status.set_name(what_.name());
    status.set_incarnation(what_.incarnation);
    status.set_pid(static_cast<std::uint32_t>(::getpid()));
    describe_(status);
    return status;
  }

  const task& what_;
  asio::io_context context_{1};
  bus::node node_;
  bus::publisher<Status> reports_;
  asio::steady_timer timer_;
  asio::signal_set end_;
  std::function<void(Status&)> describe_;
};

// How many features were published, by us or by an earlier incarnation. Written after each publish:
// a death between the two tells one quake twice, and none never.
class bookmark {
 public:
  explicit bookmark(const std::string& path)
      : file_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    if (!file_) throw std::runtime_error("cannot open " + path);
    char text[20] = {};
    const ssize_t length = ::pread(file_.get(), text, sizeof text, 0);
    if (length > 0) std::from_chars(text, text + length, position_);
  }
  [[nodiscard]] std::size_t position() const noexcept { return position_; }
  void advance() {
    const std::string text = std::to_string(++position_);
    if (::pwrite(file_.get(), text.data(), text.size(), 0) < 0) {
      throw std::runtime_error("cannot keep the position: is the disk full?");
    }
  }

 private:
  bus::fd file_;
  std::size_t position_ = 0;
};

struct replay {
  const task& what;
  process& around;
  teller<Quake>& told;
  bookmark& place;
  std::vector<const Quake*> quakes;
  std::int64_t first_ms;
  bool finished = false;

  asio::awaitable<void> run() {
    asio::steady_timer timer(around.context());
    const auto until = bus::deadline::after(patience);
    while (told.matched() < subscribers && !until.passed()) {
      timer.expires_after(std::chrono::milliseconds(5));
      co_await timer.async_wait(asio::use_awaitable);
    }
    while (place.position() < quakes.size()) {
      const Quake& next = *quakes[place.position()];
      if (what.speed > 0) {
        const auto feed_ns = static_cast<double>(next.time_ms() - first_ms) * 1e6;
        const auto due_ns = what.start_ns + static_cast<std::int64_t>(feed_ns / what.speed);
        timer.expires_at(std::chrono::steady_clock::time_point(std::chrono::nanoseconds(due_ns)));
        co_await timer.async_wait(asio::use_awaitable);
      } else {
        co_await asio::post(around.context(), asio::use_awaitable);
      }
      told.tell(next);
      place.advance();
    }
    finished = true;
    told.call_roll();
    around.report();
  }
};

void perform_replay(const task& what) {
  const feed input = read_feed_file(what.data);
  process around(what);
  teller<Quake> told(around.node(), around.context(), what.network);
  bookmark place(what.position());
  replay job{.what = what,
             .around = around,
             .told = told,
             .place = place,
             .quakes = input.in_event_order(what.network),
             .first_ms = INT64_MAX};
  for (const Quake& quake : input.quakes) job.first_ms = std::min(job.first_ms, quake.time_ms());
  for (const Quake* const quake : job.quakes) told.open(topic_of(*quake));
  for (std::size_t i = 0; i < place.position(); ++i) told.remember(*job.quakes.at(i));
  asio::co_spawn(around.context(), job.run(), [&](const std::exception_ptr& failure) {
    if (failure) std::rethrow_exception(failure);
  });
  around.run([&](Status& status) {
    status.set_position(place.position());
    status.set_features(job.quakes.size());
    status.set_finished(job.finished);
    status.set_retold(told.retold());
    status.set_refused(told.refused());
  });
}

void perform_detector(const task& what) {
  process around(what);
  teller<Alert> alerts(around.node(), around.context(), "alerts");
  for (const char* const level : {"alerts/notice", "alerts/warning", "alerts/danger"}) {
    alerts.open(level);
  }
  watch watching;
  bool is_recalling = true;
  desk reception(around.node(), {.name = what.name(),
                                 .journal = what.journal(),
                                 .hears_alerts = false,
                                 .on_quake = [&](const Quake& quake) {
                                   for (const Alert& alert : watching.see(quake)) {
                                     // Whether the earlier incarnation came to tell it or not:
                                     // the roll brings it to whoever misses it.
                                     if (is_recalling) alerts.remember(alert);
                                     if (!is_recalling) alerts.tell(alert);
                                   }
                                 }});
  is_recalling = false;
  alerts.call_roll();
  around.run([&](Status& status) {
    reception.describe(status);
    status.set_clusters(watching.clusters().size());
    status.set_alerts_raised(alerts.told());
    status.set_retold(alerts.retold());
  });
}

void perform_desk(const task& what) {
  process around(what);
  desk reception(around.node(), {.name = what.name(), .journal = what.journal()});
  around.run([&](Status& status) { reception.describe(status); });
}

}  // namespace

int perform(const task& what) {
  // The orchestra stops us; the terminal's Ctrl-C is its business.
  std::signal(SIGINT, SIG_IGN);
  // We end with the orchestra: by the kernel's signal, and if that came too early for us, by the
  // pipe that is our standard input.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  pollfd orchestra{.fd = STDIN_FILENO, .events = 0, .revents = 0};
  if (::poll(&orchestra, 1, 0) != 0) return 1;
  try {
    if (what.network_namespace >= 0 && ::setns(what.network_namespace, CLONE_NEWNET) != 0) {
      throw std::runtime_error("cannot enter the network namespace");
    }
    if (what.as == "replay") {
      perform_replay(what);
    } else if (what.as == "detector") {
      perform_detector(what);
    } else {
      perform_desk(what);
    }
    return 0;
  } catch (const std::exception& failure) {
    std::cerr << what.name() << ": " << failure.what() << '\n';
    return 1;
  }
}

}  // namespace demo
