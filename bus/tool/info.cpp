// `bus info`: the books. Everything is read from the ledgers, so it works on nodes that are stopped
// or killed, and asks nobody.
#include "bus/node/qos.hpp"
#include "bus/tool/console.hpp"
#include "bus/tool/look.hpp"
#include "bus/tool/verbs.hpp"
#include "bus/topic/pattern.hpp"

#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace bus::tool {
namespace {

using json = nlohmann::ordered_json;

struct info_options : common_options {
  std::string about;
};

const wire::Advertisement* find_advertisement(const node_report& node, std::uint32_t number) {
  for (const auto& words : node.card.advertisements()) {
    if (words.publisher() == number) return &words;
  }
  return nullptr;
}

const wire::Interest* find_interest(const node_report& node, std::uint32_t number) {
  for (const auto& words : node.card.interests()) {
    if (words.subscription() == number) return &words;
  }
  return nullptr;
}

// What the question selects: a node by name or id, or a topic or pattern.
class selection {
 public:
  selection(const census& seen, std::string about) : about_(std::move(about)) {
    for (const node_report& node : seen.nodes) {
      names_a_node_ = names_a_node_ || is(node.id, node.card);
    }
    for (const remote_report& node : seen.remotes) {
      names_a_node_ = names_a_node_ || is(node.id, node.card);
    }
  }
  // It asks for nodes with all that they have.
  [[nodiscard]] bool whole_nodes() const { return about_.empty() || names_a_node_; }
  [[nodiscard]] bool takes(node_id id, const wire::Card& card) const {
    return !names_a_node_ || is(id, card);
  }
  [[nodiscard]] bool takes(const wire::Advertisement* words) const {
    return whole_nodes() || (words && matches(about_, words->topic()));
  }
  [[nodiscard]] bool takes(const wire::Interest* words) const {
    return whole_nodes() || (words && overlaps(about_, words->pattern()));
  }

 private:
  [[nodiscard]] bool is(node_id id, const wire::Card& card) const {
    return card.name() == about_ || to_hex(id.value) == about_;
  }
  std::string about_;
  bool names_a_node_ = false;
};

std::string name_of_peer(const census& seen, node_id peer, const wire::Links& links) {
  if (const node_report* const node = seen.find(peer)) return name_text(*node);
  for (const remote_report& node : seen.remotes) {
    if (node.id == peer) return clean(node.card.name());
  }
  for (const wire::Link& link : links.links()) {
    if (link.peer() == peer.value && !link.peer_name().empty()) return clean(link.peer_name());
  }
  return to_hex(peer.value);
}

json losses_of(const ledger_entry& row) {
  json lost = json::object();
  for (std::size_t i = 0; i < loss_count; ++i) {
    lost[std::string(name_of(static_cast<loss>(i)))] = row.counts[column::lost + i];
  }
  return lost;
}

// Subscriptions that block, as this publisher sees them.
json gates_of(const census& seen, const node_report& node, std::uint32_t publisher) {
  json gates = json::array();
  for (const ledger_entry& row : node.ledger.entries) {
    if (row.kind != row_kind::gate || row.number != publisher) continue;
    const auto& counts = row.counts;
    const auto since_ns = static_cast<std::int64_t>(counts[column::gate_since_ns]);
    gates.push_back({{"node", name_of_peer(seen, row.peer, node.links)},
                     {"id", to_hex(row.peer.value)},
                     {"subscription", row.other},
                     {"waits", counts[column::gate_waits]},
                     {"waited_ns", counts[column::gate_waited_ns]},
                     {"blocked_ns", since_ns == 0 ? 0 : seen.steady_ns - since_ns},
                     {"lapsed", counts[column::gate_lapsed] != 0},
                     {"missed", counts[column::gate_missed]},
                     {"expired", counts[column::gate_expired]}});
  }
  return gates;
}

// The child for which its node publishes or subscribes; null: for itself.
template <class Words>
json child_of(const Words* words) {
  if (!words || !words->has_on_behalf_of()) return {};
  const wire::Kin& child = words->on_behalf_of();
  return {{"name", child.name()}, {"pid", child.pid()}};
}

json publisher_of(const census& seen, const node_report& node, const ledger_entry& row) {
  const auto* const words = find_advertisement(node, row.number);
  const auto& counts = row.counts;
  return {{"kind", "publisher"},
          {"number", row.number},
          {"topic", words ? words->topic() : ""},
          {"type", words ? type_text(*words) : ""},
          {"published", counts[column::published]},
          {"offered", counts[column::offered]},
          {"taken", counts[column::taken]},
          {"full", counts[column::full]},
          {"bytes", counts[column::sent_bytes]},
          {"attached", counts[column::attached]},
          {"refused", counts[column::refused]},
          {"for_child", child_of(words)},
          {"gates", gates_of(seen, node, row.number)}};
}

// What becomes of a sample that finds the queue full, in the words of bus::drop.
std::string when_full_text(const wire::Interest& words) {
  switch (static_cast<drop>(words.when_full())) {
    case drop::oldest:
      return "drops the oldest";
    case drop::newest:
      return "drops the newest";
    case drop::none:
      return "blocks";
  }
  return "unknown";
}

json subscription_of(const census& seen, const node_report& node, const ledger_entry& row) {
  const auto* const words = find_interest(node, row.number);
  const auto& counts = row.counts;
  json made = {{"kind", "subscription"},
               {"number", row.number},
               {"pattern", words ? words->pattern() : ""},
               {"type", words ? type_text(*words) : ""},
               {"when_full", words ? when_full_text(*words) : ""},
               {"expected", counts[column::expected]},
               {"delivered", counts[column::delivered]},
               {"queued", counts[column::queued]},
               {"bytes", counts[column::received_bytes]},
               {"sources", counts[column::sources]},
               {"copied", counts[column::copied]},
               {"lost", losses_of(row)},
               {"for_child", child_of(words)},
               {"from", json::array()}};
  for (const ledger_entry& source : node.ledger.entries) {
    if (source.kind != row_kind::source || source.number != row.number) continue;
    made["from"].push_back({{"node", name_of_peer(seen, source.peer, node.links)},
                            {"id", to_hex(source.peer.value)},
                            {"publisher", source.other},
                            {"sequence", source.counts[column::source_sequence]},
                            {"arrived", source.counts[column::source_arrived]},
                            {"lost", source.counts[column::source_lost]},
                            {"gone", source.counts[column::source_gone] != 0}});
  }
  return made;
}

json link_of(const census& seen, const node_report& node, const ledger_entry& row) {
  std::string state;
  std::string scheme;
  for (const wire::Link& link : node.links.links()) {
    if (link.peer() != row.peer.value) continue;
    state = link.state();
    for (const auto& one : link.candidates()) scheme = one.chosen() ? one.scheme() : scheme;
  }
  const auto& counts = row.counts;
  return {{"kind", "link"},
          {"to", name_of_peer(seen, row.peer, node.links)},
          {"id", to_hex(row.peer.value)},
          {"transport", scheme},
          {"state", state},
          {"taken", counts[column::link_taken]},
          {"full", counts[column::link_full]},
          {"bytes", counts[column::link_bytes]},
          {"copied", counts[column::link_copied]},
          {"wakeups", counts[column::link_wakeups]},
          {"fallen", counts[column::link_fallen]},
          {"unsettled", counts[column::link_unsettled]}};
}

json refusals_of(const ledger_entry& row) {
  json causes = json::object();
  for (std::size_t i = 0; i < refusal_count; ++i) {
    causes[std::string(name_of(static_cast<refusal>(i)))] = row.counts[column::refused_for + i];
  }
  const bool is_one = row.peer.value != refusal_book::others;
  return {{"kind", "refusals"},
          {"transport", scheme_of(row.other)},
          {"user", is_one ? json(row.peer.value) : json("others")},
          {"refused", causes}};
}

// What is passed on for a child that is locked in.
json relay_of(const ledger_entry& row) {
  const auto& counts = row.counts;
  return {{"kind", "relay"},
          {"pid", row.other},
          {"id", to_hex(row.peer.value)},
          {"restarts", row.number},
          {"out", counts[column::relay_out]},
          {"in", counts[column::relay_in]},
          {"refused_topics", counts[column::relay_refused_topics]},
          {"refused_patterns", counts[column::relay_refused_patterns]},
          {"refused_messages", counts[column::relay_refused_messages]}};
}

void tell_relay(const json& row, console& out) {
  out.line(fmt::format("  relay for its child, pid {}, started again {} times", row["pid"].dump(),
                       row["restarts"].dump()));
  out.line(fmt::format("    out {}, in {}, refused: topics {}, patterns {}, messages {}",
                       row["out"].dump(), row["in"].dump(), row["refused_topics"].dump(),
                       row["refused_patterns"].dump(), row["refused_messages"].dump()));
}

void tell_refusals(const json& row, console& out) {
  std::string text;
  for (const auto& [cause, count] : row["refused"].items()) {
    const auto times = count.get<std::uint64_t>();
    if (times != 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", cause, times);
  }
  const json& user = row["user"];
  out.line(fmt::format("  refused over {}, user {}", row["transport"].get<std::string>(),
                       user.is_string() ? user.get<std::string>() : user.dump()));
  out.line("    " + text);
}

// A row as words: numbers after their names, without those that are told elsewhere.
std::string line_of(const json& row) {
  std::string text;
  for (const auto& [key, value] : row.items()) {
    if (!value.is_number() || key == "number" || key == "bytes") continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", key, value.get<std::uint64_t>());
  }
  if (row.contains("bytes")) text += ", " + bytes_text(row["bytes"].get<double>());
  if (!row.contains("lost") || !row["lost"].is_object()) return text;
  std::string lost;
  std::uint64_t sum = 0;
  for (const auto& [cause, count] : row["lost"].items()) {
    const auto times = count.get<std::uint64_t>();
    sum += times;
    if (times != 0) lost += fmt::format("{}{} {}", lost.empty() ? "" : ", ", cause, times);
  }
  return text + fmt::format(", lost {}", sum) + (lost.empty() ? "" : " (" + lost + ')');
}

void tell_gates(const json& gates, console& out) {
  for (const json& one : gates) {
    const auto seconds = [&](const char* key) { return one[key].get<double>() / 1e9; };
    std::string now;
    if (one["blocked_ns"].get<std::int64_t>() != 0) {
      now = fmt::format(", blocked now, for {:.3f} s{}", seconds("blocked_ns"),
                        one["lapsed"].get<bool>() ? " and past its deadline" : "");
    }
    out.line(fmt::format(
        "    waits for {} subscription {}: {} times, {:.3f} s in all, missed {}, expired {}{}",
        one["node"].get<std::string>(), one["subscription"].dump(), one["waits"].dump(),
        seconds("waited_ns"), one["missed"].dump(), one["expired"].dump(), now));
  }
}

void tell(const json& row, console& out) {
  const std::string kind = row["kind"];
  if (kind == "refusals") return tell_refusals(row, out);
  if (kind == "relay") return tell_relay(row, out);
  std::string title = "  " + kind + ' ';
  if (kind == "link") {
    title += "to " + row["to"].get<std::string>() + "  " + row["transport"].get<std::string>() +
             ' ' + row["state"].get<std::string>();
  } else {
    title += row["number"].dump() + "  " +
             clean(row[kind == "publisher" ? "topic" : "pattern"].get<std::string>()) + "  " +
             row["type"].get<std::string>();
  }
  if (kind == "subscription") title += "  " + row["when_full"].get<std::string>();
  if (kind != "link" && !row["for_child"].is_null()) {
    title += "  for its child " + clean(row["for_child"]["name"].get<std::string>()) + ", pid " +
             row["for_child"]["pid"].dump();
  }
  out.line(title);
  out.line("    " + line_of(row));
  if (kind == "publisher") tell_gates(row["gates"], out);
  if (!row.contains("from")) return;
  for (const json& source : row["from"]) {
    out.line(fmt::format("    from {} publisher {}: sequence {}, arrived {}, lost {}{}",
                         source["node"].get<std::string>(), source["publisher"].dump(),
                         source["sequence"].dump(), source["arrived"].dump(), source["lost"].dump(),
                         source["gone"].get<bool>() ? ", gone" : ""));
  }
}

// The node's rows that the question is about; its links only if there are any.
json rows_of(const census& seen, const node_report& node, const selection& wanted) {
  json rows = json::array();
  for (const ledger_entry& row : node.ledger.entries) {
    if (row.kind == row_kind::publisher && wanted.takes(find_advertisement(node, row.number))) {
      rows.push_back(publisher_of(seen, node, row));
    }
    if (row.kind == row_kind::subscription && wanted.takes(find_interest(node, row.number))) {
      rows.push_back(subscription_of(seen, node, row));
    }
  }
  if (rows.empty() && !wanted.whole_nodes()) return rows;
  for (const ledger_entry& row : node.ledger.entries) {
    if (row.kind == row_kind::link) rows.push_back(link_of(seen, node, row));
    if (row.kind == row_kind::refusals) rows.push_back(refusals_of(row));
    if (row.kind == row_kind::relay && row.other != 0) rows.push_back(relay_of(row));
  }
  return rows;
}

// What a node on another machine has that the question is about, as its card says. Its books are
// where it is; ours of it are among the links and sources of our nodes.
json remote_rows(const remote_report& node, const selection& wanted) {
  json rows = json::array();
  for (const wire::Advertisement& words : node.card.advertisements()) {
    if (!wanted.takes(&words)) continue;
    rows.push_back({{"kind", "publisher"},
                    {"number", words.publisher()},
                    {"topic", words.topic()},
                    {"type", type_text(words)}});
  }
  for (const wire::Interest& words : node.card.interests()) {
    if (!wanted.takes(&words)) continue;
    rows.push_back({{"kind", "subscription"},
                    {"number", words.subscription()},
                    {"pattern", words.pattern()},
                    {"type", type_text(words)}});
  }
  return rows;
}

// True: there was something to tell.
bool tell_remotes(const census& seen, const selection& wanted, bool as_json, console& out) {
  bool told = false;
  for (const remote_report& node : seen.remotes) {
    const json rows = remote_rows(node, wanted);
    if (!wanted.takes(node.id, node.card) || (rows.empty() && !wanted.whole_nodes())) continue;
    told = true;
    const std::string place = place_text(node.card);
    const std::string life = node.speaks ? "speaks" : "hearsay";
    if (as_json) {
      const json words = {{"node", node.card.name()},
                          {"id", to_hex(node.id.value)},
                          {"pid", node.card.pid()},
                          {"life", life},
                          {"host", place},
                          {"error", ""},
                          {"books", rows}};
      out.line(words.dump(-1, ' ', false, json::error_handler_t::replace));
      continue;
    }
    out.line(out.bold(clean(node.card.name())) + fmt::format("  {}  at {}  {}, its books are there",
                                                             to_hex(node.id.value), place, life));
    for (const json& row : rows) {
      const std::string kind = row["kind"];
      const std::string name = row[kind == "publisher" ? "topic" : "pattern"];
      out.line(fmt::format("  {} {}  {}  {}", kind, row["number"].dump(), clean(name),
                           row["type"].get<std::string>()));
    }
  }
  return told;
}

exit_code info(const info_options& options) {
  const census seen = look(options);
  const selection wanted(seen, options.about);
  console out;
  bool told = false;
  for (const node_report& node : seen.nodes) {
    if (!wanted.takes(node.id, node.card)) continue;
    const json rows = rows_of(seen, node, wanted);
    if (rows.empty() && !wanted.whole_nodes()) continue;
    told = true;
    if (options.json) {
      const json words = {{"node", node.card.name()},
                          {"id", to_hex(node.id.value)},
                          {"pid", node.card.pid()},
                          {"life", life_text(node.life)},
                          {"host", "here"},
                          {"error", node.ledger_error ? node.ledger_error.message() : ""},
                          {"books", rows}};
      out.line(words.dump(-1, ' ', false, json::error_handler_t::replace));
      continue;
    }
    out.line(out.bold(name_text(node)) + fmt::format("  {}  pid {}  {}{}", to_hex(node.id.value),
                                                     node.card.pid(), life_text(node.life),
                                                     node.looks_stopped ? ", stopped" : ""));
    if (node.ledger_error) {
      out.line("  its books cannot be read: " + node.ledger_error.message());
    }
    for (const json& row : rows) tell(row, out);
  }
  told = tell_remotes(seen, wanted, options.json, out) || told;
  out.flush();
  if (told || options.about.empty()) return exit_code::done;
  throw failure(exit_code::not_so, "nobody has books about '" + options.about +
                                       "': `bus list` shows the topics, `bus list --nodes` the "
                                       "nodes, and `bus why " +
                                       options.about + "` what is missing");
}

}  // namespace

verb info_verb() {
  return {.name = "info",
          .summary = "The books: published, delivered, queued, and lost by cause",
          .example = "  bus info quakes/ak/ml\n  bus info seismograph --json",
          .declare = [](CLI::App& parser) {
            const auto options = std::make_shared<info_options>();
            parser.add_option("about", options->about, "A topic, a pattern, or a node");
            add_json(parser, *options);
            add_directory(parser, *options);
            return [options] { return info(*options); };
          }};
}

}  // namespace bus::tool
