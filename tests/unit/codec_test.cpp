// Each encoding there and back, from loans of a pool; and what a stranger may send instead.
#include "bus/codec/received.hpp"
#include "schemas/demo/quake.pb.h"
#include "schemas/tests/old.pb.h"
#include "schemas/tests/shapes.pb.h"
#include "tests/unit/codec_tools.hpp"

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <google/protobuf/stubs/logging.h>

using codec_tools::bytes_of;
using codec_tools::dice;
using codec_tools::encoded;
using codec_tools::sent;

namespace {

struct pose {
  double x, y, z;
  std::uint64_t stamp;
};
struct alignas(64) wide {
  std::array<float, 16> values;
};
struct alignas(128) too_wide {
  std::byte value;
};
struct with_virtual {
  virtual ~with_virtual() = default;
  int value = 0;
};
struct with_copy {
  with_copy(const with_copy&) {}
};
struct versioned {
  int value;
};

}  // namespace

template <>
inline constexpr std::string_view bus::plain_name<versioned> = "versioned/2";

static_assert(bus::message_type<bus::raw>);
static_assert(bus::message_type<pose> && bus::message_type<wide> && bus::message_type<int>);
static_assert(bus::message_type<std::array<int, 3>>);
static_assert(bus::message_type<demo::Quake> && bus::message_type<bus::attached<tests::Picture>>);
static_assert(!bus::message_type<std::string> && !bus::message_type<std::vector<int>>);
static_assert(!bus::message_type<int*> && !bus::message_type<const char*>);
static_assert(!bus::message_type<int[3]> && !bus::message_type<const int>);
static_assert(!bus::message_type<std::string_view> && !bus::message_type<std::span<int>>);
static_assert(!bus::message_type<with_virtual> && !bus::message_type<with_copy>);
static_assert(!bus::message_type<too_wide>);
static_assert(!bus::message_type<std::shared_ptr<int>> && !bus::message_type<std::nullptr_t>);
static_assert(!bus::message_type<google::protobuf::Message>);
static_assert(!bus::message_type<bus::attached<pose>>);
static_assert(bus::codec<bus::attached<tests::Picture>>::frame_flags ==
              bus::frame_flag::attachment);
static_assert(std::is_nothrow_move_constructible_v<bus::received<demo::Quake>>);
static_assert(!std::is_copy_constructible_v<bus::received<demo::Quake>>);

namespace {

demo::Quake some_quake() {
  demo::Quake quake;
  quake.set_id("ci37868143");
  quake.set_network("ci");
  quake.set_magnitude(-0.3);
  quake.set_place("4km W of Castaic, CA");
  quake.set_time_ms(1517966773840);
  quake.add_ids("ci37868143");
  quake.set_status(demo::Quake::STATUS_AUTOMATIC);
  return quake;
}

}  // namespace

TEST_CASE("raw bytes arrive as they are and match no type but raw") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  for (const std::string& text : {std::string(), std::string("abc"), std::string(100000, 'x')}) {
    auto sample = encoded<bus::raw>(*memory, bytes_of(text));
    const auto* const place = sample.payload().data();
    const auto got = bus::received<bus::raw>::from(std::move(sample), shelf);
    REQUIRE(got);
    CHECK(codec_tools::text_of(got->bytes()) == text);
    CHECK(got->bytes().data() == place);
    CHECK(got->head().sequence == 1);
  }
  CHECK(bus::codec<bus::raw>::type() == bus::type_info{.name = "raw"});
}

TEST_CASE("a raw subscriber reads any type's payload") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  const auto quake = some_quake();
  const auto got = bus::received<bus::raw>::from(encoded<demo::Quake>(*memory, quake), shelf);
  REQUIRE(got);
  CHECK(codec_tools::text_of(got->bytes()) == quake.SerializeAsString());
}

TEST_CASE("a plain struct is read in place") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  auto sample = encoded<pose>(*memory, {1, 2, 3, 42});
  const auto* const place = sample.payload().data();
  auto got = bus::received<pose>::from(std::move(sample), shelf);
  REQUIRE(got);
  CHECK(static_cast<const void*>(&**got) == place);
  CHECK((*got)->z == 3);
  CHECK((**got).stamp == 42);
  const bus::received<pose> moved = *std::move(got);
  CHECK(static_cast<const void*>(&*moved) == place);
  CHECK(moved.whole().unique());
}

TEST_CASE("a plain struct of another size, or misaligned, is refused") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  const std::array<std::byte, 2 * sizeof(wide)> bytes{};
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    const auto got = bus::received<wide>::from(sent(*memory, std::span(bytes).first(size)), shelf);
    CHECK(got.has_value() == (size == sizeof(wide)));
    if (!got) CHECK(got.error() == bus::errc::bad_message);
  }
  // A block whose payload lies one byte beside a multiple of 64, as in a network buffer.
  struct astray final : bus::lender {
    void take_back(bus::block&) noexcept override {}
  } home;
  alignas(64) std::array<std::byte, 256> buffer{};
  const bus::frame head{.bytes = sizeof(wide)};
  bus::block block;
  block.references = 1;
  block.home = &home;
  block.head = &head;
  block.payload = buffer.data() + 65;
  CHECK(bus::received<wide>::from(bus::sample(block), shelf).error() == bus::errc::bad_message);
}

TEST_CASE("a plain type is known by name, size and alignment") {
  CHECK(bus::codec<versioned>::type().name == "versioned/2");
  CHECK(bus::codec<versioned>::type().schema == "versioned/2 4 4");
  CHECK(bus::codec<versioned>::type().hash == bus::hash64("plain versioned/2 4 4"));
  CHECK(bus::plain_name<int> == "int");
  CHECK(bus::plain_name<bus::frame> == "bus::frame");
  CHECK(bus::plain_name<std::array<int, 3>>.find("array<int, 3") != std::string_view::npos);
  CHECK(bus::codec<std::uint32_t>::type().hash != bus::codec<float>::type().hash);
}

TEST_CASE("a protobuf message is encoded straight into the loan and nothing beside it") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  const auto quake = some_quake();
  const auto bytes = bus::codec<demo::Quake>::size(quake);
  REQUIRE(bytes);
  REQUIRE(*bytes == quake.ByteSizeLong());
  auto lent = memory->lend(*bytes);
  REQUIRE(lent);
  const std::span<std::byte> all = lent->bytes();
  REQUIRE(all.size() > *bytes);
  std::memset(all.data(), 0x5a, all.size());
  const auto* const place = all.data();
  bus::codec<demo::Quake>::encode(quake, all.first(*bytes));
  for (std::size_t i = *bytes; i < all.size(); ++i) REQUIRE(all[i] == std::byte{0x5a});
  const auto sample = std::move(*lent).commit({.bytes = *bytes});
  CHECK(sample.payload().data() == place);
  CHECK(codec_tools::text_of(sample.payload()) == quake.SerializeAsString());
}

TEST_CASE("a protobuf message arrives equal, and outlives its subscription") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  auto shelf = std::make_unique<bus::arena_shelf>();
  const auto quake = some_quake();
  auto got = bus::received<demo::Quake>::from(encoded<demo::Quake>(*memory, quake), *shelf);
  REQUIRE(got);
  shelf.reset();
  bus::received<demo::Quake> moved = *std::move(got);
  CHECK(moved->SerializeAsString() == quake.SerializeAsString());
  CHECK(moved->has_magnitude());
  CHECK_FALSE(moved->has_depth_km());
  std::thread([last = std::move(moved)] { CHECK((*last).id() == "ci37868143"); }).join();
}

TEST_CASE("arenas are used again, and each message stands alone") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  std::vector<bus::received<demo::Quake>> kept;
  for (int round = 0; round < 1000; ++round) {
    demo::Quake quake = some_quake();
    quake.set_id(std::to_string(round));
    quake.set_place(std::string(static_cast<std::size_t>(round) * 20, 'p'));
    auto got = bus::received<demo::Quake>::from(encoded<demo::Quake>(*memory, quake), shelf);
    REQUIRE(got);
    if (kept.size() == 8) kept.erase(kept.begin() + round % 8);
    kept.push_back(*std::move(got));
    for (const auto& one : kept) REQUIRE(one->place().size() == std::stoul(one->id()) * 20);
  }
}

TEST_CASE("a message is decoded where the one before was, and nothing of that one is left") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  const auto sample = encoded<demo::Quake>(*memory, some_quake());
  const auto place_of = [&](const bus::sample& from) {
    const auto got = bus::received<demo::Quake>::from(from, shelf);
    REQUIRE(got);
    return &**got;
  };
  const auto* const first = place_of(sample);
  CHECK(place_of(sample) == first);
  const auto empty = bus::received<demo::Quake>::from(sent(*memory, {}), shelf);
  REQUIRE(empty);
  CHECK(&**empty == first);
  CHECK((*empty)->ByteSizeLong() == 0);
  CHECK(place_of(sample) != first);  // which is held
}

TEST_CASE("a refused payload leaves nothing for the next message") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  const std::string bytes = some_quake().SerializeAsString();
  const std::string cut = bytes.substr(0, bytes.size() - 1) + "\xff";
  REQUIRE_FALSE(bus::received<demo::Quake>::from(sent(*memory, bytes_of(cut)), shelf));
  const auto got = bus::received<demo::Quake>::from(sent(*memory, {}), shelf);
  REQUIRE(got);
  CHECK((*got)->ByteSizeLong() == 0);
}

TEST_CASE("a shelf keeps no room of large payloads, and of small ones not for ever") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  const auto capacity_after = [&](std::size_t size, int times) {
    demo::Quake quake;
    quake.set_place(std::string(size, 'p'));
    const auto sample = encoded<demo::Quake>(*memory, quake);
    for (int i = 0; i < times; ++i) REQUIRE(bus::received<demo::Quake>::from(sample, shelf));
    const auto got = bus::received<demo::Quake>::from(sent(*memory, bytes_of("\x2a\x01p")), shelf);
    REQUIRE(got);
    REQUIRE((*got)->place() == "p");
    return (*got)->place().capacity();
  };
  CHECK(capacity_after(1 << 20, 1) < 100);
  CHECK(capacity_after(1000, 1) >= 1000);
  CHECK(capacity_after(100, bus::arena_shelf::uses_max) < 1000);
}

TEST_CASE("one shelf serves two types") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  for (int round = 0; round < 3; ++round) {
    const auto quake =
        bus::received<demo::Quake>::from(encoded<demo::Quake>(*memory, some_quake()), shelf);
    REQUIRE(quake);
    CHECK((*quake)->network() == "ci");
    const auto chain = bus::received<tests::Chain>::from(sent(*memory, {}), shelf);
    REQUIRE(chain);
    CHECK_FALSE((*chain)->has_next());
  }
}

TEST_CASE("messages end on other threads while more are decoded") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  const auto quake = some_quake();
  const auto sample = encoded<demo::Quake>(*memory, quake);
  for (int round = 0; round < 50; ++round) {
    std::vector<bus::received<demo::Quake>> batch;
    for (int i = 0; i < 16; ++i) {
      auto got = bus::received<demo::Quake>::from(sample, shelf);
      REQUIRE(got);
      batch.push_back(*std::move(got));
    }
    std::thread elsewhere([mine = std::move(batch)]() mutable { mine.clear(); });
    for (int i = 0; i < 64; ++i) {
      const auto got = bus::received<demo::Quake>::from(sample, shelf);
      REQUIRE(got);
      REQUIRE((*got)->id() == quake.id());
    }
    elsewhere.join();
  }
}

TEST_CASE("a message without its required fields is neither encoded nor decoded") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  CHECK(bus::codec<tests::Required>::size({}).error() == bus::errc::bad_message);
  CHECK(bus::received<tests::Required>::from(sent(*memory, {}), shelf).error() ==
        bus::errc::bad_message);
}

TEST_CASE("nesting is bounded to 100 levels") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  for (const int levels : {1, 99, 100, 101, 200, 100000}) {
    std::string bytes;
    for (int i = 0; i < levels; ++i) {
      // Field 1, and the length of what is inside, as a varint.
      std::string head = "\x0a";
      std::size_t size = bytes.size();
      for (; size >= 128; size >>= 7) head += static_cast<char>(size | 0x80);
      head += static_cast<char>(size);
      if (levels > 1000) {  // no need to be well-formed this deep
        bytes += head + "\x7f";
      } else {
        bytes.insert(0, head);
      }
    }
    const auto got = bus::received<tests::Chain>::from(sent(*memory, bytes_of(bytes)), shelf);
    INFO(levels);
    CHECK(got.has_value() == (levels <= 100));
  }
}

TEST_CASE("a truncated protobuf message is refused or is a shorter one, at every byte") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  const auto quake = some_quake();
  const std::string bytes = quake.SerializeAsString();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const auto got =
        bus::received<demo::Quake>::from(sent(*memory, bytes_of(bytes).first(size)), shelf);
    if (!got) {
      CHECK(got.error() == bus::errc::bad_message);
    } else {
      CHECK((*got)->SerializeAsString() != bytes);
    }
  }
}

TEST_CASE("declared lengths allocate nothing that is not there") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  // Texts, packed numbers and submessages of almost 2 GiB, in a dozen bytes.
  for (int field = 1; field <= 25; ++field) {
    std::string bytes;
    const unsigned tag = static_cast<unsigned>(field) << 3 | 2;
    if (tag >= 128) {
      bytes += static_cast<char>((tag & 0x7f) | 0x80);
      bytes += static_cast<char>(tag >> 7);
    } else {
      bytes += static_cast<char>(tag);
    }
    bytes += "\xf0\xff\xff\xff\x07 abc";
    CHECK_FALSE(bus::received<tests::Shapes>::from(sent(*memory, bytes_of(bytes)), shelf));
    CHECK_FALSE(bus::received<demo::Quake>::from(sent(*memory, bytes_of(bytes)), shelf));
  }
}

TEST_CASE("a hundred thousand random payloads are decoded or refused") {
  const google::protobuf::LogSilencer quiet;  // protobuf logs each text that is not UTF-8
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  const auto quake = some_quake();
  const std::string good = quake.SerializeAsString();
  std::size_t decoded = 0;
  for (std::uint64_t seed = 0; seed < 100000; ++seed) {
    dice roll(seed);
    std::string bytes = good.substr(0, roll.below(good.size() + 1));
    for (std::uint64_t i = roll.below(6); i-- > 0 && !bytes.empty();)
      bytes[roll.below(bytes.size())] = static_cast<char>(roll.below(0x60));
    const auto flags = static_cast<std::uint16_t>(roll.below(8) == 0 ? 2 : 0);
    const auto got = bus::received<demo::Quake>::from(sent(*memory, bytes_of(bytes), flags), shelf);
    if (!got) continue;
    ++decoded;
    INFO("seed " << seed);
    REQUIRE(flags == 0);
    const auto size = (*got)->ByteSizeLong();
    REQUIRE(size <= bytes.size() + 64);
  }
  CHECK(decoded > 1000);
  CHECK(decoded < 99000);
}
