// Types made at run time: JSON both ways, fields by path, and hostile schemas and payloads.
#include "bus/codec/codec.hpp"
#include "bus/codec/dynamic.hpp"
#include "schemas/demo/quake.pb.h"
#include "schemas/tests/shapes.pb.h"
#include "tests/unit/codec_tools.hpp"

#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <google/protobuf/any.pb.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/stubs/logging.h>

using codec_tools::bytes_of;
using codec_tools::dice;

namespace {

namespace pb = google::protobuf;

template <class T>
bus::dynamic_type dynamic() {
  auto made = bus::dynamic_type::from_schema(bus::codec<T>::type());
  REQUIRE(made);
  return *std::move(made);
}

tests::Shapes some_shapes() {
  tests::Shapes made;
  made.set_small(-5);
  made.set_large(std::numeric_limits<std::int64_t>::min());
  made.set_unsigned_large(std::numeric_limits<std::uint64_t>::max());
  made.set_zigzag(-9007199254740993);
  made.set_real(0.1);
  made.set_text("a \"quoted\" \n \xc3\xa4");
  made.set_blob(std::string("\0\xff\x10", 3));
  made.set_colour(tests::COLOUR_BLUE);
  made.mutable_inner()->set_name("one");
  made.mutable_inner()->mutable_below()->add_numbers(7);
  made.add_many()->set_name("first");
  made.add_many()->add_numbers(-1);
  made.add_colours(tests::COLOUR_RED);
  made.add_colours(static_cast<tests::Colour>(99));
  (*made.mutable_counts())["a.b"] = 1LL << 60;
  (*made.mutable_by_number())[-3].set_name("minus three");
  made.set_maybe(0);
  made.mutable_tree()->set_name("leaf");
  made.mutable_when()->set_seconds(1517966773);
  made.mutable_left()->mutable_base()->set_number(4);
  made.mutable_left()->mutable_base()->set_word("set");  // zeros shows defaults of proto2 as well
  made.mutable_anything()->PackFrom(made.inner());
  return made;
}

std::string json_of(const bus::dynamic_type& type, const pb::Message& message,
                    bus::dynamic_type::json_options how = {}) {
  const std::string bytes = message.SerializeAsString();
  const auto text = type.to_json(bytes_of(bytes), how);
  REQUIRE(text);
  return *text;
}

bus::type_info claim(const std::string& name, const pb::FileDescriptorSet& all) {
  return {.name = name, .encoding = bus::encoding::protobuf, .schema = all.SerializeAsString()};
}

// A schema of `count` messages, each with a field of the next one's type.
pb::FileDescriptorSet chain_of(int count) {
  pb::FileDescriptorSet all;
  auto* file = all.add_file();
  file->set_name("chain.proto");
  file->set_syntax("proto3");
  for (int i = 0; i < count; ++i) {
    auto* type = file->add_message_type();
    type->set_name("m" + std::to_string(i));
    auto* field = type->add_field();
    field->set_name("next");
    field->set_number(1);
    field->set_label(pb::FieldDescriptorProto::LABEL_OPTIONAL);
    field->set_type(pb::FieldDescriptorProto::TYPE_MESSAGE);
    field->set_type_name(".m" + std::to_string((i + 1) % count));
  }
  return all;
}

}  // namespace

TEST_CASE("JSON shows every shape with the schema's own names") {
  const auto type = dynamic<tests::Shapes>();
  const std::string text = json_of(type, some_shapes(), {.zeros = false});
  for (const char* part :
       {R"("small":-5)", R"("large":"-9223372036854775808")",
        R"("unsigned_large":"18446744073709551615")", R"("zigzag":"-9007199254740993")",
        R"("real":0.1)", R"("text":"a \"quoted\" \n ä")", R"("blob":"AP8Q")",
        R"("colour":"COLOUR_BLUE")", R"("inner":{"name":"one","below":{"numbers":[7]}})",
        R"("colours":["COLOUR_RED",99])", R"("counts":{"a.b":"1152921504606846976"})",
        R"("by_number":{"-3":{"name":"minus three"}})", R"("maybe":0)", R"("tree":{"name":"leaf"})",
        R"("when":"2018-02-07T01:26:13Z")",
        R"("anything":{"@type":"type.googleapis.com/tests.Shapes.Inner","name":"one")"}) {
    INFO(part << " in " << text);
    CHECK(text.find(part) != std::string::npos);
  }
}

TEST_CASE("JSON goes both ways without loss") {
  const auto type = dynamic<tests::Shapes>();
  const auto shapes = some_shapes();
  for (const bool indented : {false, true}) {
    for (const bool zeros : {false, true}) {
      const std::string text = json_of(type, shapes, {.indented = indented, .zeros = zeros});
      const auto bytes = type.from_json(text, nullptr);
      REQUIRE(bytes);
      tests::Shapes back;
      REQUIRE(back.ParseFromString(*bytes));
      CHECK(back.DebugString() == shapes.DebugString());
    }
  }
}

TEST_CASE("zeros are shown when wanted, and what is optional and unset never") {
  const auto type = dynamic<demo::Quake>();
  demo::Quake quake;
  CHECK(json_of(type, quake, {.zeros = false}) == "{}");
  const std::string text = json_of(type, quake);
  CHECK(text.find(R"("tsunami":false)") != std::string::npos);
  CHECK(text.find("magnitude\"") == std::string::npos);
  quake.set_magnitude(0);
  CHECK(json_of(type, quake, {.zeros = false}) == R"({"magnitude":0})");
}

TEST_CASE("JSON with both spellings of a name is read") {
  const auto type = dynamic<demo::Quake>();
  for (const char* text :
       {R"({"time_ms": "5", "magnitude": -1e0})", R"({"timeMs": 5, "magnitude": -1})"}) {
    const auto bytes = type.from_json(text, nullptr);
    REQUIRE(bytes);
    demo::Quake quake;
    REQUIRE(quake.ParseFromString(*bytes));
    CHECK(quake.time_ms() == 5);
    CHECK(quake.magnitude() == -1);
  }
}

TEST_CASE("bad JSON is refused with the name of the field") {
  const auto quake = dynamic<demo::Quake>();
  const auto shapes = dynamic<tests::Shapes>();
  const auto old = [] {
    auto claimed = bus::codec<tests::Shapes>::type();
    claimed.name = "tests.Required";
    claimed.hash = 0;
    auto made = bus::dynamic_type::from_schema(claimed);
    REQUIRE(made);
    return *std::move(made);
  }();
  struct {
    const bus::dynamic_type& type;
    const char* text;
    const char* named;
  } const cases[] = {
      {quake, R"({"magnitud": 1})", "magnitud"},
      {quake, R"({"magnitude": "big"})", "magnitude"},
      {quake, R"({"time_ms": 1.5})", "time_ms"},
      {quake, R"({"significance": -1})", "significance"},
      {quake, R"({"status": "STATUS_INVENTED"})", "status"},
      {quake, R"({"tsunami": "perhaps"})", "tsunami"},
      {quake, R"({"ids": [[1]]})", "ids"},
      {quake, R"({"id": )", ""},
      {quake, "", ""},
      {quake, "[]", ""},
      {shapes, R"({"inner": {"numbers": [1, "x"]}})", "inner.numbers[1]"},
      {shapes, R"({"blob": "*"})", "blob"},
      {shapes, R"({"small": 2147483648})", "small"},
      {shapes, R"({"when": "yesterday"})", "when"},
      {old, R"({"word": "w"})", "number"},
  };
  for (const auto& [type, text, named] : cases) {
    std::string why;
    const auto made = type.from_json(text, &why);
    INFO(text << " -> " << why);
    REQUIRE(made.error() == bus::errc::bad_message);
    CHECK_FALSE(why.empty());
    CHECK(why.find(named) != std::string::npos);
    CHECK(why.find("INVALID_ARGUMENT") == std::string::npos);
  }
}

TEST_CASE("deeply nested JSON is refused") {
  const auto type = dynamic<tests::Shapes>();
  std::string text;
  for (int i = 0; i < 100000; ++i) text += R"({"below":)";
  CHECK_FALSE(type.from_json(R"({"inner":)" + text, nullptr));
  CHECK_FALSE(type.from_json(std::string(1000000, '['), nullptr));
}

TEST_CASE("a path leads to one value") {
  const auto type = dynamic<tests::Shapes>();
  const std::string bytes = some_shapes().SerializeAsString();
  const std::pair<const char*, const char*> cases[] = {
      {"small", "-5"},
      {"large", "\"-9223372036854775808\""},
      {"unsigned_large", "\"18446744073709551615\""},
      {"fixed", "0"},
      {"real", "0.1"},
      {"yes", "false"},
      {"text", R"("a \"quoted\" \n ä")"},
      {"blob", "\"AP8Q\""},
      {"colour", "\"COLOUR_BLUE\""},
      {"colours", "[\"COLOUR_RED\",99]"},
      {"colours[1]", "99"},
      {"inner.name", "\"one\""},
      {"inner.below.numbers", "[7]"},
      {"inner.below.numbers[0]", "7"},
      {"inner.below.below", "null"},
      {"inner.below.below.below.name", "null"},
      {"many[1].numbers[0]", "-1"},
      {"counts[a.b]", "\"1152921504606846976\""},
      {"counts", R"({"a.b":"1152921504606846976"})"},
      {"by_number[-3].name", "\"minus three\""},
      {"maybe", "0"},
      {"word", "null"},
      {"tree.name", "\"leaf\""},
      {"when", "\"2018-02-07T01:26:13Z\""},
      {"when.seconds", "\"1517966773\""},
      {"left.base.word", "\"set\""},
      {"right.base", "null"},
  };
  for (const auto& [path, value] : cases) {
    INFO(path);
    const auto got = type.field(bytes_of(bytes), path);
    REQUIRE(got);
    CHECK(*got == value);
  }
  CHECK(type.field(bytes_of(bytes), "").value_or("") == json_of(type, some_shapes()));
}

TEST_CASE("a path that leads nowhere says how") {
  const auto type = dynamic<tests::Shapes>();
  const std::string bytes = some_shapes().SerializeAsString();
  for (const char* path : {"nobody", "inner.nobody", "many[2]", "many[99999]", "counts[x]",
                           "small.below", "text.size", "colours[0].name", "by_number[3]"}) {
    INFO(path);
    CHECK(type.field(bytes_of(bytes), path).error() == bus::errc::not_found);
  }
  for (const char* path :
       {".", "inner.", ".inner", "inner..name", "[0]", "many.name", "many[", "many[]", "many[-1]",
        "many[1", "many[0]x", "many[0].", "many[99999999999999999999]", "small[0]"}) {
    INFO(path);
    CHECK(type.field(bytes_of(bytes), path).error() == bus::errc::bad_name);
  }
  CHECK(type.field(bytes_of(bytes), std::string(2000, 'a')).error() == bus::errc::bad_name);
  CHECK(type.field(bytes_of("\x0a"), "small").error() == bus::errc::bad_message);
}

TEST_CASE("an attached topic shows its message and how much binary there is") {
  const auto type = dynamic<bus::attached<tests::Picture>>();
  const auto memory = bus::pool::make(codec_tools::pool_bytes_max);
  tests::Picture message;
  const std::string binary(1000, 'b');
  const auto shown = [&](bus::dynamic_type::json_options how) {
    const auto sample =
        codec_tools::encoded<bus::attached<tests::Picture>>(*memory, {message, bytes_of(binary)});
    const auto text = type.to_json(sample.payload(), how);
    REQUIRE(text);
    return *text;
  };
  CHECK(shown({.zeros = false}) == R"({"binary_bytes":1000})");
  CHECK(shown({.indented = true, .zeros = false}) == "{\n \"binary_bytes\": 1000\n}\n");
  message.set_name("front");
  CHECK(shown({.zeros = false}) == R"({"name":"front","binary_bytes":1000})");
  CHECK(shown({.indented = true, .zeros = false}) ==
        "{\n \"name\": \"front\",\n \"binary_bytes\": 1000\n}\n");

  const auto payload = type.from_json(R"({"name":"rear"})", nullptr);
  REQUIRE(payload);
  const auto parts = bus::attachment_open(bytes_of(*payload));
  REQUIRE(parts);
  CHECK(parts->binary.empty());
  CHECK(type.field(bytes_of(*payload), "name").value_or("") == "\"rear\"");
  CHECK(type.to_json(bytes_of("\x0a\x01x")).error() == bus::errc::bad_message);
}

TEST_CASE("a schema that cannot be is refused, with the reason's kind") {
  const auto& quake = bus::codec<demo::Quake>::type();
  const auto refused = [](const bus::type_info& claimed) {
    return bus::dynamic_type::from_schema(claimed).error();
  };
  CHECK(refused(
            {.name = "demo.Nobody", .encoding = bus::encoding::protobuf, .schema = quake.schema}) ==
        bus::errc::not_found);
  CHECK(refused({.name = "demo.Quake", .encoding = bus::encoding::protobuf}) ==
        bus::errc::not_found);
  CHECK(refused(bus::codec<bus::raw>::type()) == bus::errc::unsupported);
  CHECK(refused(bus::codec<int>::type()) == bus::errc::unsupported);
  CHECK(refused({.name = "demo.Quake",
                 .encoding = bus::encoding::protobuf,
                 .schema = std::string((1 << 20) + 1, '\0')}) == bus::errc::too_big);
  CHECK(refused({.name = "demo.NetworkSummary.ByTypeEntry",
                 .encoding = bus::encoding::protobuf,
                 .schema = quake.schema}) == bus::errc::bad_message);
}

TEST_CASE("imports that are missing, late, cyclic or double are refused") {
  pb::FileDescriptorSet good;
  REQUIRE(good.ParseFromString(bus::codec<tests::Shapes>::type().schema));
  REQUIRE(bus::dynamic_type::from_schema(claim("tests.Shapes", good)));
  const auto refused = [](const pb::FileDescriptorSet& all) {
    return bus::dynamic_type::from_schema(claim("tests.Shapes", all)).error() ==
           bus::errc::bad_message;
  };
  for (int i = 0; i + 1 < good.file_size(); ++i) {
    auto missing = good;
    missing.mutable_file()->DeleteSubrange(i, 1);
    CHECK(refused(missing));
    auto late = good;
    late.mutable_file()->SwapElements(i, good.file_size() - 1);
    CHECK(refused(late));
    auto cyclic = good;
    cyclic.mutable_file(i)->add_dependency("schemas/tests/shapes.proto");
    CHECK(refused(cyclic));
    auto of_itself = good;
    of_itself.mutable_file(i)->add_dependency(good.file(i).name());
    CHECK(refused(of_itself));
    auto twice = good;
    *twice.add_file() = good.file(i);
    twice.mutable_file(good.file_size())->set_package("other");
    CHECK(refused(twice));
  }
  auto same_name = good;
  auto* last = same_name.mutable_file(good.file_size() - 1);
  last->add_message_type()->set_name("Shapes");
  CHECK(refused(same_name));
}

TEST_CASE("a stranger's google.protobuf types must be ours") {
  pb::FileDescriptorSet all;
  REQUIRE(all.ParseFromString(bus::codec<tests::Shapes>::type().schema));
  for (auto& file : *all.mutable_file()) {
    if (file.name() == "google/protobuf/timestamp.proto")
      file.mutable_message_type(0)->mutable_field(0)->set_type(
          pb::FieldDescriptorProto::TYPE_STRING);
  }
  CHECK(bus::dynamic_type::from_schema(claim("tests.Shapes", all)).error() ==
        bus::errc::bad_message);
  pb::FileDescriptorSet forged;
  auto* file = forged.add_file();
  file->set_name("innocent.proto");
  file->set_package("google");
  file->add_message_type()->set_name("protobuf");
  file->mutable_message_type(0)->add_nested_type()->set_name("Struct");
  CHECK(bus::dynamic_type::from_schema(claim("google.protobuf.Struct", forged)).error() ==
        bus::errc::bad_message);
}

TEST_CASE("a map's entry that protoc would not have made is refused") {
  pb::FileDescriptorSet all;
  REQUIRE(all.ParseFromString(bus::codec<demo::NetworkSummary>::type().schema));
  auto* type = all.mutable_file(0)->mutable_message_type(0);
  REQUIRE(type->name() == "Quake");
  auto* entry = type->add_nested_type();
  entry->set_name("Forged");
  entry->mutable_options()->set_map_entry(true);
  CHECK(bus::dynamic_type::from_schema(claim("demo.Quake", all)).error() == bus::errc::bad_message);
}

TEST_CASE("long chains of types are built within the stack, longer ones refused") {
  // A thread's usual stack is 8 MiB; a musl or container default may be smaller.
  constexpr int most = bus::dynamic_type::types_max;
  CHECK(bus::dynamic_type::from_schema(claim("m0", chain_of(most))));
  CHECK(bus::dynamic_type::from_schema(claim("m0", chain_of(most + 1))).error() ==
        bus::errc::too_big);
  pb::FileDescriptorSet files;
  for (int i = 0; i <= bus::dynamic_type::files_max; ++i)
    files.add_file()->set_name(std::to_string(i));
  CHECK(bus::dynamic_type::from_schema(claim("m0", files)).error() == bus::errc::too_big);
}

TEST_CASE("a schema cut at any byte never becomes the same type") {
  const auto& whole = bus::codec<tests::Shapes>::type();
  for (std::size_t size = 0; size < whole.schema.size(); ++size) {
    auto cut = whole;
    cut.schema.resize(size);
    REQUIRE_FALSE(bus::dynamic_type::from_schema(cut));
  }
}

TEST_CASE("random damage to a schema is refused or gives a type that works") {
  const google::protobuf::LogSilencer quiet;
  const auto& whole = bus::codec<tests::Shapes>::type();
  const std::string payload = some_shapes().SerializeAsString();
  std::size_t made = 0;
  for (std::uint64_t seed = 0; seed < 5000; ++seed) {
    dice roll(seed);
    auto damaged = whole;
    damaged.hash = 0;
    for (std::uint64_t i = 1 + roll.below(3); i-- > 0;)
      damaged.schema[roll.below(damaged.schema.size())] = static_cast<char>(roll.below(128));
    INFO("seed " << seed);
    const auto type = bus::dynamic_type::from_schema(damaged);
    if (!type) continue;
    ++made;
    const auto text = type->to_json(bytes_of(payload));
    if (text) (void)type->from_json(*text, nullptr).error();
    (void)type->field(bytes_of(payload), "inner.below.numbers[0]").error();
  }
  CHECK(made > 50);
}

TEST_CASE("random payloads are shown or refused") {
  const google::protobuf::LogSilencer quiet;  // protobuf logs each text that is not UTF-8
  const auto type = dynamic<tests::Shapes>();
  const std::string good = some_shapes().SerializeAsString();
  std::size_t shown = 0;
  for (std::uint64_t seed = 0; seed < 20000; ++seed) {
    dice roll(seed);
    std::string bytes = good.substr(0, good.size() - (roll.below(4) == 0 ? roll.below(90) : 0));
    for (std::uint64_t i = roll.below(4); i-- > 0;)
      bytes[roll.below(bytes.size())] = static_cast<char>(roll.below(0x60));
    INFO("seed " << seed);
    if (type.to_json(bytes_of(bytes))) ++shown;
  }
  CHECK(shown > 200);
}

TEST_CASE("Any within Any is shown to a bounded depth and refused beyond it") {
  const auto type = dynamic<tests::Shapes>();
  const auto nested = [](int levels) {
    pb::Any any;
    any.PackFrom(tests::Picture());
    for (int i = 1; i < levels; ++i) {
      pb::Any outer;
      outer.PackFrom(any);
      any = std::move(outer);
    }
    tests::Shapes shapes;
    *shapes.mutable_anything() = std::move(any);
    return shapes.SerializeAsString();
  };
  constexpr int most = bus::dynamic_type::any_depth_max;
  CHECK(type.to_json(bytes_of(nested(1))));
  CHECK(type.to_json(bytes_of(nested(most))));
  CHECK(type.to_json(bytes_of(nested(most + 1))).error() == bus::errc::bad_message);
  CHECK(type.to_json(bytes_of(nested(2000))).error() == bus::errc::bad_message);
  tests::Shapes unknown;
  unknown.mutable_anything()->set_type_url("type.googleapis.com/who.Knows");
  CHECK(type.to_json(bytes_of(unknown.SerializeAsString())).error() == bus::errc::bad_message);
}

TEST_CASE("one dynamic type serves several threads") {
  const auto type = dynamic<tests::Shapes>();
  const std::string bytes = some_shapes().SerializeAsString();
  const std::string text = json_of(type, some_shapes());
  std::vector<std::thread> crowd;
  std::vector<int> wrong(4);
  for (std::size_t i = 0; i < wrong.size(); ++i) {
    crowd.emplace_back([&, i] {
      for (int round = 0; round < 50; ++round) {
        if (type.to_json(bytes_of(bytes)).value_or("") != text) ++wrong[i];
        if (!type.from_json(text, nullptr)) ++wrong[i];
        if (type.field(bytes_of(bytes), "small").value_or("") != "-5") ++wrong[i];
      }
    });
  }
  for (auto& one : crowd) one.join();
  for (const int count : wrong) CHECK(count == 0);
}
