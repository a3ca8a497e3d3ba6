// The rules of names, from the side of what is refused; each refusal with its place.
#include "bus/topic/name.hpp"

#include <set>
#include <string>

#include <catch2/catch.hpp>

using bus::check_name;
using bus::check_pattern;
using bus::name_fault;
using bus::name_verdict;
using namespace std::string_literals;

namespace {

// `count` levels of one byte each.
std::string levels(std::size_t count) {
  std::string name = "a";
  for (std::size_t i = 1; i < count; ++i) name += "/a";
  return name;
}

void refused(const std::string& name, name_fault fault, std::size_t at) {
  CAPTURE(name);
  CHECK(check_name(name) == name_verdict{fault, at});
  CHECK(check_pattern(name) == name_verdict{fault, at});
}

}  // namespace

TEST_CASE("an empty name is refused") { refused("", name_fault::empty, 0); }

TEST_CASE("an empty level is refused at the start, inside and at the end") {
  refused("/", name_fault::empty_level, 0);
  refused("/a", name_fault::empty_level, 0);
  refused("a/", name_fault::empty_level, 2);
  refused("a//b", name_fault::empty_level, 2);
  refused("a/b///c", name_fault::empty_level, 4);
}

TEST_CASE("255 bytes are a name and 256 are not") {
  CHECK(check_name(std::string(255, 'x')));
  CHECK(check_pattern(std::string(255, 'x')));
  refused(std::string(256, 'x'), name_fault::too_long, 255);
  refused(std::string(100'000, '/'), name_fault::too_long, 255);
}

TEST_CASE("32 levels are a name and 33 are not") {
  CHECK(check_name(levels(32)));
  CHECK(check_pattern(levels(32)));
  refused(levels(33), name_fault::too_deep, 64);
}

TEST_CASE("control characters are refused: C0, DEL and C1") {
  for (int code = 0; code < 0x20; ++code) {
    refused("ab"s + static_cast<char>(code), name_fault::control_character, 2);
  }
  refused("a/\x7f", name_fault::control_character, 2);
  for (int code = 0x80; code <= 0x9f; ++code) {
    refused("a/\xc2"s + static_cast<char>(code), name_fault::control_character, 2);
  }
  refused("a\0b"s, name_fault::control_character, 1);
  CHECK(check_name("a\xc2\xa0z"));  // U+00A0, the first after C1
}

TEST_CASE("what is not well-formed UTF-8 is refused") {
  const std::string bad[] = {
      "\x80",              // a continuation that continues nothing
      "\xbf",              //
      "\xc0\x80",          // NUL, overlong
      "\xc0\xaf",          // '/', overlong
      "\xc1\xbf",          // overlong
      "\xe0\x80\xaf",      // '/', overlong in three bytes
      "\xe0\x9f\xbf",      // U+07FF, overlong
      "\xf0\x80\x80\xaf",  // '/', overlong in four bytes
      "\xf0\x8f\xbf\xbf",  // U+FFFF, overlong
      "\xed\xa0\x80",      // the first surrogate, U+D800
      "\xed\xbf\xbf",      // the last surrogate, U+DFFF
      "\xf4\x90\x80\x80",  // U+110000
      "\xf5\x80\x80\x80",  // beyond
      "\xfe",              // never a byte of UTF-8
      "\xff",              //
      "\xc3",              // cut off
      "\xe2\x82",          // cut off
      "\xf0\x9f\x8c",      // cut off
      "\xc3/",             // cut off by a level's end
      "\xe2\x82z",         //
  };
  for (const std::string& text : bad) refused("ab/" + text, name_fault::bad_utf8, 3);
}

TEST_CASE("well-formed UTF-8 is a name, up to the edges of each length") {
  for (const char* name :
       {"\xc2\xa0", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf",
        "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "erdbeben/köln/größe", "地震/東京", "🌋/🌊"}) {
    CAPTURE(name);
    CHECK(check_name(name));
    CHECK(check_pattern(name));
  }
}

TEST_CASE("a published name has no wildcard, anywhere") {
  CHECK(check_name("*") == name_verdict{name_fault::wildcard_in_name, 0});
  CHECK(check_name("a/**") == name_verdict{name_fault::wildcard_in_name, 2});
  CHECK(check_name("a/b*/c") == name_verdict{name_fault::wildcard_in_name, 3});
}

TEST_CASE("a wildcard is a whole level or it is refused") {
  for (const char* pattern : {"a/b*", "a/*b", "a/b*c", "a/***", "a/****", "a/* *", "a/**b/c"}) {
    CAPTURE(pattern);
    CHECK(check_pattern(pattern).fault == name_fault::wildcard_in_level);
  }
  CHECK(check_pattern("a/b*") == name_verdict{name_fault::wildcard_in_level, 3});
}

TEST_CASE("wildcards stand anywhere in a pattern, also several times") {
  for (const char* pattern : {"*", "**", "*/**", "**/*", "**/**", "*/a/*/b/**/c", "a/**/b/**"}) {
    CAPTURE(pattern);
    CHECK(check_pattern(pattern));
  }
}

TEST_CASE("other buses' wildcards, blanks and punctuation are plain bytes") {
  for (const char* name : {"a/#", "+/b", "a?", "a b", ".", "..", "a:b", "~", "$SYS/x", "\\"}) {
    CAPTURE(name);
    CHECK(check_name(name));
  }
}

TEST_CASE("every fault has a reason of its own, and no fault has none") {
  CHECK(bus::reason(name_fault::none).empty());
  std::set<std::string_view> reasons;
  for (int fault = 1; fault <= static_cast<int>(name_fault::wildcard_in_level); ++fault) {
    reasons.insert(bus::reason(static_cast<name_fault>(fault)));
  }
  CHECK(reasons.size() == 8);
  CHECK(reasons.count("") == 0);
}
