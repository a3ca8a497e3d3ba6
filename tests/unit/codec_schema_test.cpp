// Schemas and hashes: what changes a type's identity and what does not.
#include "bus/codec/codec.hpp"
#include "bus/codec/dynamic.hpp"
#include "bus/codec/schema.hpp"
#include "schemas/demo/quake.pb.h"
#include "schemas/tests/shapes.pb.h"
#include "tests/unit/codec_tools.hpp"

#include <functional>
#include <set>
#include <string>

#include <google/protobuf/descriptor.pb.h>

namespace {

namespace pb = google::protobuf;

// The hash of `name` in a schema that `change` has edited.
std::uint64_t hash_after(const std::string& name, const std::string& schema,
                         const std::function<void(pb::FileDescriptorSet&)>& change) {
  pb::FileDescriptorSet all;
  REQUIRE(all.ParseFromString(schema));
  change(all);
  const auto made = bus::dynamic_type::from_schema(
      {.name = name, .encoding = bus::encoding::protobuf, .schema = all.SerializeAsString()});
  INFO(name << ": " << made.error().message());
  REQUIRE(made);
  return made->info().hash;
}

pb::FileDescriptorProto& last_file(pb::FileDescriptorSet& all) {
  return *all.mutable_file(all.file_size() - 1);
}

pb::DescriptorProto& message_named(pb::FileDescriptorSet& all, const std::string& name) {
  for (auto& message : *last_file(all).mutable_message_type()) {
    if (message.name() == name) return message;
  }
  FAIL(name);
  return *last_file(all).mutable_message_type(0);
}

}  // namespace

TEST_CASE("a hash is the same in every run") {
  CHECK(bus::canonical_text(*tests::Picture::descriptor(), bus::encoding::protobuf) ==
        "protobuf tests.Picture\n"
        "message tests.Picture proto3\n"
        "1 name implicit string\n"
        "2 width implicit uint32\n"
        "3 height implicit uint32\n");
  CHECK(bus::codec<tests::Picture>::type().hash ==
        bus::hash64("protobuf tests.Picture\nmessage tests.Picture proto3\n1 name implicit "
                    "string\n2 width implicit uint32\n3 height implicit uint32\n"));
  CHECK(bus::to_hex(bus::codec<tests::Picture>::type().hash) == "87331edefa8e01de");
}

TEST_CASE("the canonical text shows presence, choice, default, map and enum") {
  const std::string text =
      bus::canonical_text(*tests::Shapes::descriptor(), bus::encoding::attached);
  for (const char* line :
       {"attached tests.Shapes\n", "\n17 maybe optional int32\n",
        "\n18 word optional string oneof choice\n",
        "\n15 counts repeated message tests.Shapes.CountsEntry\n",
        "\nentry tests.Shapes.CountsEntry proto3\n1 key implicit string\n2 value implicit int64\n",
        "\nenum tests.Colour proto3\n-2 COLOUR_BLUE\n0 COLOUR_NONE\n1 COLOUR_RED\n",
        "\n2 word optional string default 4 none\n", "\n1 number required int32\n",
        "\nmessage google.protobuf.Timestamp proto3\n"}) {
    INFO(line);
    CHECK(text.find(line) != std::string::npos);
  }
  CHECK(text.find("Unrelated") == std::string::npos);
  CHECK(text.find("Picture") == std::string::npos);
}

TEST_CASE("a schema holds each file once and after its imports") {
  pb::FileDescriptorSet all;
  REQUIRE(all.ParseFromString(bus::codec<tests::Shapes>::type().schema));
  std::set<std::string> seen;
  for (const auto& file : all.file()) {
    for (const auto& import : file.dependency()) CHECK(seen.count(import) == 1);
    CHECK(seen.insert(file.name()).second);
    CHECK_FALSE(file.has_source_code_info());
  }
  CHECK(seen.size() == 6);
  CHECK(last_file(all).name() == "schemas/tests/shapes.proto");
  CHECK(bus::schema_of(*tests::Shapes::descriptor()) == bus::codec<tests::Shapes>::type().schema);
}

TEST_CASE("a type made from its schema has the hash of the generated class") {
  for (const auto& type :
       {bus::codec<demo::Quake>::type(), bus::codec<demo::NetworkSummary>::type(),
        bus::codec<tests::Shapes>::type(), bus::codec<bus::attached<tests::Picture>>::type()}) {
    const auto made = bus::dynamic_type::from_schema(type);
    INFO(type.name);
    REQUIRE(made);
    CHECK(made->info() == type);
    CHECK(type.hash != 0);
  }
}

TEST_CASE("any change of a field or value changes the hash") {
  const std::string schema = bus::codec<tests::Shapes>::type().schema;
  const std::string name = "tests.Shapes";
  using change = std::function<void(pb::FileDescriptorSet&)>;
  const auto shapes = [](pb::FileDescriptorSet& all) -> pb::DescriptorProto& {
    return message_named(all, "Shapes");
  };
  const change changes[] = {
      [](auto&) {},
      [&](auto& all) { shapes(all).mutable_field(0)->set_name("smaller"); },
      [&](auto& all) { shapes(all).mutable_field(0)->set_number(900); },
      [&](auto& all) {
        shapes(all).mutable_field(0)->set_type(pb::FieldDescriptorProto::TYPE_SINT32);
      },
      [&](auto& all) {
        shapes(all).mutable_field(0)->set_label(pb::FieldDescriptorProto::LABEL_REPEATED);
      },
      [&](auto& all) { shapes(all).mutable_field()->DeleteSubrange(0, 1); },
      [&](auto& all) { shapes(all).mutable_oneof_decl(0)->set_name("either"); },
      [&](auto& all) { shapes(all).mutable_field(17)->clear_oneof_index(); },
      [&](auto& all) { shapes(all).mutable_nested_type(0)->mutable_field(0)->set_name("title"); },
      [](auto& all) { last_file(all).mutable_enum_type(0)->mutable_value(1)->set_number(7); },
      [](auto& all) { last_file(all).mutable_enum_type(0)->mutable_value(1)->set_name("RUST"); },
      [](auto& all) {
        auto* file = all.mutable_file(0);
        for (auto& one : *all.mutable_file())
          if (one.name() == "schemas/tests/old.proto") file = &one;
        file->mutable_message_type(0)->mutable_field(1)->set_default_value("nothing");
      },
  };
  std::set<std::uint64_t> hashes;
  for (const auto& one : changes) CHECK(hashes.insert(hash_after(name, schema, one)).second);
}

TEST_CASE("what the type does not reach leaves its hash alone") {
  const auto& type = bus::codec<tests::Shapes>::type();
  const auto same = [&](const std::function<void(pb::FileDescriptorSet&)>& change) {
    CHECK(hash_after(type.name, type.schema, change) == type.hash);
  };
  same([](auto& all) { message_named(all, "Unrelated").mutable_field(0)->set_name("changed"); });
  same([](auto& all) { last_file(all).add_message_type()->set_name("Another"); });
  same([](auto& all) { last_file(all).set_name("elsewhere/shapes.proto"); });
  same([](auto& all) {
    message_named(all, "Shapes").mutable_field(0)->mutable_options()->set_deprecated(true);
  });
  same([](auto& all) { message_named(all, "Shapes").mutable_field()->SwapElements(0, 1); });
  same([](auto& all) { last_file(all).mutable_options()->set_java_package("org.example"); });
}

TEST_CASE("a schema with another hash than announced is refused") {
  auto type = bus::codec<demo::Quake>::type();
  type.hash ^= 1;
  CHECK(bus::dynamic_type::from_schema(type).error() == bus::errc::type_mismatch);
}
