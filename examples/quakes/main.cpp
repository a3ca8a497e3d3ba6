// The program behind examples/demo: the orchestra, and, started by it, each of its processes.
#include "examples/quakes/orchestra.hpp"
#include "examples/quakes/task.hpp"

#include <cstdio>
#include <exception>

#include <unistd.h>

#include <CLI/CLI.hpp>

namespace {

// How the orchestra talks to its processes; nothing for people.
void add_inner_options(CLI::App& app, demo::task& inner) {
  const auto hide = [](CLI::Option* option) { option->group(""); };
  hide(app.add_option("--as", inner.as));
  hide(app.add_option("--network", inner.network));
  hide(app.add_option("--root", inner.root));
  hide(app.add_option("--listen", inner.listen));
  hide(app.add_option("--peer", inner.peer));
  hide(app.add_option("--incarnation", inner.incarnation));
  hide(app.add_option("--start-ns", inner.start_ns));
  hide(app.add_option("--network-namespace", inner.network_namespace));
}

}  // namespace

int main(int count, char** words) {
  demo::wishes wanted;
  demo::task inner;
  bool loopback = false;
  bool plain = false;
  CLI::App app(
      "One week of earthquakes on the bus: one process for each seismic network replays its\n"
      "events, a detector raises alerts, an archive and a remote observer keep what they hear,\n"
      "some are killed on the way, and at the end every feature is accounted for (else the exit\n"
      "code is 1).",
      "examples/demo");
  wanted.data = DEMO_DATA;
  wanted.kills = {"nc@0.3", "detector@0.6"};
  app.add_option("--speed", wanted.speed, "Feed seconds per second; 0: as fast as possible")
      ->capture_default_str()
      ->check([](const std::string& text) -> std::string {
        const bool is_number = CLI::NonNegativeNumber(text).empty();
        return is_number ? "" : '\'' + text + "' is not a number of at least 0";
      });
  app.add_option("--kill", wanted.kills,
                 "Kill NAME[@SHARE] with SIGKILL after that share of the features: a network\n"
                 "(ci), detector, archive, observer, random, each (one of each kind) or none;\n"
                 "repeatable")
      ->capture_default_str();
  app.add_option("--data", wanted.data, "The feed, GeoJSON");
  app.add_option("--patience", wanted.patience_s, "Give up after so many seconds without progress")
      ->capture_default_str();
  app.add_flag("--loopback", loopback, "The observer over loopback TCP, without a namespace");
  app.add_flag("--plain", plain, "Lines instead of a live table, as without a terminal");
  add_inner_options(app, inner);
  try {
    app.parse(count, words);
  } catch (const CLI::ParseError& trouble) {
    if (trouble.get_exit_code() == 0) return app.exit(trouble);
    std::fprintf(stderr, "demo: %s; try: examples/demo --help\n", trouble.what());
    return 2;
  }
  if (!inner.as.empty()) {
    inner.speed = wanted.speed;
    inner.data = wanted.data;
    return demo::perform(inner);
  }
  wanted.try_namespace = !loopback;
  wanted.live = !plain && ::isatty(STDOUT_FILENO) == 1;
  try {
    return demo::orchestra(wanted).run();
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "demo: %s\n", failure.what());
    return 2;
  }
}
