// `bus pub`: publishes messages given as JSON, by the schema that somebody on the bus has left; or
// bytes as they are. Publishing once and leaving loses nothing: it waits for the subscribers that
// it can see, and lingers.
#include "bus/tool/message.hpp"
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
#include <set>

#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
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

// A subscriber that is there already is waited for this long when nobody said -w.
constexpr std::chrono::nanoseconds courtesy = std::chrono::seconds(2);
// How many samples may be on their way to a slow subscriber before publishing waits for it: half of
// the usual link's depth, so that none is refused.
constexpr std::size_t backlog_max = 512;

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
    for (const auto& words : known.card.advertisements()) {
      if (!options.type.empty() || words.topic() == options.topic) consider(words.type());
    }
    for (const auto& words : known.card.interests()) {
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

// How many peers will take what we publish, as far as their cards say.
std::size_t interested(core& inside, const std::string& topic, const wire::Type& type) {
  std::set<node_id> peers;
  inside.known().for_each_interested(topic, [&](node_id peer, const wire::Interest& interest) {
    if (types_agree(type, interest)) peers.insert(peer);
  });
  return peers.size();
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
    source_.emplace(joined_.node().advertise(options_.topic, type_));
    if (options_.matched > 0) {
      const auto how = joined_.run(seconds(options_.timeout_s),
                                   [&] { return source_->matched() >= options_.matched; });
      if (how != session::ending::timeout) return;
      throw failure(
          exit_code::timeout,
          fmt::format("{} of {} subscribers matched in {} s; try: bus why '{}'", source_->matched(),
                      options_.matched, options_.timeout_s, options_.topic));
    }
    wire::Type words;
    words.set_name(type_.name);
    words.set_hash(type_.hash);
    const std::size_t there = interested(joined_.inside(), options_.topic, words);
    const auto how = joined_.run(courtesy, [&] { return source_->matched() >= there; });
    if (how == session::ending::timeout) {
      std::fprintf(stderr, "bus: %zu of %zu subscribers do not answer; try: bus why '%s'\n",
                   there - source_->matched(), there, options_.topic.c_str());
    }
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

  // Once there is room, or a second has passed.
  void send(const std::string& payload) {
    make_room();
    const published outcome = source_->publish(std::as_bytes(std::span(payload)));
    if (outcome.error) {
      throw failure(exit_code::not_so,
                    "a message of " + std::to_string(payload.size()) +
                        " bytes cannot be published: " + outcome.error.message());
    }
    ++sent_;
    refused_ += outcome.links - outcome.taken;
  }

  [[nodiscard]] bool is_raw() const { return !dynamic_; }
  [[nodiscard]] const type_info& type() const { return type_; }
  [[nodiscard]] std::uint64_t sent() const { return sent_; }
  [[nodiscard]] std::uint64_t refused() const { return refused_; }

 private:
  [[nodiscard]] std::string example() const {
    const auto all = dynamic_->to_json({}, {.indented = false, .zeros = true});
    return all ? *all : std::string("{}");
  }

  // A peer lets go of samples without a word, unless a link is full; so the tool looks each
  // millisecond, and only while it is ahead.
  void make_room() {
    const auto has_room = [&] { return source_->backlog() < backlog_max && source_->has_room(); };
    for (int i = 0; i < 1000 && !has_room() && !joined_.interrupted(); ++i) {
      static_cast<void>(joined_.run(std::chrono::milliseconds(1), has_room));
    }
  }

  const pub_options& options_;
  session& joined_;
  type_info type_;
  std::unique_ptr<dynamic_type> dynamic_;
  std::optional<publisher<raw>> source_;
  std::uint64_t sent_ = 0;
  std::uint64_t refused_ = 0;
};

// Lines of standard input. While none is there the node goes on turning.
class lines_in {
 public:
  explicit lines_in(session& joined) : joined_(joined) {
    struct stat about {};
    // A file is always readable, and epoll refuses it.
    if (::fstat(STDIN_FILENO, &about) != 0 || S_ISREG(about.st_mode)) return;
    const int copy = ::dup(STDIN_FILENO);
    std::error_code refused;
    input_.emplace(joined.context());
    if (copy >= 0) input_->assign(copy, refused);
    if (copy < 0 || refused) input_.reset();
  }

  // The next line without its end; nothing at the end of the input or when interrupted.
  [[nodiscard]] std::optional<std::string> next() {
    for (;;) {
      const std::size_t end = have_.find('\n', looked_);
      if (end != std::string::npos) {
        std::string line = have_.substr(begin_, end - begin_);
        begin_ = looked_ = end + 1;
        return line;
      }
      looked_ = have_.size();
      if (over_) break;
      if (!fill()) return std::nullopt;
    }
    if (begin_ == have_.size()) return std::nullopt;
    return std::exchange(have_, {}).substr(std::exchange(begin_, 0));
  }

 private:
  bool fill() {
    if (input_) {
      const auto ready = std::make_shared<bool>(false);
      input_->async_wait(asio::posix::stream_descriptor::wait_read,
                         [ready](std::error_code) { *ready = true; });
      if (joined_.run(for_ever, [&] { return *ready; }) != session::ending::done) return false;
    }
    have_.erase(0, begin_);
    looked_ -= begin_;
    begin_ = 0;
    const std::size_t before = have_.size();
    have_.resize(before + block_bytes);
    const ssize_t got = ::read(STDIN_FILENO, have_.data() + before, block_bytes);
    have_.resize(before + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    over_ = got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN);
    return true;
  }

  static constexpr std::size_t block_bytes = 64UL * 1024;
  session& joined_;
  std::optional<asio::posix::stream_descriptor> input_;
  std::string have_;
  std::size_t begin_ = 0;
  std::size_t looked_ = 0;
  bool over_ = false;
};

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
  lines_in input(joined);
  metronome clock(joined, options.rate_hz);
  while (options.times == 0 || out.sent() < options.times) {
    if (!clock.wait()) return;
    const auto line = input.next();
    if (!line) return;
    // An empty line is a message of raw bytes, and none of JSON.
    if (line->empty() && !out.is_raw()) continue;
    out.send(out.encode(*line));
  }
}

void publish_one(publishing& out, session& joined, const pub_options& options) {
  const std::string text = options.file.empty() ? options.message : read_file(options.file);
  const std::string payload = out.encode(text);
  const std::uint64_t times = options.times > 0     ? options.times
                              : options.rate_hz > 0 ? UINT64_MAX
                                                    : 1;
  metronome clock(joined, options.rate_hz);
  while (out.sent() < times && clock.wait()) out.send(payload);
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
