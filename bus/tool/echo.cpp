// `bus echo`: what is published now, as JSON by the schema on the bus. A real subscriber: its books
// say what it missed.
#include "bus/tool/console.hpp"
#include "bus/tool/message.hpp"
#include "bus/tool/onlooker.hpp"
#include "bus/tool/session.hpp"
#include "bus/tool/verbs.hpp"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace bus::tool {
namespace {

using json = nlohmann::ordered_json;

struct echo_options : common_options {
  std::string pattern;
  bool once = false;
  std::uint64_t count = 0;
  double timeout_s = -1;
  std::vector<std::string> fields;
  std::vector<std::string> filters;
  bool raw = false;
  bool csv = false;
  bool no_meta = false;
  double block_for_s = 0;
};

std::string dump(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

// A cell of a CSV file, RFC 4180.
std::string cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

class echoer {
 public:
  echoer(const echo_options& options, core& inside)
      : options_(options), inside_(inside), reader_(inside.meeting_place()) {
    for (const std::string& text : options.filters) conditions_.emplace_back(text);
    wanted_ = options.once ? 1 : options.count;
  }

  void take(const received<raw>& message) {
    if (finished()) return;
    const auto [topic, type] = inside_.provenance_of(message.head());
    // Attached until this callback returns; a sample of nobody would not have come here.
    if (!topic) return;
    if (options_.raw) {
      const auto bytes = message.bytes();
      out_.write({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
      ++shown_;
      return;
    }
    auto seen = reader_.read(*type, message.bytes());
    if (!seen.trouble.empty() && told_.insert(seen.trouble).second) {
      std::fprintf(stderr, "bus: %s; its bytes are shown\n", clean(seen.trouble).c_str());
    }
    const bool all = std::all_of(conditions_.begin(), conditions_.end(),
                                 [&](const condition& one) { return one.holds(seen.value); });
    if (!all) return;
    ++shown_;
    if (options_.csv) {
      show_row(*topic, message.head(), seen.value);
    } else if (options_.json) {
      show_object(*topic, *type, message.head(), seen);
    } else {
      show_text(*topic, *type, message.head(), seen);
    }
  }

  [[nodiscard]] bool finished() const { return (wanted_ != 0 && shown_ >= wanted_) || broken(); }
  [[nodiscard]] bool broken() const { return out_.broken(); }
  [[nodiscard]] std::uint64_t shown() const { return shown_; }
  void flush() { out_.flush(); }

 private:
  // The whole message, one field alone, or an object of several.
  [[nodiscard]] json chosen(const json& message) const {
    if (options_.fields.empty()) return message;
    if (options_.fields.size() == 1) return value_at(message, options_.fields.front());
    json made = json::object();
    for (const std::string& field : options_.fields) made[field] = value_at(message, field);
    return made;
  }

  void show_object(const std::string& topic, const wire::Type& type, const frame& head,
                   const message_reader::shown& seen) {
    if (options_.no_meta) {
      out_.line(dump(chosen(seen.value), -1));
      return;
    }
    json line = {{"topic", topic},
                 {"node", to_hex(head.node)},
                 {"publisher", head.publisher},
                 {"sequence", head.sequence},
                 {"sent_ns", head.sent_ns},
                 {"type", type.name()},
                 {"bytes", head.bytes}};
    if (!seen.trouble.empty()) line["error"] = seen.trouble;
    line["message"] = chosen(seen.value);
    out_.line(dump(line, -1));
  }

  void show_text(const std::string& topic, const wire::Type& type, const frame& head,
                 const message_reader::shown& seen) {
    const json value = chosen(seen.value);
    std::string text = value.is_string() ? clean_lines(value.get<std::string>()) : dump(value, 2);
    // A line that came with its newline (bus run, bus pub) needs no second one.
    if (text.ends_with('\n')) text.pop_back();
    if (options_.no_meta) {
      out_.line(text);
      return;
    }
    const std::string meta =
        fmt::format("  #{}  {}  {}  {}", head.sequence, time_text(head.sent_ns),
                    type.name().empty() ? "raw" : clean(type.name()),
                    bytes_text(static_cast<double>(head.bytes)));
    out_.line(out_.bold(clean(topic)) + out_.dim(meta));
    out_.line(text);
  }

  void show_row(const std::string& topic, const frame& head, const json& message) {
    if (columns_.empty()) {
      columns_ = options_.fields;
      if (columns_.empty() && message.is_object()) {
        for (const auto& [name, ignored] : message.items()) columns_.push_back(name);
      }
      if (columns_.empty()) columns_.emplace_back("");
      std::string header = options_.no_meta ? "" : "topic,sequence,sent_ns,";
      for (const std::string& each : columns_) header += cell(each.empty() ? "value" : each) + ',';
      header.pop_back();
      out_.line(header);
    }
    std::string row =
        options_.no_meta ? "" : fmt::format("{},{},{},", cell(topic), head.sequence, head.sent_ns);
    for (const std::string& each : columns_) {
      const json value = value_at(message, each);
      row += (value.is_null() ? "" : cell(plain_text(value))) + ',';
    }
    row.pop_back();
    out_.line(row);
  }

  // Escape sequences are for terminals that somebody trusts; line ends and tabs stay.
  [[nodiscard]] static std::string clean_lines(const std::string& text) {
    return printable(text) ? text : clean(text);
  }

  const echo_options& options_;
  core& inside_;
  message_reader reader_;
  std::vector<condition> conditions_;
  std::vector<std::string> columns_;
  std::set<std::string> told_;
  console out_;
  std::uint64_t wanted_ = 0;
  std::uint64_t shown_ = 0;
};

exit_code echo(const echo_options& options) {
  if (static_cast<int>(options.raw) + static_cast<int>(options.csv) +
          static_cast<int>(options.json) >
      1) {
    throw failure(exit_code::usage, "take one of --raw, --csv and --json");
  }
  if (options.raw && !(options.fields.empty() && options.filters.empty())) {
    throw failure(exit_code::usage,
                  "--raw shows bytes as they are: leave out --field and --filter");
  }
  session joined("bus echo", options);
  echoer shower(options, joined.inside());
  subscription_options habits;
  if (options.block_for_s > 0) {
    habits.when_full = drop::none;
    habits.block_for = seconds(options.block_for_s);
  }
  const auto listening = joined.node().subscribe<raw>(
      options.pattern, [&](const received<raw>& message) { shower.take(message); }, habits);
  // `bus echo t | head` ends when head has, and not with the next message.
  bool is_unread = false;
  onlooker reader(joined.context(), STDOUT_FILENO, 0);
  if (reader.is_able()) reader.call([&is_unread] { is_unread = true; });
  const auto how = joined.run(options.timeout_s < 0 ? for_ever : seconds(options.timeout_s), [&] {
    shower.flush();
    return shower.finished() || is_unread;
  });
  shower.flush();
  const std::uint64_t lost = listening.accounts().lost_in_all();
  if (lost > 0) {
    std::fprintf(stderr, "bus: %llu samples were lost on the way; `bus info` says how\n",
                 static_cast<unsigned long long>(lost));
  }
  if (how != session::ending::timeout) return exit_code::done;
  const bool counted = options.once || options.count > 0;
  if (!counted && shower.shown() > 0) return exit_code::done;
  throw failure(
      exit_code::timeout,
      fmt::format("{} of {} messages of {} came in {} s; try: bus why '{}'", shower.shown(),
                  counted ? std::to_string(options.once ? 1 : options.count) : std::string("any"),
                  options.pattern, options.timeout_s, options.pattern));
}

}  // namespace

verb echo_verb() {
  return {.name = "echo",
          .summary = "Shows what is published, decoded by the schema on the bus",
          .example =
              "  bus echo 'quakes/**' --filter 'magnitude >= 5' --field place\n"
              "  bus echo quakes/ak/ml --once --json --timeout 10\n"
              "  bus echo --raw logs/build | less",
          .declare = [](CLI::App& parser) {
            const auto options = std::make_shared<echo_options>();
            parser.add_option("pattern", options->pattern, "A topic, or a pattern: * and **")
                ->required();
            parser.add_flag("--once", options->once, "Ends after one message");
            parser.add_option("--count", options->count, "Ends after so many messages");
            parser.add_option("--timeout", options->timeout_s,
                              "Ends after so many seconds; exit code 3 if messages are missing");
            parser
                .add_option("--field", options->fields, "Only this field: a.b[2]; may be repeated")
                ->allow_extra_args(false);
            parser
                .add_option("--filter", options->filters,
                            "Only messages for which this holds: 'magnitude >= 5'")
                ->allow_extra_args(false);
            parser.add_flag("--raw", options->raw, "The payload's bytes and nothing else");
            parser.add_flag("--csv", options->csv, "Comma-separated values, with a header");
            parser.add_flag("--no-meta", options->no_meta, "Without topic, sequence and time");
            parser
                .add_option("--block", options->block_for_s,
                            "Publishers that ask are to wait for it, up to so many seconds")
                ->check(check_above_zero, "ABOVE 0");
            add_json(parser, *options);
            add_directory(parser, *options);
            return [options] { return echo(*options); };
          }};
}

}  // namespace bus::tool
