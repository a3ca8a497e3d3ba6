// Somebody who speaks the handshake of shm, and lies: in its notes, its descriptors, its memory.
#pragma once

#include "tests/fault/shm_stage.hpp"
#include "transports/shm/handshake.hpp"
#include "transports/shm/lane_in.hpp"

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include <poll.h>
#include <unistd.h>

namespace fault {

using std::chrono_literals::operator""ms;
using contract::must;
using contract::party;
using contract::pump_until;
using transports::shared::cell_layout;
using transports::shared::cells_at;
using transports::shared::cells_for;
using transports::shared::doorway;
using transports::shared::entry_layout;
using transports::shared::hand_out;
using transports::shared::lane_bytes;
using transports::shared::lane_layout;
using transports::shared::layout_version;
using transports::shared::make_mark;
using transports::shared::make_memory;
using transports::shared::make_note;
using transports::shared::mapping;
using transports::shared::note;
using transports::shared::note_kind;
using transports::shared::receive_note;
using transports::shared::seal;
using transports::shared::send_note;

// A sender that writes its lane and arena with its own hands.
struct liar {
  static constexpr std::uint32_t depth = 64;
  static constexpr std::uint64_t arena_bytes = 1 << 20;  // declared; half of it is there

  explicit liar(const std::string& directory) : entrance(got(doorway::open(directory))) {
    arena_file = got(make_memory("liar-arena", arena_bytes / 2));
    arena = got(mapping::writable(arena_file.get(), arena_bytes));
    lane_file = got(make_memory("liar-lane", lane_bytes(depth)));
    lane = got(mapping::writable(lane_file.get(), lane_bytes(depth)));
    auto* head = reinterpret_cast<lane_layout*>(lane.at());
    head->magic = lane_layout::magic_value;
    head->version = layout_version;
    head->depth = depth;
    head->entry_bytes = sizeof(entry_layout);
    doorbell = got(bus::bell::make());
  }
  void seal_all() const {
    got(seal_one(arena_file, true));
    got(seal_one(lane_file, false));
  }
  static bus::result<bool> seal_one(const bus::fd& file, bool grows) {
    if (auto sealed = seal(file.get(), grows); !sealed) return bus::unexpected(sealed.error());
    return true;
  }
  [[nodiscard]] note hello() const {
    note made = make_note(note_kind::hello, id);
    made.head.arena_bytes = arena_bytes;
    made.head.depth = depth;
    made.add(got(hand_out(arena_file.get())));
    made.add(got(hand_out(lane_file.get())));
    made.add(got(doorbell->keys()));
    return made;
  }
  // Says hello to `to` and returns its answer.
  note meet(party& to, const note& first) {
    socket = got(entrance.connect(to.id));
    must(send_note(socket, first).has_value(), "hello");
    return answer(to);
  }
  // The same from another process than that of `whom`: waits for the answer itself.
  note meet(bus::node_id whom, const note& first) {
    socket = got(entrance.connect(whom));
    must(static_cast<bool>(socket), "its queue is full");
    must(send_note(socket, first).has_value(), "hello");
    return wait_for_note();
  }
  note wait_for_note() const {
    pollfd one{socket.get(), POLLIN, 0};
    while (::poll(&one, 1, contract::timeout_ms(bus::deadline::after(contract::patience))) < 0 &&
           errno == EINTR) {
    }
    return got(receive_note(socket));
  }
  note answer(party& to) const {
    note heard;
    must(pump_until({&to},
                    [&] {
                      auto came = receive_note(socket);
                      if (came) heard = std::move(*came);
                      return came || came.error() != bus::errc::timed_out;
                    },
                    {.look_every = 5ms}),
         "no answer");
    return heard;
  }
  void write(std::uint64_t number, std::uint64_t place, std::uint32_t credit) const {
    auto* entries = reinterpret_cast<entry_layout*>(lane.at() + lane_layout::entries_at);
    entry_layout& one = entries[number % depth];
    one.place.store(place);
    one.mark.store(make_mark(static_cast<std::uint32_t>(number / depth + 1), credit));
  }
  [[nodiscard]] cell_layout& cell(std::uint64_t number) const {
    auto* cells = reinterpret_cast<cell_layout*>(lane.at() + cells_at(depth));
    return cells[number % cells_for(depth)];
  }
  bus::frame& frame_at(std::uint64_t offset) const {
    return *reinterpret_cast<bus::frame*>(arena.at() + offset);
  }

  bus::node_id id = bus::node_id::random();
  doorway entrance;
  bus::fd arena_file;
  bus::fd lane_file;
  mapping arena;
  mapping lane;
  std::unique_ptr<bus::bell> doorbell;
  bus::fd socket;
};

// How often `by` has refused somebody of this process's user for that cause.
inline std::uint64_t counted(party& by, bus::refusal cause) {
  for (const auto& tally : by.inbox().refused()) {
    if (tally.user == ::geteuid()) return tally.counts[static_cast<std::size_t>(cause)];
  }
  return 0;
}

inline bus::errc refusal(const note& answer) {
  must(answer.head.kind == static_cast<std::uint16_t>(note_kind::farewell), "not refused");
  return static_cast<bus::errc>(answer.head.code);
}

}  // namespace fault
