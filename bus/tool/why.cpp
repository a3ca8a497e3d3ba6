// `bus why`: the first broken step, and its fix. The thinking is in bus/route/explain; node::why
// gives programs the same answer.
#include "bus/route/explain.hpp"
#include "bus/tool/console.hpp"
#include "bus/tool/look.hpp"
#include "bus/tool/verbs.hpp"

#include <algorithm>
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

namespace bus::tool {
namespace {

using json = nlohmann::ordered_json;

struct why_options : common_options {
  std::string topic;
};

json party_json(const explanation::party& one) {
  return {{"node", one.node_name},
          {"id", to_hex(one.node.value)},
          {"pid", one.pid},
          {"number", one.number},
          {"name", one.name},
          {"type", one.type},
          {"type_hash", to_hex(one.type_hash)},
          {"here", one.here},
          {"on_behalf_of", one.on_behalf_of.empty() ? json() : json(one.on_behalf_of)}};
}

json path_json(const explanation::path& one) {
  json steps = json::array();
  for (const auto& step : one.steps) {
    steps.push_back({{"step", step.name}, {"mark", name_of(step.how)}, {"words", step.words}});
  }
  json candidates = json::array();
  for (const auto& each : one.candidates) {
    candidates.push_back({{"scheme", each.scheme},
                          {"address", each.address},
                          {"cost_ns", each.cost_ns},
                          {"verdict", each.verdict},
                          {"chosen", each.chosen}});
  }
  json lost = json::object();
  for (std::size_t i = 0; i < loss_count; ++i) {
    lost[std::string(name_of(static_cast<loss>(i)))] = one.lost[i];
  }
  const auto* const won = one.winner();
  return {{"from", party_json(one.from)},
          {"to", party_json(one.to)},
          {"state", name_of(one.how)},
          {"steps", steps},
          {"candidates", candidates},
          {"winner", won ? json(won->scheme) : json()},
          {"cost_ns", won ? json(won->cost_ns) : json()},
          {"proof", one.proof},
          {"last_sent", one.sent},
          {"last_received", one.received_known ? json(one.received) : json()},
          {"unsettled", one.unsettled},
          {"lost", lost},
          {"fix", one.fix}};
}

json told_json(const explanation& told) {
  json made = {{"topic", told.topic},         {"state", name_of(told.how)},
               {"broken", told.broken},       {"fix", told.fix},
               {"publishers", json::array()}, {"subscriptions", json::array()},
               {"paths", json::array()},      {"notes", told.notes}};
  for (const auto& one : told.publishers) made["publishers"].push_back(party_json(one));
  for (const auto& one : told.subscriptions) made["subscriptions"].push_back(party_json(one));
  for (const auto& one : told.paths) made["paths"].push_back(path_json(one));
  return made;
}

// Line by line: names in it come from strangers. The words that matter are coloured.
void show(const std::string& text, console& out) {
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = clean(std::string_view(text).substr(begin, end - begin));
    const bool broken = line.rfind("first broken", 0) == 0 || line.find(" BROKEN ") < line.size();
    const bool fix = line.rfind("fix: ", 0) == 0 || line.rfind("  fix: ", 0) == 0;
    out.line(broken ? out.red(line) : fix ? out.yellow(line) : line);
    begin = end + 1;
  }
}

exit_code why(const why_options& options) {
  const explanation told = explain(look(options), options.topic);
  console out;
  if (options.json) {
    out.line(told_json(told).dump(-1, ' ', false, json::error_handler_t::replace));
  } else {
    show(to_text(told), out);
  }
  out.flush();
  return told.how == explanation::state::broken ? exit_code::not_so : exit_code::done;
}

}  // namespace

verb why_verb() {
  return {.name = "why",
          .summary = "Why messages of a topic do or do not arrive: the first broken step, its fix",
          .example = "  bus why quakes/ak/ml",
          .declare = [](CLI::App& parser) {
            const auto options = std::make_shared<why_options>();
            parser.add_option("topic", options->topic, "A topic, or a pattern")->required();
            add_json(parser, *options);
            add_directory(parser, *options);
            return [options] { return why(*options); };
          }};
}

}  // namespace bus::tool
