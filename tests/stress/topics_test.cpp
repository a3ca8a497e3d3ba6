// One node with very many topics: what it takes to advertise, match and retire them grows with
// their number and no faster. Counted in steps and not in seconds, since machines are shared;
// tests/bench/topics.cpp prints the seconds, and the memory, for up to a million.
#include "bus/bus.hpp"
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

namespace {

bus::node_options options(const tests::scratch_directory& scratch, const std::string& name) {
  return {.name = name, .transports = {transports::shm()}, .directory = scratch.path()};
}

std::string topic(std::size_t i) {
  return "many/g" + std::to_string(i % 1000) + "/t" + std::to_string(i);
}

struct work {
  std::uint64_t talker = 0;
  std::uint64_t hearer = 0;
  std::uint64_t retired = 0;
};

// Steps to bring up `topics` publishers in one node and match all of them with another node, which
// has one pattern for all, or an exact one for each thousandth; and to retire them.
work steps_for(std::size_t topics, bool exact) {
  const tests::scratch_directory scratch;
  bus::node hearer(options(scratch, "hearer"));
  bus::node talker(options(scratch, "talker"));
  std::vector<bus::subscriber<bus::raw>> heard;
  const std::size_t patterns = exact ? 20 : 1;
  for (std::size_t i = 0; i < patterns; ++i) {
    heard.push_back(hearer.subscribe<bus::raw>(exact ? topic(i * (topics / patterns)) : "many/**"));
  }
  std::vector<bus::publisher<bus::raw>> sources;
  for (std::size_t i = 0; i < topics; ++i) sources.push_back(talker.advertise<bus::raw>(topic(i)));
  const auto until = bus::deadline::after(crew::patience);
  const std::size_t wanted = exact ? 1 : topics;
  const auto matched = [&](const bus::subscriber<bus::raw>& one) {
    return one.matched() == wanted;
  };
  while (!std::all_of(heard.begin(), heard.end(), matched)) {
    crew::must(!until.passed(), "the topics did not match in time");
    talker.run_for(std::chrono::microseconds(200));
    hearer.run_for(std::chrono::microseconds(200));
  }
  work done;
  done.talker = talker.inside().steps();
  done.hearer = hearer.inside().steps();
  // In the order of their making, and from the end: either way, none may look at all others.
  while (sources.size() > topics / 2) sources.pop_back();
  sources.clear();
  while (!std::all_of(heard.begin(), heard.end(),
                      [](const auto& one) { return one.matched() == 0; })) {
    crew::must(!until.passed(), "the topics did not end in time");
    talker.run_for(std::chrono::microseconds(200));
    hearer.run_for(std::chrono::microseconds(200));
  }
  done.retired = talker.inside().steps() + hearer.inside().steps() - done.talker - done.hearer;
  return done;
}

}  // namespace

TEST_CASE("twice as many topics in one node cost twice as many steps to match") {
  for (const bool exact : {false, true}) {
    INFO((exact ? "20 exact patterns" : "one pattern for all"));
    const work one = steps_for(5000, exact);
    const work two = steps_for(10'000, exact);
    std::printf(
        "| %s | 5,000 topics: %llu steps, %llu at the subscriber, %llu to retire | 10,000: "
        "%llu, %llu, %llu |\n",
        exact ? "exact" : "**", static_cast<unsigned long long>(one.talker),
        static_cast<unsigned long long>(one.hearer), static_cast<unsigned long long>(one.retired),
        static_cast<unsigned long long>(two.talker), static_cast<unsigned long long>(two.hearer),
        static_cast<unsigned long long>(two.retired));
    // A hundred for what is counted by time: links that are looked at while waiting.
    CHECK(two.talker <= 2 * one.talker + one.talker / 2 + 100);
    CHECK(two.hearer <= 2 * one.hearer + 100);
    CHECK(two.retired <= 2 * one.retired + one.retired / 2 + 100);
    // A few looks at each topic.
    CHECK(two.talker <= 10 * 10'000ULL);
    CHECK(two.hearer <= 10 * 10'000ULL);
  }
}
