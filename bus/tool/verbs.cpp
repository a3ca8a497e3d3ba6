#include "bus/tool/verbs.hpp"

#include <charconv>
#include <cmath>

#include <CLI/CLI.hpp>

namespace bus::tool {

std::vector<verb> all_verbs() {
  return {
      list_verb(),    //
      info_verb(),    //
      echo_verb(),    //
      pub_verb(),     //
      run_verb(),     //
      pipe_verb(),    //
      hz_verb(),      //
      bw_verb(),      //
      why_verb(),     //
      doctor_verb(),  //
      gc_verb(),      //
      bench_verb(),   //
      chaos_verb(),   //
      completion_verb(), bench_peer_verb(), chaos_peer_verb(),
  };
}

void add_directory(CLI::App& parser, common_options& into) {
  parser.add_option("--directory", into.directory,
                    "The bus directory, instead of $OMNIBUS_DIR and its defaults");
}

void add_json(CLI::App& parser, common_options& into) {
  parser.add_flag("--json", into.json, "JSON, one object a line");
}

std::string check_above_zero(const std::string& text) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [at, failed] = std::from_chars(text.data(), end, value);
  if (failed == std::errc{} && at == end && std::isfinite(value) && value > 0) return {};
  return "'" + text + "' is no number above 0";
}

}  // namespace bus::tool
