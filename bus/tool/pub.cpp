// `bus pub`: publishes messages given as JSON, by the schema that somebody on the bus has left; or
// bytes as they are. Publishing once and leaving loses nothing: it waits for the subscribers that
// it can see, and lingers.
#include "bus/tool/framing.hpp"
#include "bus/tool/message.hpp"
#include "bus/tool/onlooker.hpp"
#include "bus/tool/outlet.hpp"
#include "bus/tool/session.hpp"
#include "bus/tool/verbs.hpp"
#include "bus/topic/pattern.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>

#include <sys/epoll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace bus::tool {
namespace {

struct pub_options : common_options {
  std::string topic;
  std::string message;
  bool has_message = false;
  std::string file;
  std::string type;
  bool raw = false;
  double rate_hz = 0;
  std::uint64_t times = 0;
  std::uint64_t matched = 0;
  double timeout_s = 10;
};

std::string hint_of(const wire::Type& type) { return type.name() + ':' + to_hex(type.hash()); }

// The types that cards name on this topic, or under this name; by hash.
std::map<std::uint64_t, wire::Type> types_known(core& inside, const pub_options& options) {
  std::map<std::uint64_t, wire::Type> found;
  const auto consider = [&](const wire::Type& type) {
    if (type.hash() == 0) return;
    if (options.type.empty() || options.type == type.name() || options.type == hint_of(type)) {
      found.emplace(type.hash(), type);
    }
  };
  for (const auto& [id, known] : inside.known().nodes()) {
    wire::Card card = known.card;
    // Those of a file that cannot be read name no type.
    if (known.local) static_cast<void>(inside.meeting_place().add_topics(card));
    for (const auto& words : card.advertisements()) {
      if (!options.type.empty() || words.topic() == options.topic) consider(words.type());
    }
    for (const auto& words : card.interests()) {
      if (!words.has_type()) continue;
      if (!options.type.empty() || matches(words.pattern(), options.topic)) consider(words.type());
    }
  }
  return found;
}

// The type to publish under; raw when nobody names one. Throws failure.
type_info choose_type(core& inside, const pub_options& options) {
  if (options.raw && options.type.empty()) return codec<raw>::type();
  const auto found = types_known(inside, options);
  if (found.size() > 1) {
    std::string all;
    for (const auto& [hash, type] : found) all += (all.empty() ? "" : ", ") + hint_of(type);
    throw failure(exit_code::not_so,
                  "there is more than one type to choose from; say which by "
                  "--type: " +
                      all);
  }
  if (found.empty() && options.type.empty()) return codec<raw>::type();
  if (found.empty()) {
    throw failure(exit_code::not_so,
                  "nobody on the bus names the type '" + options.type +
                      "': start a node that publishes or subscribes it, or send bytes with --raw");
  }
  auto complete = complete_type(inside.meeting_place(), found.begin()->second);
  if (!complete && options.raw) complete = type_info{.name = found.begin()->second.name()};
  if (!complete) {
    throw failure(exit_code::not_so, "the schema of " + found.begin()->second.name() +
                                         " is not on the bus: " + complete.error().message() +
                                         "; start a node that publishes it");
  }
  return std::move(*complete);
}

class publishing {
 public:
  publishing(const pub_options& options, session& joined)
      : options_(options), joined_(joined), type_(choose_type(joined.inside(), options)) {
    if (!options.raw && type_.encoding != encoding::raw) {
      auto made = dynamic_type::from_schema(type_);
      if (!made) {
        throw failure(exit_code::usage, type_.name + " cannot be made from JSON (" +
                                            made.error().message() +
                                            "): give its bytes with --raw");
      }
      dynamic_ = std::make_unique<dynamic_type>(std::move(*made));
    }
  }

  void open() {
    out_.emplace(joined_, outlet::manner{.topic = options_.topic, .type = type_});
    out_->wait_subscribers(options_.matched, options_.timeout_s);
  }

  // Throws failure (usage) when the text is not what the type says.
  [[nodiscard]] std::string encode(const std::string& text) const {
    if (!dynamic_) return text;
    std::string why;
    auto payload = dynamic_->from_json(text, &why);
    if (payload) return std::move(*payload);
    throw failure(exit_code::usage, "this is no " + type_.name + ": " + why +
                                        "; give the fields as JSON, for example " + example());
  }

  // Once there is room.
  void send(outlet::message bytes) {
    if (!out_->send_now(bytes)) joined_.finish(out_->send(bytes));
  }
  [[nodiscard]] bool is_raw() const { return !dynamic_; }
  [[nodiscard]] const type_info& type() const { return type_; }
  [[nodiscard]] std::uint64_t sent() const { return out_->sent(); }
  [[nodiscard]] std::uint64_t refused() const { return out_->missed(); }

 private:
  [[nodiscard]] std::string example() const {
    const auto all = dynamic_->to_json({}, {.indented = false, .zeros = true});
    return all ? *all : std::string("{}");
  }

  const pub_options& options_;
  session& joined_;
  type_info type_;
  std::unique_ptr<dynamic_type> dynamic_;
  std::optional<outlet> out_;
};

// Lines of standard input. While none is there the node goes on turning.
class lines_in {
 public:
  lines_in(session& joined, std::size_t longest)
      : joined_(joined),
        input_(joined.context(), STDIN_FILENO, EPOLLIN),
        cut_(framing_options{}, longest) {}

  // The next line with its newline, unless the last one has none; nothing at the end of the input
  // or when interrupted. Good until the next call.
  [[nodiscard]] std::optional<outlet::message> next() {
    for (;;) {
      if (auto line = cut_.next()) return line;
      if (over_) return cut_.rest();
      if (!fill()) return std::nullopt;
    }
  }

 private:
  bool fill() {
    if (input_.is_able()) {
      const auto ready = std::make_shared<bool>(false);
      input_.call([ready] { *ready = true; });
      if (joined_.run(for_ever, [&] { return *ready; }) != session::ending::done) return false;
    }
    const auto room = cut_.room();
    const ssize_t got = ::read(STDIN_FILENO, room.data(), room.size());
    cut_.filled(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    over_ = got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN);
    return true;
  }

  session& joined_;
  onlooker input_;
  cutter cut_;
  bool over_ = false;
};

std::string text_of(outlet::message bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.is_open() && !file.bad()) return bytes;
  throw failure(exit_code::not_so, "cannot read the file " + path + ": see that it is there");
}

// Waits for the next tick of -r; false when interrupted.
class metronome {
 public:
  metronome(session& joined, double rate_hz) : joined_(joined), rate_hz_(rate_hz) {}
  [[nodiscard]] bool wait() {
    if (joined_.interrupted()) return false;
    if (rate_hz_ <= 0 || ticks_++ == 0) return true;
    const double due_ns =
        static_cast<double>(begun_ns_) + 1e9 * static_cast<double>(ticks_ - 1) / rate_hz_;
    const double left_s = (due_ns - static_cast<double>(steady_ns())) / 1e9;
    return joined_.run(seconds(left_s), [] { return false; }) == session::ending::timeout;
  }

 private:
  session& joined_;
  double rate_hz_;
  std::uint64_t ticks_ = 0;
  std::int64_t begun_ns_ = steady_ns();
};

void publish_lines(publishing& out, session& joined, const pub_options& options) {
  // A message of a type is whole, however long its JSON is.
  lines_in input(joined, out.is_raw() ? piece_bytes_max : frame_bytes_max);
  metronome clock(joined, options.rate_hz);
  while (options.times == 0 || out.sent() < options.times) {
    if (!clock.wait()) return;
    auto line = input.next();
    if (!line) return;
    // What is nobody's type comes out as it went in; anything else is a message without its
    // newline.
    if (out.type().hash != 0 && !line->empty() && line->back() == std::byte{'\n'}) {
      line = line->first(line->size() - 1);
    }
    if (out.is_raw()) {
      out.send(*line);
    } else if (!line->empty()) {
      const std::string payload = out.encode(text_of(*line));
      out.send(std::as_bytes(std::span(payload)));
    }
  }
}

void publish_one(publishing& out, session& joined, const pub_options& options) {
  const std::string text = options.file.empty() ? options.message : read_file(options.file);
  const std::string payload = out.encode(text);
  const std::uint64_t times = options.times > 0     ? options.times
                              : options.rate_hz > 0 ? UINT64_MAX
                                                    : 1;
  metronome clock(joined, options.rate_hz);
  while (out.sent() < times && clock.wait()) out.send(std::as_bytes(std::span(payload)));
}

exit_code pub(const pub_options& options) {
  const bool lines = options.message == "-" || (!options.has_message && options.file.empty());
  if (lines && options.message != "-" && ::isatty(STDIN_FILENO) == 1) {
    throw failure(exit_code::usage,
                  "what shall be published? Give the message as JSON, a file by "
                  "--file, or lines by standard input");
  }
  session joined("bus pub", options);
  publishing out(options, joined);
  if (out.type().hash == 0 && !options.raw && !options.json) {
    std::fprintf(stderr, "bus: nobody names a type for %s: sent as raw bytes (--raw says so)\n",
                 options.topic.c_str());
  }
  // The message is wrong, or it is not, before anybody is kept waiting.
  if (!lines && options.file.empty()) static_cast<void>(out.encode(options.message));
  out.open();
  if (lines) {
    publish_lines(out, joined, options);
  } else {
    publish_one(out, joined, options);
  }
  if (options.json) {
    const nlohmann::ordered_json told = {{"topic", options.topic},
                                         {"type", out.type().name},
                                         {"published", out.sent()},
                                         {"refused", out.refused()}};
    std::printf("%s\n", told.dump().c_str());
  }
  if (out.refused() == 0) return exit_code::done;
  throw failure(exit_code::not_so,
                fmt::format("{} of {} messages were not taken by a slow subscriber; publish more "
                            "slowly (-r), and see: bus why '{}'",
                            out.refused(), out.sent(), options.topic));
}

}  // namespace

verb pub_verb() {
  return {.name = "pub",
          .summary = "Publishes a message given as JSON, or lines, or bytes",
          .example =
              "  bus pub quakes/ak/ml '{\"id\": \"ak1\", \"magnitude\": 5.1}'\n"
              "  bus pub -r 10 -t 100 -w 1 quakes/ak/ml '{}'\n"
              "  make 2>&1 | bus pub --raw logs/build",
          .declare = [](CLI::App& parser) {
            const auto options = std::make_shared<pub_options>();
            parser.add_option("topic", options->topic, "Where to")->required();
            auto* const message = parser.add_option(
                "message", options->message, "JSON; - or nothing: one for each line of input");
            parser.add_option("--type", options->type,
                              "A type that somebody on the bus names; else the topic's own");
            auto* const raw = parser.add_flag("--raw", options->raw, "Bytes as they are");
            parser.add_option("--file", options->file, "The message, or with --raw the bytes");
            parser.add_option("-r,--rate", options->rate_hz, "So many times a second")
                ->check(check_above_zero, "ABOVE 0");
            parser.add_option("-t,--times", options->times, "So many times in all");
            parser.add_option("-w,--wait", options->matched,
                              "Waits until so many subscribers are matched");
            parser
                .add_option("--timeout", options->timeout_s,
                            "How many seconds -w waits; then exit code 3")
                ->capture_default_str();
            add_json(parser, *options);
            add_directory(parser, *options);
            static_cast<void>(raw);
            return [options, message] {
              options->has_message = message->count() > 0;
              return pub(*options);
            };
          }};
}

}  // namespace bus::tool
