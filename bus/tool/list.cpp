// `bus list`: which topics there are, and who is on them.
#include "bus/tool/console.hpp"
#include "bus/tool/look.hpp"
#include "bus/tool/verbs.hpp"
#include "bus/topic/pattern.hpp"

#include <map>
#include <memory>
#include <set>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace bus::tool {
namespace {

using json = nlohmann::ordered_json;

struct list_options : common_options {
  std::string pattern = "**";
  bool types = false;
  bool nodes = false;
  bool names = false;
  bool all = false;
};

struct topic_row {
  std::size_t publishers = 0;
  std::size_t subscriptions = 0;
  std::size_t remote_publishers = 0;  // of them
  std::size_t remote_subscriptions = 0;
  std::set<std::string> types;
};

// Topics are what is published, and what is asked for by its full name. A pattern with wildcards
// counts at each topic that it meets, and names none.
std::map<std::string, topic_row> topics_of(const census& seen, const std::string& pattern) {
  std::map<std::string, topic_row> topics;
  const auto row_of = [&](const std::string& topic) -> topic_row* {
    return matches(pattern, topic) ? &topics[topic] : nullptr;
  };
  const auto each_card = [&](auto&& visit) {
    for (const node_report& node : seen.nodes) {
      if (node.life != liveness::dead) visit(node.card, std::size_t{0});
    }
    for (const remote_report& node : seen.remotes) visit(node.card, std::size_t{1});
  };
  each_card([&](const wire::Card& card, std::size_t remote) {
    for (const auto& words : card.advertisements()) {
      topic_row* const row = row_of(words.topic());
      if (!row) continue;
      ++row->publishers;
      row->remote_publishers += remote;
      row->types.insert(type_text(words));
    }
    for (const auto& words : card.interests()) {
      if (has_wildcard(words.pattern())) continue;
      topic_row* const row = row_of(words.pattern());
      if (row && words.has_type()) row->types.insert(type_text(words));
    }
  });
  each_card([&](const wire::Card& card, std::size_t remote) {
    for (const auto& words : card.interests()) {
      for (auto& [topic, row] : topics) {
        if (!matches(words.pattern(), topic)) continue;
        ++row.subscriptions;
        row.remote_subscriptions += remote;
      }
    }
  });
  return topics;
}

// "3", or "3 (1 remote)".
std::string count_text(std::size_t all, std::size_t remote) {
  return std::to_string(all) + (remote == 0 ? "" : " (" + std::to_string(remote) + " remote)");
}

void list_topics(const census& seen, const list_options& options, console& out) {
  table rows;
  rows.push_back({"topic", "publishers", "subscriptions"});
  if (options.types) rows.back().emplace_back("type");
  for (const auto& [topic, row] : topics_of(seen, options.pattern)) {
    if (options.names) {
      out.line(clean(topic));
      continue;
    }
    if (options.json) {
      const json words = {{"topic", topic},
                          {"publishers", row.publishers},
                          {"subscriptions", row.subscriptions},
                          {"remote_publishers", row.remote_publishers},
                          {"remote_subscriptions", row.remote_subscriptions},
                          {"types", row.types}};
      out.line(words.dump(-1, ' ', false, json::error_handler_t::replace));
      continue;
    }
    rows.push_back({clean(topic), count_text(row.publishers, row.remote_publishers),
                    count_text(row.subscriptions, row.remote_subscriptions)});
    if (options.types) rows.back().push_back(fmt::format("{}", fmt::join(row.types, ", ")));
  }
  if (options.names || options.json) return;
  if (rows.size() > 1) {
    out.write(aligned(rows));
  } else if (out.is_terminal()) {
    out.line(out.dim("no topics in " + seen.directory));
  }
}

// Nodes on other machines, after ours.
void list_remotes(const census& seen, const list_options& options, table& rows, console& out) {
  for (const remote_report& node : seen.remotes) {
    if (options.json) {
      json known_to = json::array();
      for (const node_id id : node.known_to) known_to.push_back(to_hex(id.value));
      const json words = {{"node", node.card.name()},
                          {"id", to_hex(node.id.value)},
                          {"pid", node.card.pid()},
                          {"life", node.speaks ? "speaks" : "hearsay"},
                          {"host", place_text(node.card)},
                          {"publishers", node.card.advertisements_size()},
                          {"subscriptions", node.card.interests_size()},
                          {"addresses", json(node.card.addresses())},
                          {"known_to", known_to},
                          {"error", ""}};
      out.line(words.dump(-1, ' ', false, json::error_handler_t::replace));
      continue;
    }
    rows.push_back({clean(node.card.name()), to_hex(node.id.value), std::to_string(node.card.pid()),
                    std::to_string(node.card.advertisements_size()),
                    std::to_string(node.card.interests_size()), place_text(node.card),
                    node.speaks ? "over the network" : "hearsay: it has not spoken to us"});
  }
}

void list_nodes(const census& seen, const list_options& options, console& out) {
  table rows = {{"node", "id", "pid", "publishers", "subscriptions", "host", "ways"}};
  for (const node_report& node : seen.nodes) {
    if (node.life == liveness::dead && !options.all) continue;
    if (options.json) {
      const json words = {{"node", node.card.name()},
                          {"id", to_hex(node.id.value)},
                          {"pid", node.card.pid()},
                          {"life", life_text(node.life)},
                          {"host", "here"},
                          {"publishers", node.card.advertisements_size()},
                          {"subscriptions", node.card.interests_size()},
                          {"addresses", json(node.card.addresses())},
                          {"error", node.card_error ? node.card_error.message() : ""}};
      out.line(words.dump(-1, ' ', false, json::error_handler_t::replace));
      continue;
    }
    std::string ways;
    for (const std::string& address : node.card.addresses()) {
      ways += (ways.empty() ? "" : " ") + clean(address.substr(0, address.find(':')));
    }
    if (node.card_error) ways = "its card cannot be read: " + node.card_error.message();
    if (node.life == liveness::dead) ways = "dead: run bus gc";
    if (node.looks_stopped) ways += " (its process is stopped)";
    rows.push_back({name_text(node), to_hex(node.id.value), std::to_string(node.card.pid()),
                    std::to_string(node.card.advertisements_size()),
                    std::to_string(node.card.interests_size()), "here", ways});
  }
  list_remotes(seen, options, rows, out);
  if (options.json) return;
  if (rows.size() > 1) {
    out.write(aligned(rows));
  } else if (out.is_terminal()) {
    out.line(out.dim("no nodes in " + seen.directory));
  }
}

exit_code list(const list_options& options) {
  const census seen = look(options);
  console out;
  if (options.nodes || options.all) {
    list_nodes(seen, options, out);
  } else {
    list_topics(seen, options, out);
  }
  out.flush();
  return exit_code::done;
}

}  // namespace

verb list_verb() {
  return {.name = "list",
          .summary = "Topics, with how many publish and subscribe; bare `bus` does the same",
          .example = "  bus list -t 'quakes/**'\n  bus list --nodes",
          .declare = [](CLI::App& parser) {
            const auto options = std::make_shared<list_options>();
            parser.add_option("pattern", options->pattern, "Only topics that match");
            parser.add_flag("-t,--types", options->types, "With the types");
            parser.add_flag("--nodes", options->nodes, "The nodes instead of the topics");
            parser.add_flag("--all", options->all, "The nodes, dead ones included");
            parser.add_flag("--names", options->names, "The names alone, for scripts");
            add_json(parser, *options);
            add_directory(parser, *options);
            return [options] { return list(*options); };
          }};
}

}  // namespace bus::tool
