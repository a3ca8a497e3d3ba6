#include "bus/tool/run.hpp"

#include "bus/base/child_process.hpp"
#include "bus/base/error_code.hpp"
#include "bus/tool/intake.hpp"
#include "bus/tool/onlooker.hpp"
#include "bus/tool/outlet.hpp"
#include "bus/tool/pump.hpp"
#include "bus/tool/signal_watch.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include <sys/epoll.h>
#include <unistd.h>

#include <asio/experimental/awaitable_operators.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <fmt/format.h>

namespace bus::tool {
namespace {

using namespace std::chrono_literals;
using namespace asio::experimental::awaitable_operators;

// How long whoever the program left behind may go on writing into its output.
constexpr std::chrono::nanoseconds patience_for_heirs = 1s;
// Between an end and the next start, as for a child of a node: doubled each time, and forgotten
// when it ran well for a while.
constexpr std::chrono::nanoseconds first_pause{supervised::pause_first_ns};
constexpr std::chrono::nanoseconds longest_pause{supervised::pause_max_ns};

void say(const std::string& sentence) { std::fprintf(stderr, "bus: %s\n", sentence.c_str()); }

// Our own output as a tee has it: blocking, so that a slow reader slows the program.
asio::awaitable<bool> write_to(int descriptor, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(descriptor, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) co_return false;
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  co_return true;
}

class runner {
 public:
  runner(const run_options& options, session& joined, const signal_block& blocked)
      : options_(options),
        joined_(joined),
        pausing_(joined.context()),
        signals_(blocked, joined, [this](const signal_news& one) { obey(one); }) {
    if (!options.out.empty()) out_.emplace(joined, outlet::manner{.topic = options.out});
    if (!options.err.empty() && !shares_pipe()) {
      err_.emplace(joined, outlet::manner{.topic = options.err});
    }
    if (options.in.empty()) return;
    in_.emplace(joined,
                intake::manner{.pattern = options.in,
                               .keeps_open = options.keeps_open,
                               .as_frames = options.framing.frames,
                               .block_for = options.block_for_s > 0 ? seconds(options.block_for_s)
                                                                    : for_ever});
  }

  exit_status run() {
    for (auto* const each : outlets()) {
      if (*each) (*each)->wait_subscribers(options_.matched, options_.timeout_s);
    }
    joined_.start(live());
    static_cast<void>(joined_.run(for_ever, [this] {
      if (in_) in_->look();
      return over_;
    }));
    return status_;
  }

  // Says what did not go as asked; true: something was lost.
  bool report() {
    bool is_lost = broken_;
    for (auto* const each : outlets()) {
      if (!*each || (*each)->missed() == 0) continue;
      is_lost = true;
      say(
          fmt::format("{} of {} messages were missed by a subscriber of {} that stood still; see: "
                      "bus why '{}'",
                      (*each)->missed(), (*each)->sent(), (*each)->topic(), (*each)->topic()));
    }
    if (in_ && in_->lost() > 0) {
      is_lost = true;
      say(fmt::format("{} messages of {} were lost on the way; `bus info` says how", in_->lost(),
                      in_->pattern()));
    }
    if (in_ && (in_->unread_bytes() > 0 || in_->waiting() > 0)) {
      say(fmt::format("{} bytes and {} messages of {} came and were not read by {}",
                      in_->unread_bytes(), in_->waiting(), in_->pattern(), name()));
    }
    return is_lost;
  }

 private:
  [[nodiscard]] const std::string& name() const { return options_.command.front(); }
  [[nodiscard]] std::array<std::optional<outlet>*, 2> outlets() { return {&out_, &err_}; }
  // Both outputs in their order, as by 2>&1.
  [[nodiscard]] bool shares_pipe() const { return options_.err == options_.out; }

  asio::awaitable<void> live() {
    std::chrono::nanoseconds pause = first_pause;
    for (unsigned starts = 1; leaving_ == 0; ++starts) {
      const std::int64_t begun_ns = steady_ns();
      launch();
      co_await (watch() && carry(out_end_, out_, STDOUT_FILENO) &&
                carry(err_end_, err_, STDERR_FILENO) && feed());
      if (leaving_ != 0 || !wants_restart()) break;
      if (steady_ns() - begun_ns >= supervised::settled_ns) pause = first_pause;
      say(fmt::format("{} {}; start {} in {:.1f} s", name(), status_.describe(), starts + 1,
                      std::chrono::duration<double>(pause).count()));
      co_await sleep(pause);
      if (leaving_ != 0) status_ = {.code = 0, .signal = leaving_};
      pause = std::min(2 * pause, longest_pause);
    }
    for (auto* const each : outlets()) {
      if (*each) co_await (*each)->drain();
    }
    over_ = true;
  }

  // Starts the program with new pipes. Throws failure.
  void launch() {
    child_plan plan{.command = options_.command, .closes_others = false};
    if (!options_.directory.empty()) {
      plan.environment.push_back("OMNIBUS_DIR=" + options_.directory);
    }
    std::vector<fd> theirs;
    const auto connect = [&](std::unique_ptr<stream_end>& ours, int number) {
      auto made = make_wide_pipe();
      if (!made) throw failure(exit_code::not_so, "no pipe: " + made.error().message());
      auto& [from, to] = *made;
      const bool is_input = number == STDIN_FILENO;
      ours = std::make_unique<stream_end>(joined_.context(), std::move(is_input ? to : from));
      theirs.push_back(std::move(is_input ? from : to));
      plan.descriptors.emplace_back(theirs.back().get(), number);
    };
    if (in_) connect(in_end_, STDIN_FILENO);
    if (out_) connect(out_end_, STDOUT_FILENO);
    if (out_ && shares_pipe()) plan.descriptors.emplace_back(theirs.back().get(), STDERR_FILENO);
    if (err_) connect(err_end_, STDERR_FILENO);
    auto started = child_process::start(plan);
    if (!started) throw cannot_start(name(), started.error());
    child_.emplace(std::move(*started));
  }

  // Until the program has ended. Afterwards its output is read to the end, and not for ever.
  asio::awaitable<void> watch() {
    onlooker end(joined_.context(), child_->handle(), EPOLLIN);
    if (!end.is_able()) throw failure(exit_code::not_so, "no descriptors left");
    co_await end.wait();
    status_ = child_->wait();
    if (in_) in_->stop();
    for (auto* const each : {&out_end_, &err_end_}) {
      if (*each && (*each)->is_open()) (*each)->owe(patience_for_heirs);
    }
  }

  asio::awaitable<void> carry(std::unique_ptr<stream_end>& from, std::optional<outlet>& to,
                              int tee) {
    if (!to) co_return;
    pump_plan plan{.from = *from, .to = *to, .how = options_.framing};
    if (options_.tees) {
      plan.pass_on = [tee](std::span<const std::byte> bytes) { return write_to(tee, bytes); };
    }
    const bool is_whole = co_await pump(std::move(plan));
    if (from->is_held()) {
      say(fmt::format("{} has ended, and somebody whom it started holds its output: not waited for",
                      name()));
    }
    if (is_whole) co_return;
    broken_ = true;
    say(
        fmt::format("{} does not write frames: a length in 4 bytes, little-endian and at most {}, "
                    "and so many bytes; what is no whole frame is not published",
                    name(), frame_bytes_max));
  }

  asio::awaitable<void> feed() {
    if (in_) co_await in_->feed(*in_end_);
  }

  asio::awaitable<void> sleep(std::chrono::nanoseconds length) {
    pausing_.expires_after(std::chrono::duration_cast<asio::steady_timer::duration>(length));
    std::error_code ignored;
    co_await pausing_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }

  [[nodiscard]] bool wants_restart() const {
    return options_.restarts == restart::always ||
           (options_.restarts == restart::on_failure && !status_.succeeded());
  }

  void obey(const signal_news& one) {
    const bool is_ending = signal_watch::is_ending(one.number);
    if (is_ending) leaving_ = one.number;
    if (child_ && !child_->poll()) {
      if (!one.is_for_group) static_cast<void>(child_->signal(one.number));
      return;
    }
    if (!is_ending) return;
    // Whatever we still wait for.
    pausing_.cancel();
    for (auto* const each : outlets()) {
      if (*each) (*each)->abandon();
    }
    for (auto* const each : {&out_end_, &err_end_}) {
      if (*each) (*each)->close();
    }
  }

  const run_options& options_;
  session& joined_;
  std::optional<outlet> out_;
  std::optional<outlet> err_;
  std::optional<intake> in_;
  std::unique_ptr<stream_end> out_end_;
  std::unique_ptr<stream_end> err_end_;
  std::unique_ptr<stream_end> in_end_;
  std::optional<child_process> child_;
  asio::steady_timer pausing_;
  signal_watch signals_;
  exit_status status_;
  int leaving_ = 0;  // the signal that asked us to end
  bool broken_ = false;
  bool over_ = false;
};

}  // namespace

failure cannot_start(const std::string& program, std::error_code why) {
  const bool is_missing = why == std::errc::no_such_file_or_directory;
  const std::string advice = is_missing            ? "see that it is in $PATH, or give its path"
                             : why == errc::denied ? "see that it may be executed (chmod +x)"
                                                   : "see that it is a program for this machine";
  return {static_cast<exit_code>(is_missing ? code_of_missing : code_of_refused),
          "cannot start '" + program + "': " + why.message() + "; " + advice};
}

int run_program(const run_options& options) {
  exit_status ended;
  bool is_lost = false;
  {
    const signal_block blocked;
    session joined("bus run", options, session::signals::are_watched);
    runner one(options, joined, blocked);
    ended = one.run();
    is_lost = one.report();
  }
  if (ended.signal != 0) return die_of(ended.signal);
  return ended.code == 0 && is_lost ? code_of_loss : ended.code;
}

}  // namespace bus::tool
