#include "bus/node/child.hpp"

#include "bus/node/error.hpp"
#include "bus/node/gateway.hpp"

#include <csignal>
#include <utility>

namespace bus {
namespace {

std::string advice(std::error_code why) {
  if (why == std::errc::no_such_file_or_directory) {
    return "; is it installed, and in $PATH or named with its folder?";
  }
  if (why == errc::denied) return "; is it executable (chmod +x), and may you run it?";
  if (why == std::errc::resource_unavailable_try_again) {
    return "; raise the limit of processes (ulimit -u, the cgroup's pids.max)";
  }
  if (why == errc::open_walls) {
    return "; allow user namespaces or Landlock here, and seccomp, or say allow::even_if_open";
  }
  if (why == std::errc::argument_list_too_long) return "; give it fewer or shorter arguments";
  return {};
}

}  // namespace

child spawn(node& around, std::vector<std::string> command, spawn_options options) {
  if (command.empty()) throw error(errc::bad_name, "cannot start a child: no program was named");
  const std::string program = command.front();
  child_plan plan{.command = std::move(command),
                  .environment = std::move(options.environment),
                  .descriptors = std::move(options.descriptors),
                  .is_bound = options.is_bound};
  // Wherever we found it: in an option of ours, for example.
  if (options.sandbox) {
    plan.confined = confinement{.reads = options.sandbox->reads,
                                .writes = options.sandbox->writes,
                                .variables = options.sandbox->variables,
                                .even_if_open = options.sandbox->even_if_open};
  }
  const bool is_apart = options.sandbox || !options.shares_directory;
  plan.environment.push_back("OMNIBUS_DIR=" +
                             (is_apart ? std::string(no_directory) : around.directory()));
  core& wheel = around.inside();
  auto made = options.sandbox
                  ? wheel.lock_in(std::move(plan), options.restarts, std::move(*options.sandbox))
                  : wheel.look_after(std::move(plan), options.restarts, is_apart);
  if (!made) {
    throw error(made.error(),
                "cannot start " + program + ": " + made.error().message() + advice(made.error()));
  }
  return {wheel, std::move(*made)};
}

relay_accounts child::relayed() const noexcept {
  const gateway* const between = core_->gateway_of(*one_);
  if (!between) return {};
  const ledger_row& row = between->row();
  return {.out = row.get(column::relay_out),
          .in = row.get(column::relay_in),
          .refused_topics = row.get(column::relay_refused_topics),
          .refused_patterns = row.get(column::relay_refused_patterns),
          .refused_messages = row.get(column::relay_refused_messages)};
}

std::vector<std::string> child::refusals() const {
  const gateway* const between = core_->gateway_of(*one_);
  return between ? between->refusals() : std::vector<std::string>();
}

asio::awaitable<exit_status> child::ended() {
  loop_signal over(*core_);
  one_->on_end = [&over] { over.raise(); };
  while (!one_->is_over()) co_await over.wait();
  one_->on_end = nullptr;
  co_return *one_->last_end();
}

exit_status child::stop(std::chrono::nanoseconds grace) {
  one_->give_up();
  static_cast<void>(one_->signal(SIGTERM));
  if (!wait(grace)) one_->kill();
  return *one_->last_end();
}

asio::awaitable<exit_status> child::stopped(std::chrono::nanoseconds grace) {
  one_->give_up();
  static_cast<void>(one_->signal(SIGTERM));
  loop_signal over(*core_);
  one_->on_end = [&over] { over.raise(); };
  const deadline until = deadline::after(grace);
  while (!one_->is_over() && !until.passed()) co_await over.wait(until);
  one_->on_end = nullptr;
  if (!one_->is_over()) one_->kill();
  co_return *one_->last_end();
}

}  // namespace bus
