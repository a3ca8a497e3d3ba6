#include "bus/tool/leftovers.hpp"

#include "bus/base/clock.hpp"
#include "bus/base/fd.hpp"
#include "bus/node/census.hpp"
#include "bus/node/ledger_file.hpp"
#include "bus/route/ledger.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bus::tool {
namespace {

// Whoever makes a file makes its next one within this; a guess with much room.
constexpr std::int64_t beginning_ns = 60'000'000'000;
constexpr std::size_t hex_digits = 16;
// Where a node without inotify has its pipe (bus/node/rendezvous.cpp).
const std::string waiting_room = "waiting/";
constexpr std::array<std::string_view, 5> node_suffixes = {".card", ".topics", ".links", ".ledger",
                                                           ".sock"};

std::vector<std::string> names_in(int directory, const char* folder) {
  std::vector<std::string> names;
  const int own = ::openat(directory, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (own < 0) return names;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(own), ::closedir);
  if (!stream) {
    ::close(own);
    return names;
  }
  while (const dirent* const entry = ::readdir(stream.get())) names.emplace_back(entry->d_name);
  std::sort(names.begin(), names.end());
  return names;
}

bool is_old(int directory, const std::string& path) {
  struct stat about {};
  if (::fstatat(directory, path.c_str(), &about, AT_SYMLINK_NOFOLLOW) != 0) return false;
  const std::int64_t changed_ns =
      std::int64_t{about.st_mtim.tv_sec} * 1'000'000'000 + about.st_mtim.tv_nsec;
  return wall_ns() - changed_ns > beginning_ns;
}

// The node in front of a file's name, and what follows it.
struct node_name {
  node_id node;
  std::string_view rest;
};
std::optional<node_name> split(std::string_view name) {
  if (name.size() <= hex_digits) return std::nullopt;
  const auto value = from_hex(name.substr(0, hex_digits));
  if (!value || *value == 0) return std::nullopt;
  return node_name{node_id{*value}, name.substr(hex_digits)};
}

bool is_draft(std::string_view rest) { return rest.find(".tmp") != std::string_view::npos; }

// A folder that was to become schemas/ or waiting/ (bus/node/modes.cpp).
bool is_folder_draft(std::string_view name) {
  return name.starts_with("schemas.tmp") || name.starts_with("waiting.tmp");
}

bool is_node_file(std::string_view rest) {
  return is_draft(rest) ||
         std::find(node_suffixes.begin(), node_suffixes.end(), rest) != node_suffixes.end();
}

// Whether the node is proved dead. The lock is asked for on the file that bears the name after it
// was had: one that was replaced meanwhile proves nothing.
bool is_dead(int directory, node_id node) {
  const std::string name = to_hex(node.value) + ".ledger";
  const fd file(::openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) return false;
  struct stat opened {};
  // An empty ledger is one that its node has not locked yet.
  if (::fstat(file.get(), &opened) != 0) return false;
  if (opened.st_size == 0 && !is_old(directory, name)) return false;
  if (::flock(file.get(), LOCK_SH | LOCK_NB) != 0) return false;
  struct stat named {};
  if (::fstatat(directory, name.c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0) return false;
  return named.st_ino == opened.st_ino && named.st_dev == opened.st_dev;
}

bool has_ledger(int directory, node_id node) {
  const std::string name = to_hex(node.value) + ".ledger";
  return ::faccessat(directory, name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

std::string display_name(const rendezvous& place, node_id node) {
  const auto card = place.read_card(node);
  return (card ? card->name() + " (" : std::string("(")) + to_hex(node.value) + ')';
}

// Whom the living hear, or heard without having read their last words: each with one who does.
std::map<node_id, node_id> hearers_of(int directory, const std::vector<node_id>& living) {
  std::map<node_id, node_id> hearers;
  for (const node_id node : living) {
    const auto books = read_ledger(directory, node);
    if (!books) continue;
    for (const ledger_entry& row : books->entries) {
      if (row.kind == row_kind::source) hearers.emplace(row.peer, node);
    }
  }
  return hearers;
}

// The hashes that a node's card names; nothing when it cannot be read.
bool add_hashes(const rendezvous& place, node_id node, std::set<std::uint64_t>& used) {
  const auto card = place.read_whole_card(node);
  if (!card) return card.error() == errc::not_found;
  for (const auto& words : card->advertisements()) used.insert(words.type().hash());
  for (const auto& words : card->interests()) used.insert(words.type().hash());
  return true;
}

void add_schemas(const rendezvous& place, const std::set<std::uint64_t>& used,
                 std::vector<leftover>& found) {
  for (const std::string& name : names_in(place.directory(), "schemas")) {
    const auto parts = split(name);
    const std::string path = "schemas/" + name;
    if (!parts || !is_old(place.directory(), path)) continue;
    if (is_draft(parts->rest)) {
      found.push_back({path, "a draft that nobody finished"});
    } else if (parts->rest == ".fds" && !used.contains(parts->node.value)) {
      found.push_back({path, "no node names this type"});
    }
  }
}

}  // namespace

std::vector<leftover> find_leftovers(const rendezvous& place) {
  const int directory = place.directory();
  const std::vector<std::string> names = names_in(directory, ".");
  std::vector<leftover> found;
  std::set<node_id> nodes;
  for (const std::string& name : names) {
    const auto parts = split(name);
    if (parts && is_node_file(parts->rest)) nodes.insert(parts->node);
  }
  std::set<std::uint64_t> used;
  bool all_cards_read = true;
  std::vector<node_id> living;
  std::map<node_id, bool> gone;  // and whether its ledger proves it
  for (const node_id node : nodes) {
    if (is_dead(directory, node)) {
      gone.emplace(node, true);
    } else if (!has_ledger(directory, node)) {
      gone.emplace(node, false);
    } else {
      living.push_back(node);
      all_cards_read = add_hashes(place, node, used) && all_cards_read;
    }
  }
  const auto hearers = gone.empty() ? std::map<node_id, node_id>() : hearers_of(directory, living);
  for (const auto& [node, dead] : gone) {
    std::string reason = dead ? "its node " + display_name(place, node) + " is dead"
                              : "its node's ledger is gone, and so is the node";
    const auto hearer = hearers.find(node);
    const bool is_awaited = dead && hearer != hearers.end();
    if (is_awaited) {
      reason += ", but " + display_name(place, hearer->second) + " has yet to read its last words";
    }
    std::string ledger;
    for (const std::string& name : names) {
      const auto parts = split(name);
      if (!parts || parts->node != node || !is_node_file(parts->rest)) continue;
      if (!dead && !is_old(directory, name)) continue;
      // The ledger is the proof, so it goes last.
      if (parts->rest == ".ledger") {
        ledger = name;
      } else {
        found.push_back({name, reason, is_awaited});
      }
    }
    const std::string pipe = waiting_room + to_hex(node.value);
    if (dead && ::faccessat(directory, pipe.c_str(), F_OK, 0) == 0) {
      found.push_back({pipe, reason, is_awaited});
    }
    if (!ledger.empty()) found.push_back({ledger, reason, is_awaited});
  }
  if (all_cards_read) add_schemas(place, used, found);
  for (const std::string& name : names) {
    if (is_folder_draft(name) && is_old(directory, name)) {
      found.push_back({name, "a draft that nobody finished"});
    }
  }
  return found;
}

result<void> remove_leftover(const rendezvous& place, const leftover& one) {
  const int directory = place.directory();
  const bool is_schema = one.path.starts_with("schemas/");
  if (is_schema && !is_old(directory, one.path)) return unexpected(errc::exists);
  const std::string name = one.path.substr(one.path.find('/') + 1);
  if (const auto parts = split(name); parts && !is_schema) {
    if (!is_dead(directory, parts->node) && has_ledger(directory, parts->node)) {
      return unexpected(errc::exists);
    }
  }
  const int how = is_folder_draft(one.path) ? AT_REMOVEDIR : 0;
  if (::unlinkat(directory, one.path.c_str(), how) != 0 && errno != ENOENT) {
    return unexpected(last_system_error());
  }
  return {};
}

}  // namespace bus::tool
