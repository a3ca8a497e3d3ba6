// `bus run`: the words of the command line for run.hpp.
#include "bus/tool/run.hpp"
#include "bus/tool/verbs.hpp"
#include "bus/topic/pattern.hpp"

#include <map>
#include <memory>

#include <CLI/CLI.hpp>

namespace bus::tool {
namespace {

const std::map<std::string, restart> policies = {
    {"never", restart::never},
    {"on-failure", restart::on_failure},
    {"always", restart::always},
};

void check(const run_options& options) {
  options.framing.check();
  if (options.command.empty()) {
    throw failure(exit_code::usage,
                  "which program? Give it behind --, as in: bus run --out logs/build -- make -j4");
  }
  for (const std::string* const topic : {&options.out, &options.err}) {
    if (topic->empty() || options.in.empty() || !matches(options.in, *topic)) continue;
    throw failure(exit_code::usage, "--in " + options.in + " hears what is published on " + *topic +
                                        ": " + options.command.front() +
                                        " would read what it writes; take another topic");
  }
}

}  // namespace

CLI::Option* add_words(CLI::App& parser, const std::string& name, const std::string& summary) {
  // CLI would take "[a,b]" for two words where it allows extra ones; so as many as any command line
  // has are not extra, and that there are fewer is none of its business.
  constexpr int more_than_any = 1 << 20;
  return parser.add_option(name, summary)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)  // first: it changes what is expected
      ->expected(more_than_any, CLI::detail::expected_max_vector_size)
      ->allow_extra_args(false)
      ->option_text("...");
}

verb run_verb() {
  return {.name = "run",
          .summary = "Runs a program whose output is published, and whose input is a topic",
          .example =
              "  bus run --out logs/build --err logs/build --tee -- make -j4\n"
              "  bus run --in 'quakes/**' --out quakes/large --lines -- grep -v small\n"
              "  bus run --out sensors/lidar --frames --restart on-failure -- ./lidar-driver",
          .declare = [](CLI::App& parser) {
            const auto options = std::make_shared<run_options>();
            auto* const command =
                add_words(parser, "COMMAND", "The program and its arguments, behind --");
            parser.add_option("--in", options->in, "A topic, or a pattern: its standard input");
            parser.add_option("--out", options->out, "The topic of its standard output");
            parser.add_option("--err", options->err, "The topic of its standard error");
            add_framing(parser, options->framing);
            parser.add_flag("--tee", options->tees,
                            "What is published also goes to our own output");
            parser
                .add_option_function<std::string>(
                    "--restart",
                    [options](const std::string& name) { options->restarts = policies.at(name); },
                    "When it is started again; with pauses of 0.1 s to 30 s between")
                ->check(CLI::IsMember(policies), "");
            parser.add_flag("--keep-open", options->keeps_open,
                            "Its input does not end when the last publisher has left");
            parser
                .add_option("--block", options->block_for_s,
                            "Publishers of --in wait for it, up to so many seconds; else for ever")
                ->check(check_above_zero, "ABOVE 0");
            parser.add_option("-w,--wait", options->matched,
                              "Waits until so many subscribers are matched before it starts");
            parser
                .add_option("--timeout", options->timeout_s,
                            "How many seconds -w waits; then exit code 3")
                ->capture_default_str();
            add_directory(parser, *options);
            return [options, command] {
              options->command = command->results();
              check(*options);
              return static_cast<exit_code>(run_program(*options));
            };
          }};
}

}  // namespace bus::tool
