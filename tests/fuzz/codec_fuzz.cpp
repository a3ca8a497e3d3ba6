// Payloads, schemas, JSON and paths from a stranger. The first byte says which; the input is never
// believed, and what is accepted holds the codec's promises.
#include "bus/codec/dynamic.hpp"
#include "bus/codec/received.hpp"
#include "bus/link/pool.hpp"
#include "schemas/demo/quake.pb.h"
#include "schemas/tests/shapes.pb.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include <google/protobuf/stubs/logging.h>

namespace {

using input = std::span<const std::byte>;

std::string_view text_of(input bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Cut in two, where a length of two bytes says.
struct halves {
  input first;
  input second;
};
halves cut(input bytes) {
  if (bytes.size() < 2) return {bytes, {}};
  std::uint16_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  bytes = bytes.subspan(2);
  const std::size_t first = length < bytes.size() ? length : bytes.size();
  return {bytes.first(first), bytes.subspan(first)};
}

template <class T>
void receive(input bytes, std::uint16_t flags) {
  static const auto memory = bus::pool::make(64 << 20);
  static bus::arena_shelf shelf;
  auto lent = memory->lend(bytes.size());
  BUS_CHECK(lent.has_value());
  if (!bytes.empty()) std::memcpy(lent->bytes().data(), bytes.data(), bytes.size());
  const auto got = bus::received<T>::from(
      std::move(*lent).commit({.flags = flags, .bytes = bytes.size()}), shelf);
  if constexpr (requires { got->binary(); }) {
    if (got) BUS_CHECK(got->binary().empty() || got->binary().data() == got->bytes().data() + 64);
  } else if constexpr (requires { (*got)->ByteSizeLong(); }) {
    if (got) BUS_CHECK(bus::codec<T>::size(**got).has_value());
  }
}

void use(const bus::dynamic_type& type, input payload, std::string_view path) {
  const auto text = type.to_json(payload, {.indented = true});
  if (text) (void)type.from_json(*text, nullptr).has_value();
  (void)type.field(payload, path).has_value();
}

template <class T>
const bus::dynamic_type& known() {
  static const auto made = bus::dynamic_type::from_schema(bus::codec<T>::type());
  return *made;
}

void with_schema(input bytes) {
  const auto [schema, payload] = cut(bytes);
  for (const char* name : {"tests.Shapes", "demo.Quake", "a.B", "m"}) {
    const auto type = bus::dynamic_type::from_schema({.name = name,
                                                      .encoding = bus::encoding::protobuf,
                                                      .schema = std::string(text_of(schema))});
    if (type) use(*type, payload, "inner.name");
  }
}

// A real schema with a few bytes replaced: {place, byte}, three bytes each.
void with_damaged_schema(input bytes) {
  auto claimed = bus::codec<tests::Shapes>::type();
  claimed.hash = 0;
  const auto [damage, payload] = cut(bytes);
  for (std::size_t i = 0; i + 3 <= damage.size(); i += 3) {
    std::uint16_t place = 0;
    std::memcpy(&place, damage.data() + i, sizeof place);
    claimed.schema[place % claimed.schema.size()] = static_cast<char>(damage[i + 2]);
  }
  if (const auto type = bus::dynamic_type::from_schema(claimed); type) {
    use(*type, payload, "inner.name");
  }
}

void from_json(input bytes) {
  std::string why;
  const auto payload = known<tests::Shapes>().from_json(text_of(bytes), &why);
  BUS_CHECK(payload.has_value() == why.empty());
  if (payload) {
    tests::Shapes shapes;
    BUS_CHECK(shapes.ParseFromString(*payload));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const google::protobuf::LogSilencer quiet;  // protobuf logs each text that is not UTF-8
  if (size == 0) return 0;
  const input bytes = std::as_bytes(std::span(data + 1, size - 1));
  switch (data[0] % 8) {
    case 0:
      receive<demo::Quake>(bytes, 0);
      break;
    case 1:
      receive<tests::Shapes>(bytes, 0);
      break;
    case 2:
      receive<bus::attached<tests::Picture>>(bytes, bus::frame_flag::attachment);
      break;
    case 3:
      use(known<bus::attached<tests::Picture>>(), bytes, "name");
      break;
    case 4: {
      const auto [path, payload] = cut(bytes);
      use(known<tests::Shapes>(), payload, text_of(path));
      break;
    }
    case 5:
      with_schema(bytes);
      break;
    case 6:
      with_damaged_schema(bytes);
      break;
    default:
      from_json(bytes);
      break;
  }
  return 0;
}
