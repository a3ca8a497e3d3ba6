// LAYOUT.md in code: each offset, size and number that another process relies on.
#include "transports/shm/layout.hpp"

#include <array>
#include <cstring>

#include <catch2/catch.hpp>

using namespace transports::shared;

TEST_CASE("a lane's head and entries are where LAYOUT.md says") {
  REQUIRE(lane_layout::magic_value == 0x454e414c);
  REQUIRE(offsetof(lane_layout, magic) == 0);
  REQUIRE(offsetof(lane_layout, version) == 4);
  REQUIRE(offsetof(lane_layout, depth) == 8);
  REQUIRE(offsetof(lane_layout, entry_bytes) == 12);
  REQUIRE(offsetof(lane_layout, want_room) == 64);
  REQUIRE(lane_layout::entries_at == 128);
  REQUIRE(sizeof(entry_layout) == 16);
  REQUIRE(offsetof(entry_layout, place) == 0);
  REQUIRE(offsetof(entry_layout, mark) == 8);
}

TEST_CASE("the answers' head and bits are where LAYOUT.md says") {
  REQUIRE(answers_layout::magic_value == 0x52534e41);
  REQUIRE(offsetof(answers_layout, magic) == 0);
  REQUIRE(offsetof(answers_layout, version) == 4);
  REQUIRE(offsetof(answers_layout, depth) == 8);
  REQUIRE(offsetof(answers_layout, reserved) == 12);
  REQUIRE(offsetof(answers_layout, cells_read) == 16);
  REQUIRE(answers_layout::bits_at == 64);
}

TEST_CASE("a note is 64 bytes, with its fields where LAYOUT.md says") {
  REQUIRE(note_layout::magic_value == 0x4d48534f);
  REQUIRE(sizeof(note_layout) == 64);
  REQUIRE(offsetof(note_layout, magic) == 0);
  REQUIRE(offsetof(note_layout, protocol) == 4);
  REQUIRE(offsetof(note_layout, layout) == 6);
  REQUIRE(offsetof(note_layout, kind) == 8);
  REQUIRE(offsetof(note_layout, descriptors) == 10);
  REQUIRE(offsetof(note_layout, code) == 12);
  REQUIRE(offsetof(note_layout, node) == 16);
  REQUIRE(offsetof(note_layout, arena_bytes) == 24);
  REQUIRE(offsetof(note_layout, depth) == 32);
  REQUIRE(offsetof(note_layout, reserved) == 36);
}

TEST_CASE("the memories have the sizes of LAYOUT.md's table") {
  REQUIRE(cells_at(1) == 256);
  REQUIRE(cells_at(8) == 256);
  REQUIRE(cells_at(1024) == 16'512);
  REQUIRE(cells_for(64) == 64);
  REQUIRE(cells_for(1024) == 128);
  REQUIRE(lane_bytes(1) == 4096);
  REQUIRE(lane_bytes(256) == 24'576);
  REQUIRE(lane_bytes(1024) == 36'864);
  REQUIRE(lane_bytes(depth_max) == 1'069'056);
  REQUIRE(answers_bytes(1) == 4096);
  REQUIRE(answers_bytes(1024) == 4096);
  REQUIRE(answers_bytes(depth_max) == 12288);
}

TEST_CASE("LAYOUT.md's worked example is what the code writes") {
  entry_layout entry{};
  entry.place.store(join(0x4080, 3));
  entry.mark.store(make_mark(2, 5));
  constexpr std::array<unsigned char, 16> expected = {0x80, 0x40, 0, 0, 0, 3, 0, 0,
                                                      5,    0,    0, 0, 2, 0, 0, 0};
  REQUIRE(std::memcmp(&entry, expected.data(), expected.size()) == 0);
  REQUIRE(lap_of(entry.mark) == 2);
  REQUIRE(credit_of(entry.mark) == 5);
}

TEST_CASE("LAYOUT.md's worked example of a cell is what the code writes") {
  cell_layout cell{};
  cell.bytes = 3;
  cell.publisher = 2;
  cell.sequence = 7;
  std::memcpy(cell.payload, "abc", 3);
  cell.mark.store(join(9, 14));
  std::array<unsigned char, 128> expected{};
  expected[0] = 9;
  expected[5] = 14;
  expected[10] = 3;
  expected[12] = 2;
  expected[32] = 7;
  expected[56] = 'a';
  expected[57] = 'b';
  expected[58] = 'c';
  REQUIRE(std::memcmp(&cell, expected.data(), expected.size()) == 0);
  REQUIRE(value_of(cell.mark) == 9);
  REQUIRE(comes_after(cell.mark, 14));
  REQUIRE(comes_after(cell.mark, 14 + (1U << 24)));
  REQUIRE_FALSE(comes_after(cell.mark, 15));
}

TEST_CASE("a cell has each field where LAYOUT.md says") {
  REQUIRE(sizeof(cell_layout) == 128);
  REQUIRE(offsetof(cell_layout, mark) == 0);
  REQUIRE(offsetof(cell_layout, flags) == 8);
  REQUIRE(offsetof(cell_layout, bytes) == 10);
  REQUIRE(offsetof(cell_layout, publisher) == 12);
  REQUIRE(offsetof(cell_layout, topic_hash) == 16);
  REQUIRE(offsetof(cell_layout, type_hash) == 24);
  REQUIRE(offsetof(cell_layout, sequence) == 32);
  REQUIRE(offsetof(cell_layout, sent_ns) == 40);
  REQUIRE(offsetof(cell_layout, correlation) == 48);
  REQUIRE(offsetof(cell_layout, payload) == 56);
}
