#include "bus/node/census.hpp"

#include "bus/base/clock.hpp"
#include "bus/node/ledger_file.hpp"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <map>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>

namespace bus {
namespace {

// The third word of /proc/<pid>/stat, after a name in brackets that may hold anything.
bool process_is_stopped(std::uint32_t pid) {
  if (pid == 0) return false;
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  const std::size_t bracket = line.rfind(')');
  if (bracket == std::string::npos || bracket + 2 >= line.size()) return false;
  const char state = line[bracket + 2];
  return state == 'T' || state == 't';
}

node_report report_of(const rendezvous& place, node_id id) {
  node_report made;
  made.id = id;
  made.life = look_alive(place.directory(), id);
  if (auto card = place.read_whole_card(id)) {
    made.card = std::move(*card);
  } else {
    made.card_error = card.error();
  }
  if (auto links = place.read_links(id)) {
    made.links = std::move(*links);
  } else if (links.error() != errc::not_found) {
    made.links_error = links.error();
  }
  if (auto ledger = read_ledger(place.directory(), id)) {
    made.ledger = std::move(*ledger);
  } else {
    made.ledger_error = ledger.error();
  }
  if (made.life != liveness::dead) made.looks_stopped = process_is_stopped(made.card.pid());
  return made;
}

// Everybody's word of who is out there, as one list: who was told by the node itself knows best,
// and then whose card is the newest.
void gather_remotes(census& made) {
  std::map<node_id, remote_report> found;
  for (const node_report& node : made.nodes) {
    if (node.life == liveness::dead) continue;
    for (const wire::Remote& words : node.links.remotes()) {
      const node_id id{words.card().node()};
      if (made.find(id)) continue;
      remote_report& one = found[id];
      const bool better = words.speaks() != one.speaks
                              ? words.speaks()
                              : words.card().revision() >= one.card.revision();
      if (one.known_to.empty() || better) one.card = words.card();
      one.id = id;
      one.speaks = one.speaks || words.speaks();
      one.known_to.push_back(node.id);
    }
  }
  for (auto& [id, one] : found) made.remotes.push_back(std::move(one));
}

}  // namespace

liveness look_alive(int directory, node_id node) noexcept {
  const std::string name = to_hex(node.value) + ".ledger";
  const fd file(::openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) return errno == ENOENT ? liveness::dead : liveness::unknown;
  if (::flock(file.get(), LOCK_SH | LOCK_NB) == 0) return liveness::dead;
  return errno == EWOULDBLOCK ? liveness::alive : liveness::unknown;
}

census census_of(node_report own) {
  census made;
  made.nodes.push_back(std::move(own));
  gather_remotes(made);
  made.steady_ns = steady_ns();
  return made;
}

census take_census(const rendezvous& place) {
  census made;
  made.directory = place.path();
  std::vector<node_id> ids = place.nodes();
  std::sort(ids.begin(), ids.end());
  for (const node_id id : ids) {
    node_report one = report_of(place, id);
    // It left between the listing and the reading.
    if (one.card_error == errc::not_found) continue;
    made.nodes.push_back(std::move(one));
  }
  gather_remotes(made);
  made.steady_ns = steady_ns();
  return made;
}

}  // namespace bus
