// The `bus` command. main introduces the verbs to the parser, and is the one place where troubles
// become exit codes and a sentence on standard error.
#include "bus/base/error_code.hpp"
#include "bus/node/error.hpp"
#include "bus/tool/verbs.hpp"

#include <csignal>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

namespace {

using bus::tool::exit_code;

int complain(exit_code code, const std::string& sentence) {
  std::fflush(stdout);
  std::fprintf(stderr, "bus: %s\n", sentence.c_str());
  return static_cast<int>(code);
}

exit_code code_for(std::error_code why) {
  if (why == bus::errc::denied || why == bus::errc::stranger) return exit_code::denied;
  if (why == bus::errc::timed_out) return exit_code::timeout;
  if (why == bus::errc::bad_name) return exit_code::usage;
  return exit_code::not_so;
}

int run(const std::function<exit_code()>& verb) {
  try {
    return static_cast<int>(verb());
  } catch (const bus::tool::failure& trouble) {
    return complain(trouble.code(), trouble.what());
  } catch (const bus::error& trouble) {
    return complain(code_for(trouble.code()), trouble.what());
  } catch (const std::exception& trouble) {
    return complain(exit_code::not_so, std::string("failed: ") + trouble.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  // A reader that goes away is noticed by the write; a node must not die of it with files behind.
  static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
  CLI::App parser("The Omnibus software bus. `bus` alone lists the topics.", "bus");
  parser.footer(
      "Exit codes: 0 done, 1 not so, 2 usage, 3 timeout, 4 denied.\n"
      "`bus VERB --help` has an example for each verb.");
  parser.set_version_flag("--version", OMNIBUS_VERSION);
  parser.require_subcommand(0, 1);
  std::vector<std::pair<CLI::App*, std::function<exit_code()>>> runs;
  for (const bus::tool::verb& one : bus::tool::all_verbs()) {
    CLI::App* const own = parser.add_subcommand(one.name, one.summary);
    own->footer("Example:\n" + one.example);
    runs.emplace_back(own, one.declare(*own));
  }
  try {
    parser.parse(argc, argv);
  } catch (const CLI::ParseError& trouble) {
    if (trouble.get_exit_code() == 0) return parser.exit(trouble);
    std::string verb;
    for (const auto& [own, ignored] : runs) {
      if (own->parsed()) verb = own->get_name() + ' ';
    }
    return complain(exit_code::usage,
                    std::string(trouble.what()) + "; try: bus " + verb + "--help");
  }
  for (const auto& [own, verb] : runs) {
    if (own->parsed()) return run(verb);
  }
  return run(runs.front().second);
}
