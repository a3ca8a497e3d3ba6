// What tests with whole processes share: messages that prove themselves, books that travel from
// child to parent, and looks into the ledger files of nodes that live, stand still or are dead.
//
// The parent makes no node: it has one thread, so it may fork whenever it likes.
#pragma once

#include "bus/bus.hpp"
#include "bus/node/ledger_file.hpp"
#include "tests/fault/processes.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>

#include <fcntl.h>

namespace crew {

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;
using contract::must;

// Many processes share few cores: what takes longer than this counts as never.
inline constexpr std::chrono::seconds patience = 90s;

// Says which message it is and whose, and carries a hash of all that.
struct numbered {
  std::uint64_t sequence;
  std::uint64_t key;
  std::array<std::uint64_t, 5> filling;
  std::uint64_t hash;
};

inline std::uint64_t hash_of(const numbered& one) {
  std::uint64_t hash = 14695981039346656037ULL;
  const auto mix = [&](std::uint64_t word) { hash = (hash ^ word) * 1099511628211ULL; };
  mix(one.sequence);
  mix(one.key);
  for (const std::uint64_t word : one.filling) mix(word);
  return hash;
}

inline numbered make(std::uint64_t sequence, std::uint64_t key) {
  numbered one{.sequence = sequence, .key = key, .filling = {}, .hash = 0};
  for (std::size_t i = 0; i < one.filling.size(); ++i) one.filling[i] = sequence * (key + i);
  one.hash = hash_of(one);
  return one;
}

// Throws unless it is whole, from `key`, and newer than `last`; returns its sequence.
inline std::uint64_t check(const numbered& one, std::uint64_t key, std::uint64_t last) {
  must(one.hash == hash_of(one), "a torn message");
  must(one.key == key, "a foreign message");
  if (one.sequence <= last) {
    must(false, "message " + std::to_string(one.sequence) + " came after " + std::to_string(last));
  }
  return one.sequence;
}

inline void say(fault::channel& to, const bus::accounts& books) {
  to.say(books.expected);
  to.say(books.delivered);
  to.say(books.queued);
  for (const std::uint64_t each : books.lost) to.say(each);
}

inline bus::accounts hear_accounts(fault::channel& from) {
  bus::accounts books;
  books.expected = from.hear(patience);
  books.delivered = from.hear(patience);
  books.queued = from.hear(patience);
  for (std::uint64_t& each : books.lost) each = from.hear(patience);
  return books;
}

// The first row of a kind in somebody's ledger file; nothing when there is none.
inline std::optional<bus::ledger_entry> row_of(const std::string& directory, bus::node_id node,
                                               bus::row_kind kind) {
  const bus::fd opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto books = bus::read_ledger(opened.get(), node);
  if (!books) return std::nullopt;
  for (const bus::ledger_entry& row : books->entries) {
    if (row.kind == kind) return row;
  }
  return std::nullopt;
}

inline std::uint64_t published_by(const std::string& directory, bus::node_id node) {
  const auto row = row_of(directory, node, bus::row_kind::publisher);
  return row ? row->counts[bus::column::published] : 0;
}

// Looks every 2 ms until it holds, since other processes' files call nobody.
template <class Holds>
bool eventually(Holds&& holds, std::chrono::nanoseconds within = patience) {
  const auto until = bus::deadline::after(within);
  while (!holds()) {
    if (until.passed()) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

}  // namespace crew
