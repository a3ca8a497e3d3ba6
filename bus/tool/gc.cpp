// `bus gc`: removes what the dead have left, and nothing else.
#include "bus/tool/console.hpp"
#include "bus/tool/leftovers.hpp"
#include "bus/tool/look.hpp"
#include "bus/tool/verbs.hpp"

#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace bus::tool {
namespace {

using json = nlohmann::ordered_json;

struct gc_options : common_options {
  bool dry_run = false;
};

exit_code gc(const gc_options& options) {
  const auto there = rendezvous::visit(directory_of(options));
  // Where nothing is, nothing is left.
  if (!there && there.error() == errc::not_found) return exit_code::done;
  const rendezvous place = visit(options);
  console out;
  std::size_t removed = 0;
  std::error_code trouble;
  std::string in_the_way;
  for (const leftover& one : find_leftovers(place)) {
    const bool is_removed = !one.is_awaited && !options.dry_run;
    const result<void> done = is_removed ? remove_leftover(place, one) : result<void>{};
    if (!done && done.error() == errc::exists) continue;
    if (!done) {
      trouble = done.error();
      in_the_way = one.path;
    }
    removed += done && !one.is_awaited ? 1 : 0;
    const bool is_kept = !done || one.is_awaited;
    const std::string what = is_kept ? "kept" : options.dry_run ? "would remove" : "removed";
    if (options.json) {
      const json words = {{"path", place.path() + '/' + one.path},
                          {"did", what},
                          {"reason", one.reason},
                          {"error", done ? "" : done.error().message()}};
      out.line(words.dump(-1, ' ', false, json::error_handler_t::replace));
    } else {
      out.line(clean(fmt::format("{} {}: {}", what, one.path, one.reason)));
    }
  }
  if (!options.json && removed == 0 && !trouble && out.is_terminal()) out.line("nothing to remove");
  out.flush();
  if (!trouble) return exit_code::done;
  throw failure(trouble == errc::denied ? exit_code::denied : exit_code::not_so,
                "cannot remove " + place.path() + '/' + in_the_way + ": " + trouble.message() +
                    "; run as the owner of the directory");
}

}  // namespace

verb gc_verb() {
  return {.name = "gc",
          .summary = "Removes what dead nodes have left in the bus directory",
          .example = "  bus gc --dry-run",
          .declare = [](CLI::App& parser) {
            const auto options = std::make_shared<gc_options>();
            parser.add_flag("-n,--dry-run", options->dry_run, "Says what it would do");
            add_json(parser, *options);
            add_directory(parser, *options);
            return [options] { return gc(*options); };
          }};
}

}  // namespace bus::tool
