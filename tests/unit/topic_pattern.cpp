// One pattern and one name, two patterns, and a name with a typing error in it.
#include "bus/topic/name.hpp"
#include "bus/topic/nearest.hpp"
#include "bus/topic/pattern.hpp"
#include "tests/unit/topic_reference.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

using bus::common_patterns;
using bus::matches;
using bus::overlaps;
using namespace std::string_literals;

namespace {

std::string repeat(const std::string& part, std::size_t times) {
  std::string text;
  for (std::size_t i = 0; i < times; ++i) text += part;
  return text;
}

}  // namespace

TEST_CASE("a bad pattern or a bad name matches nothing and overlaps with nothing") {
  CHECK_FALSE(matches("**", ""));
  CHECK_FALSE(matches("**", "a//b"));
  CHECK_FALSE(matches("**", "a/*"));
  CHECK_FALSE(matches("a/*", "a/*"));
  CHECK_FALSE(matches("", "a"));
  CHECK_FALSE(matches("a*", "a*"));
  CHECK_FALSE(matches("a*", "ab"));
  CHECK_FALSE(overlaps("a*", "a*"));
  CHECK_FALSE(overlaps("**", "a/"));
}

TEST_CASE("a name matches itself and nothing shorter, longer or different") {
  CHECK(matches("a/b/c", "a/b/c"));
  CHECK_FALSE(matches("a/b/c", "a/b"));
  CHECK_FALSE(matches("a/b", "a/b/c"));
  CHECK_FALSE(matches("a/b/c", "a/b/d"));
  CHECK_FALSE(matches("a/b", "A/b"));
  CHECK_FALSE(matches("ab", "a/b"));
}

TEST_CASE("* is exactly one level") {
  CHECK(matches("*", "a"));
  CHECK(matches("a/*/c", "a/b/c"));
  CHECK_FALSE(matches("a/*/c", "a/c"));
  CHECK_FALSE(matches("a/*/c", "a/b/b/c"));
  CHECK_FALSE(matches("a/*", "a"));
  CHECK_FALSE(matches("*", "a/b"));
}

TEST_CASE("** is any number of levels, none included") {
  CHECK(matches("quakes/**", "quakes"));
  CHECK(matches("quakes/**", "quakes/ak/ml"));
  CHECK(matches("**/ml", "ml"));
  CHECK(matches("**/ml", "quakes/ak/ml"));
  CHECK(matches("a/**/z", "a/z"));
  CHECK(matches("a/**/z", "a/z/z/z"));
  CHECK(matches("**", "a"));
  CHECK_FALSE(matches("quakes/**", "quakesx"));
  CHECK_FALSE(matches("**/ml", "quakes/ml/ak"));
  CHECK_FALSE(matches("**/*/**/*", "a"));
  CHECK(matches("**/*/**/*", "a/b"));
}

TEST_CASE("many ** cost no more than few: 16 of them against 32 levels, in vain") {
  const std::string pattern = repeat("**/a/", 15) + "**/b";
  const std::string name = repeat("a/", 31) + "a";
  REQUIRE(bus::check_pattern(pattern));
  for (int i = 0; i < 10'000; ++i) REQUIRE_FALSE(matches(pattern, name));
}

TEST_CASE("matches agrees with the reference on random pairs") {
  const std::uint32_t seed = reference::seed();
  INFO("seed " << seed);
  reference::maker make(seed);
  std::size_t hits = 0;
  for (int i = 0; i < 200'000; ++i) {
    const std::string pattern = make.pattern(6);
    const std::string name = make.name(6);
    const bool expected = reference::matches(reference::split(pattern), reference::split(name));
    hits += expected ? 1 : 0;
    if (matches(pattern, name) == expected) continue;
    FAIL(pattern << " and " << name << ": the reference says " << expected);
  }
  CHECK(hits > 1'000);
}

TEST_CASE("patterns that no name satisfies together do not overlap") {
  CHECK_FALSE(overlaps("a", "b"));
  CHECK_FALSE(overlaps("*", "a/b"));
  CHECK_FALSE(overlaps("*/*", "*"));
  CHECK_FALSE(overlaps("a/**", "b/**"));
  CHECK_FALSE(overlaps("**/a", "**/b"));
  CHECK_FALSE(overlaps("a/**/*/b", "a/b"));
  CHECK(overlaps("a/**", "**/b"));
  CHECK(overlaps("**", "**"));
  CHECK(overlaps("*/b", "a/*"));
  CHECK(overlaps("a/**/z", "a/*/*/z"));
  CHECK(overlaps("a/**", "a"));
}

// Patterns of up to two and up to three levels: if they have a name in common, then they have one
// of at most five levels, and a third letter stands for every letter that is in neither.
TEST_CASE("overlaps agrees with trying every short name, and is symmetric") {
  std::vector<std::string> names;
  std::vector<std::string> last{""};
  for (int depth = 1; depth <= 5; ++depth) {
    std::vector<std::string> next;
    for (const std::string& start : last) {
      for (const char* word : {"a", "b", "c"})
        next.push_back(start + (start.empty() ? "" : "/") + word);
    }
    names.insert(names.end(), next.begin(), next.end());
    last = next;
  }
  const char* const words[] = {"a", "b", "*", "**"};
  const std::uint32_t seed = reference::seed();
  INFO("seed " << seed);
  reference::maker make(seed);
  const auto pattern = [&](std::size_t levels) {
    std::string text = words[make.below(4)];
    while (--levels > 0) text += "/"s + words[make.below(4)];
    return text;
  };
  for (int i = 0; i < 2'000; ++i) {
    const std::string left = pattern(1 + make.below(2));
    const std::string right = pattern(1 + make.below(3));
    bool expected = false;
    for (const std::string& name : names) {
      expected = expected || (matches(left, name) && matches(right, name));
    }
    CAPTURE(left, right);
    REQUIRE(overlaps(left, right) == expected);
    REQUIRE(overlaps(right, left) == expected);
  }
}

TEST_CASE("common patterns match what both match, and nothing else") {
  using patterns = std::vector<std::string>;
  CHECK(common_patterns("**", "a/**") == patterns{"a/**"});
  CHECK(common_patterns("a/*", "*/b") == patterns{"a/b"});
  CHECK(common_patterns("a/b", "a/**") == patterns{"a/b"});
  CHECK(common_patterns("a/**", "b/**") == patterns{});
  CHECK(common_patterns("**/a", "a/**") == patterns{"a", "a/**/a"});
  CHECK(common_patterns("a//b", "**") == patterns{});
  reference::maker make(reference::seed());
  std::size_t met = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string left = make.pattern(4);
    const std::string right = make.pattern(4);
    const auto common = common_patterns(left, right);
    REQUIRE(common);
    for (int j = 0; j < 20; ++j) {
      const std::string name = make.name(6);
      const bool by_both = matches(left, name) && matches(right, name);
      const bool by_common =
          std::any_of(common->begin(), common->end(),
                      [&](const std::string& pattern) { return matches(pattern, name); });
      INFO(left << "  " << right << "  " << name);
      REQUIRE(by_common == by_both);
      met += by_both ? 1 : 0;
    }
  }
  REQUIRE(met > 1000);
}

TEST_CASE("common patterns of many ** on both sides are too many, and that is soon known") {
  const std::string left = repeat("**/a/", 15) + "**";
  const std::string right = repeat("**/b/", 15) + "**";
  CHECK_FALSE(common_patterns(left, right));
}

TEST_CASE("what is far, equal or mostly different is no suggestion") {
  const std::vector<std::string> known{"quakes/ak/ml", "camera/front"};
  CHECK_FALSE(bus::nearest("quakes/ak/ml", std::vector<std::string>{"quakes/ak/ml"}));
  CHECK_FALSE(bus::nearest("nav/plan", known));
  CHECK_FALSE(bus::nearest("a", std::vector<std::string>{"b"}));
  CHECK_FALSE(bus::nearest("", known));
  CHECK_FALSE(bus::nearest("quakes/ak/ml", std::vector<std::string>{}));
  CHECK_FALSE(bus::nearest(std::string(300, 'x'), std::vector<std::string>{std::string(301, 'x')}));
}

TEST_CASE("a typing error finds the name that was meant") {
  const std::vector<std::string> known{"quakes/ak/mb", "quakes/ak/ml", "camera/front"};
  CHECK(bus::nearest("quaeks/ak/ml", known) == "quakes/ak/ml");
  CHECK(bus::nearest("quake/ak/mb", known) == "quakes/ak/mb");
  CHECK(bus::nearest("camera//front", known) == "camera/front");
  CHECK(bus::nearest("Camera/Front", known) == "camera/front");
}

TEST_CASE("edits are counted exactly up to the limit, and not beyond it") {
  CHECK(bus::edit_distance("", "", 0) == 0);
  CHECK(bus::edit_distance("", "abc", 3) == 3);
  CHECK(bus::edit_distance("abc", "", 2) == 3);
  CHECK(bus::edit_distance("abcd", "abdc", 9) == 1);
  CHECK(bus::edit_distance("kitten", "sitting", 9) == 3);
  CHECK(bus::edit_distance("kitten", "sitting", 2) == 3);
  CHECK(bus::edit_distance("kitten", "sitting", 1) == 2);
  CHECK(bus::edit_distance(std::string(255, 'a'), std::string(255, 'b'), 255) == 255);
  CHECK(bus::edit_distance(std::string(255, 'a'), std::string(255, 'b'), 3) == 4);
}

TEST_CASE("a limit changes no distance that is within it") {
  const std::uint32_t seed = reference::seed();
  INFO("seed " << seed);
  reference::maker make(seed);
  const auto word = [&] {
    std::string text;
    for (std::size_t left = make.below(9); left > 0; --left) text += "abc"[make.below(3)];
    return text;
  };
  for (int i = 0; i < 20'000; ++i) {
    const std::string left = word();
    const std::string right = word();
    const std::size_t distance = bus::edit_distance(left, right, 99);
    CAPTURE(left, right, distance);
    REQUIRE(bus::edit_distance(right, left, 99) == distance);
    REQUIRE(bus::edit_distance(left, right, distance) == distance);
    if (distance > 0) REQUIRE(bus::edit_distance(left, right, distance - 1) == distance);
  }
}
