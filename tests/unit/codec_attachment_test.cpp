// Attachments: the bytes of LAYOUT.md, the binary part in place, and hostile headers.
#include "bus/codec/attachment.hpp"
#include "bus/codec/received.hpp"
#include "schemas/tests/shapes.pb.h"
#include "tests/unit/codec_tools.hpp"

#include <string>
#include <vector>

#include <google/protobuf/stubs/logging.h>

using codec_tools::bytes_of;
using codec_tools::dice;
using codec_tools::encoded;
using codec_tools::sent;

using picture = bus::attached<tests::Picture>;

namespace {

constexpr std::uint16_t attachment = bus::frame_flag::attachment;

tests::Picture front() {
  tests::Picture made;
  made.set_name("front");
  made.set_width(640);
  return made;
}

std::string payload_of(const std::string& binary) {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  const auto sample = encoded<picture>(*memory, {front(), bytes_of(binary)});
  return codec_tools::text_of(sample.payload());
}

void put(std::string& payload, std::size_t offset, std::uint64_t value) {
  std::memcpy(payload.data() + offset, &value, sizeof value);
}

}  // namespace

TEST_CASE("the bytes of an attachment are those of LAYOUT.md") {
  tests::Picture message;
  message.set_name("a");
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  const auto sample = encoded<picture>(*memory, {message, bytes_of("xyz")});
  const std::string expected =
      std::string("busa\x01\0\0\0\x03\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0", 24) +
      std::string(40, '\0') + std::string("xyz\0\0\0\0\0", 8) +
      "\x0a\x01"
      "a";
  CHECK(codec_tools::text_of(sample.payload()) == expected);
}

TEST_CASE("an attachment arrives whole, with its binary part in place and aligned") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  for (const std::size_t size : {0UL, 1UL, 7UL, 8UL, 9UL, 63UL, 64UL, 65UL, 4096UL, 1UL << 20}) {
    const std::string binary(size, 'b');
    auto sample = encoded<picture>(*memory, {front(), bytes_of(binary)});
    const auto* const place = sample.payload().data();
    const auto got = bus::received<picture>::from(std::move(sample), shelf);
    REQUIRE(got);
    CHECK(got->message().name() == "front");
    CHECK(got->binary().data() == place + 64);
    CHECK(codec_tools::text_of(got->binary()) == binary);
    CHECK(reinterpret_cast<std::uintptr_t>(got->binary().data()) % bus::payload_align == 0);
  }
}

TEST_CASE("the binary part can be filled in lent memory before the message is known") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  const auto bytes =
      bus::attachment_loan::bytes_for({.binary_bytes = 100000, .message_bytes_max = 64});
  REQUIRE(bytes);
  auto lent = memory->lend(*bytes);
  REQUIRE(lent);
  auto draft = bus::attachment_loan::adopt(std::move(*lent), 100000);
  REQUIRE(draft);
  const auto binary = draft->binary();
  REQUIRE(binary.size() == 100000);
  std::memset(binary.data(), 7, binary.size());
  CHECK(draft->message_bytes_max() >= 64);
  auto sample = draft->commit(front(), {.sequence = 9});
  REQUIRE(sample);
  const auto got = bus::received<picture>::from(std::move(*sample), shelf);
  REQUIRE(got);
  CHECK(got->binary().data() == binary.data());
  CHECK(got->binary().back() == std::byte{7});
  CHECK(got->message().width() == 640);
  CHECK(got->head().sequence == 9);
  CHECK(got->bytes().size() == 64 + 100000 + front().ByteSizeLong());
}

TEST_CASE("a message too large for its loan is refused, and a smaller one still fits") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  auto lent = memory->lend(256);
  REQUIRE(lent);
  auto draft = bus::attachment_loan::adopt(std::move(*lent), 10);
  REQUIRE(draft);
  REQUIRE(draft->message_bytes_max() == 256 - 64 - 16);
  tests::Picture message;
  message.set_name(std::string(200, 'n'));
  CHECK(draft->commit(message, {}).error() == bus::errc::too_big);
  message.set_name(std::string(100, 'n'));
  CHECK(draft->commit(message, {}));
}

TEST_CASE("a loan too small for the binary part is refused and goes home") {
  const auto memory = bus::pool::make(256);
  for (const std::uint64_t binary_bytes : {193ULL, 1ULL << 40, ~0ULL, ~0ULL - 63, ~0ULL - 70}) {
    auto lent = memory->lend(256);
    REQUIRE(lent);
    CHECK(bus::attachment_loan::adopt(std::move(*lent), binary_bytes).error() ==
          bus::errc::too_big);
  }
  auto lent = memory->lend(256);
  REQUIRE(lent);
  CHECK(bus::attachment_loan::adopt(std::move(*lent), 192));
}

TEST_CASE("an attachment cut at any byte is refused") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  const std::string payload = payload_of(std::string(100, 'b'));
  for (std::size_t size = 0; size < payload.size(); ++size) {
    const auto got = bus::received<picture>::from(
        sent(*memory, bytes_of(payload).first(size), attachment), shelf);
    REQUIRE(got.error() == bus::errc::bad_message);
  }
  CHECK(bus::received<picture>::from(sent(*memory, bytes_of(payload), attachment), shelf));
  CHECK_FALSE(
      bus::received<picture>::from(sent(*memory, bytes_of(payload + '\0'), attachment), shelf));
}

TEST_CASE("no declared length is believed beyond what is there") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  const std::string good = payload_of("binary");
  const std::uint64_t sizes[] = {0,          1,          5,          7,          good.size(),
                                 1ULL << 31, 1ULL << 32, 1ULL << 61, 1ULL << 62, 1ULL << 63,
                                 ~0ULL,      ~0ULL - 6,  ~0ULL - 7,  ~0ULL - 63, ~0ULL - 71};
  for (const std::uint64_t binary_bytes : sizes) {
    for (const std::uint64_t message_bytes : sizes) {
      std::string payload = good;
      put(payload, 8, binary_bytes);
      put(payload, 16, message_bytes);
      const auto got =
          bus::received<picture>::from(sent(*memory, bytes_of(payload), attachment), shelf);
      REQUIRE(got.error() == bus::errc::bad_message);
    }
  }
}

TEST_CASE("magic, version, reserved words and padding are exactly what they must be") {
  const std::string good = payload_of("abc");
  REQUIRE(bus::attachment_open(bytes_of(good)));
  for (std::size_t at = 0; at < 64 + 8; ++at) {
    if (at >= 64 && at < 67) continue;  // the binary part itself
    std::string payload = good;
    payload[at] = static_cast<char>(payload[at] ^ 0x10);
    INFO(at);
    const bool is_version = at >= 4 && at < 8;
    CHECK(bus::attachment_open(bytes_of(payload)).error() ==
          (is_version ? bus::errc::incompatible : bus::errc::bad_message));
  }
}

TEST_CASE("an attached payload is no message, and a message no attachment") {
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  auto both = encoded<picture>(*memory, {front(), bytes_of("abc")});
  CHECK(bus::received<tests::Picture>::from(both, shelf).error() == bus::errc::bad_message);
  auto message = encoded<tests::Picture>(*memory, front());
  CHECK(bus::received<picture>::from(message, shelf).error() == bus::errc::bad_message);
  CHECK(bus::codec<picture>::type().hash != bus::codec<tests::Picture>::type().hash);
}

TEST_CASE("a hundred thousand random attachments are decoded or refused") {
  const google::protobuf::LogSilencer quiet;  // protobuf logs each text that is not UTF-8
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  bus::arena_shelf shelf;
  const std::string good = payload_of("some binary part");
  std::size_t decoded = 0;
  for (std::uint64_t seed = 0; seed < 100000; ++seed) {
    dice roll(seed);
    std::string payload = good;
    for (std::uint64_t i = roll.below(3); i-- > 0;)
      payload[roll.below(payload.size())] = static_cast<char>(roll.below(256));
    if (roll.below(4) == 0) payload.resize(roll.below(2 * good.size()));
    const auto sample = sent(*memory, bytes_of(payload), attachment);
    const auto got = bus::received<picture>::from(sample, shelf);
    if (!got) continue;
    ++decoded;
    INFO("seed " << seed);
    REQUIRE(got->binary().data() == sample.payload().data() + 64);
    REQUIRE(got->binary().size() + 64 <= sample.payload().size());
  }
  CHECK(decoded > 1000);
}
