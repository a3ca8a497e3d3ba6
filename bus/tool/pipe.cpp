#include "bus/tool/pipe.hpp"

#include "bus/base/child_process.hpp"
#include "bus/tool/onlooker.hpp"
#include "bus/tool/outlet.hpp"
#include "bus/tool/pump.hpp"
#include "bus/tool/run.hpp"
#include "bus/tool/signal_watch.hpp"
#include "bus/tool/verbs.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include <sys/epoll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace bus::tool {
namespace {

// A tap that does not ask is not waited for.
constexpr std::chrono::nanoseconds no_patience{0};

// Between a stage and the next one.
struct joint {
  outlet topic;
  std::unique_ptr<stream_end> from;
  std::unique_ptr<stream_end> to;
  bool is_refused = false;  // the next stage did not want all of it
};

class pipeline {
 public:
  pipeline(const pipe_options& options, session& joined, const signal_block& blocked)
      : options_(options),
        joined_(joined),
        signals_(blocked, joined, [this](auto& one) { obey(one); }) {
    const std::string name = options.name.empty() ? std::to_string(::getpid()) : options.name;
    for (std::size_t i = 1; i < options.stages.size(); ++i) {
      joints_.push_back(std::make_unique<joint>(
          joint{.topic = outlet(
                    joined, {.topic = fmt::format("pipe/{}/{}", name, i), .patience = no_patience}),
                .from = nullptr,
                .to = nullptr}));
    }
  }

  void run() {
    for (auto& each : joints_) each->topic.wait_subscribers(0, 0);
    fd input;  // of the next stage; none: ours
    for (std::size_t i = 0; i < options_.stages.size() && leaving_ == 0; ++i) {
      input = launch(i, std::move(input));
      working_ += 1;
      joined_.start(watch(i));
    }
    for (auto& each : joints_) {
      if (!each->from || !each->to) continue;
      working_ += 1;
      joined_.start(carry(*each));
    }
    static_cast<void>(joined_.run(for_ever, [this] { return working_ == 0; }));
  }

  // That of the last stage that failed, whatever those before it did. Says which ones failed.
  [[nodiscard]] exit_status verdict() {
    exit_status last;
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      const exit_status how = stages_[i].wait();
      const bool is_sigpipe = how.as_code() == 128 + SIGPIPE;
      const bool was_refused = i < joints_.size() && joints_[i]->is_refused;
      if (how.succeeded() || (is_sigpipe && was_refused)) continue;
      last = how;
      std::fprintf(stderr, "bus: stage %zu, %s, %s\n", i + 1, options_.stages[i].c_str(),
                   how.describe().c_str());
    }
    return stages_.empty() && leaving_ != 0 ? exit_status{.code = 0, .signal = leaving_} : last;
  }

 private:
  // Starts stage `i`; returns what the next one is to read.
  fd launch(std::size_t i, fd input) {
    child_plan plan{.command = {"/bin/sh", "-c", options_.stages[i]}, .closes_others = false};
    if (!options_.directory.empty()) {
      plan.environment.push_back("OMNIBUS_DIR=" + options_.directory);
    }
    if (input) plan.descriptors.emplace_back(input.get(), STDIN_FILENO);
    fd output;
    fd next;
    if (i < joints_.size()) {
      auto first = make_wide_pipe();
      auto second = make_wide_pipe();
      if (!first || !second) throw failure(exit_code::not_so, "no descriptors left for a pipe");
      output = std::move(first->writer);
      next = std::move(second->reader);
      plan.descriptors.emplace_back(output.get(), STDOUT_FILENO);
      joints_[i]->from = std::make_unique<stream_end>(joined_.context(), std::move(first->reader));
      joints_[i]->to = std::make_unique<stream_end>(joined_.context(), std::move(second->writer));
    }
    auto started = child_process::start(plan);
    if (!started) throw cannot_start("/bin/sh", started.error());
    stages_.push_back(std::move(*started));
    return next;
  }

  asio::awaitable<void> watch(std::size_t i) {
    onlooker end(joined_.context(), stages_[i].handle(), EPOLLIN);
    if (!end.is_able()) throw failure(exit_code::not_so, "no descriptors left");
    co_await end.wait();
    working_ -= 1;
  }

  asio::awaitable<void> carry(joint& one) {
    pump_plan plan{.from = *one.from, .to = one.topic, .how = options_.framing};
    plan.pass_on = [&one](std::span<const std::byte> bytes) { return pass_on(one, bytes); };
    static_cast<void>(co_await pump(std::move(plan)));
    one.to->close();
    working_ -= 1;
  }

  static asio::awaitable<bool> pass_on(joint& one, std::span<const std::byte> bytes) {
    const bool is_read = co_await one.to->write_all(bytes);
    one.is_refused = !is_read;
    co_return is_read;
  }

  void obey(const signal_news& one) {
    if (signal_watch::is_ending(one.number)) {
      leaving_ = one.number;
      for (auto& each : joints_) each->topic.abandon();
    }
    if (one.is_for_group) return;
    for (const child_process& each : stages_) static_cast<void>(each.signal(one.number));
  }

  const pipe_options& options_;
  session& joined_;
  std::vector<std::unique_ptr<joint>> joints_;
  std::vector<child_process> stages_;
  signal_watch signals_;
  unsigned working_ = 0;  // stages that run, and joints that are open
  int leaving_ = 0;
};

}  // namespace

int run_pipeline(const pipe_options& options) {
  exit_status ended;
  {
    const signal_block blocked;
    session joined("bus pipe", options, session::signals::are_watched);
    pipeline all(options, joined, blocked);
    all.run();
    ended = all.verdict();
  }
  return ended.signal != 0 ? die_of(ended.signal) : ended.code;
}

verb pipe_verb() {
  return {.name = "pipe",
          .summary = "Runs a pipeline whose stages are joined by topics that anybody may tap",
          .example =
              "  bus pipe --name quakes './feed' 'jq -c .features[]' 'tee all.json | wc -l'\n"
              "  bus echo --raw pipe/quakes/1",
          .declare = [](CLI::App& parser) {
            const auto options = std::make_shared<pipe_options>();
            auto* const stages = add_words(parser, "STAGE", "Command lines, as for sh -c");
            parser.add_option("--name", options->name,
                              "The topics are pipe/NAME/1, pipe/NAME/2...; else the process id");
            add_framing(parser, options->framing);
            add_directory(parser, *options);
            return [options, stages] {
              options->stages = stages->results();
              options->framing.check();
              if (options->framing.frames) {
                throw failure(exit_code::usage,
                              "--frames: what is no frame would cut the pipeline; take --lines, "
                              "--nul or --chunks");
              }
              if (options->stages.empty()) {
                throw failure(exit_code::usage,
                              "which stages? Each is a command line, as in: bus pipe 'ls' 'wc -l'");
              }
              return static_cast<exit_code>(run_pipeline(*options));
            };
          }};
}

}  // namespace bus::tool
