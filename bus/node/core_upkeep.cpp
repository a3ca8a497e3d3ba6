// What a node sees to in passing: its links, those who may be dead, its directory and its files.
#include "bus/node/core.hpp"
#include "bus/node/error.hpp"
#include "bus/node/gateway.hpp"

#include <algorithm>

namespace bus {
namespace {

// A node known over a network is forgotten after so many rounds in which no way led to it: with the
// pauses of peer_link about five seconds.
constexpr unsigned rounds_until_forgotten = 8;
// A hang-up is watched for the death behind it until the pause between two looks has grown to this:
// about half a minute, in 15 looks. The kernel mostly drops locks within microseconds of closing
// sockets; but between the two it may wait for all processors, on a starved machine for seconds (to
// close an inotify instance). Whoever has only hung up costs these looks. A guess.
constexpr std::int64_t suspicion_ns = 30'000'000'000;
// `rm -rf` removes a directory after what is in it, and fails if something new is there: it gets
// this long after a file of ours went. When mending fails, the next attempt comes later and later.
constexpr std::int64_t calm_ns = 50'000'000;
constexpr std::int64_t mend_pause_max_ns = 60'000'000'000;
// Who waits at a pipe is not told that the directory went, nor that it was closed to somebody. It
// looks after it had something to do, this often at the most; and this often for ever where other
// users may be linked: a wakeup of some 10 us.
constexpr std::int64_t look_pause_ns = 1'000'000'000;
constexpr std::size_t schemas_bytes_max = 64 << 20;

}  // namespace

// Steps every link that has something to do, and drops those that have nothing left to do.
void core::tend() {
  const std::int64_t now = steady_ns();
  mend_directory(now);  // first: a link that is cut there learns of it here
  restless_ = false;
  std::vector<node_id> finished;
  std::vector<node_id> lost;
  for (auto& [peer, link] : links_) {
    links_file_.dirty = link->step(now) || links_file_.dirty;
    if (link->take_doubt()) suspects_[peer] = {.left = suspects_[peer].left};
    const known_node* const known = directory_.find(peer);
    const bool network = known && known->is_remote();
    // Whoever was met over a network is called again, so that we learn whether it is still there.
    if (network && !leaving_ && !link->open() && !link->restless()) {
      link->introduce(introduction(!link->over_network()));
    }
    if (!network && link->useless()) finished.push_back(peer);
    if (network && link->failures() >= rounds_until_forgotten) lost.push_back(peer);
    restless_ = restless_ || link->restless();
  }
  for (const auto& one : calls_) {
    if (!one.link->open() && !one.link->restless()) {
      one.link->introduce(introduction(one.is_once));
    }
    links_file_.dirty = one.link->step(now) || links_file_.dirty;
    restless_ = restless_ || one.link->restless();
  }
  std::erase_if(calls_, [this](const phone_call& one) {
    const bool is_over = one.is_once && one.link->failures() > 0;
    if (is_over) ledger_->release(one.link->row());
    return is_over;
  });
  if (!retired_rows_.empty() && !owes_farewells()) {
    for (ledger_row* const row : retired_rows_) ledger_->release(*row);
    retired_rows_.clear();
  }
  for (const node_id peer : finished) drop_link(peer);
  for (const node_id peer : lost) forget(peer, grave_of_lost_ns);
  check_suspects(now);
  if (!leaving_) flush_files();
  set_timer();
}

// Who hung up: is it dead? Then its last words are charged, and it is forgotten.
void core::check_suspects(std::int64_t now) {
  for (auto at = suspects_.begin(); at != suspects_.end();) {
    auto& [peer, look] = *at;
    if (now < look.look_at_ns) {
      ++at;
      continue;
    }
    if (look.left) {
      const bool speaks = reception_->hears(peer);  // and we hear of its end
      if (!speaks) bury(peer);
      look.look_at_ns = INT64_MAX;
      at = speaks ? std::next(at) : suspects_.erase(at);
      continue;
    }
    const known_node* const known = directory_.find(peer);
    const bool local = known && known->local && peer != id_;
    if (local && reception_->hears(peer)) {
      // What it had sent is not read yet. Its way in will end, and then it is a suspect again.
      at = suspects_.erase(at);
      continue;
    }
    // While it speaks, some of what it said is not read yet, such as who it is; as above.
    const bool is_silent = !reception_->hears(peer) && !(known && known->speaks);
    const bool is_kin = !local && is_silent && books_of(peer);
    if (is_kin || (local && !is_alive(rendezvous_->directory(), peer))) {
      bury(peer);
      forget_books(peer);
      forget(peer, grave_of_dead_ns);
      at = suspects_.erase(at);
      continue;
    }
    look.look_at_ns = now + look.pause_ns;
    look.pause_ns *= 2;
    at = !local || look.pause_ns > suspicion_ns ? suspects_.erase(at) : std::next(at);
  }
}

// Charges what it had published and nobody gave us, as its ledger says, and forgets it.
void core::bury(node_id dead) {
  auto books = read_ledger(rendezvous_->directory(), dead);
  if (!books) books = books_of(dead);
  std::unordered_map<std::uint32_t, std::uint64_t> published;
  for (const ledger_entry& row : books ? books->entries : std::vector<ledger_entry>()) {
    if (row.kind == row_kind::publisher) published[row.number] = row.counts[column::published];
  }
  reception_->bury(dead, [&](std::uint32_t publisher) -> std::optional<std::uint64_t> {
    const auto at = published.find(publisher);
    if (at == published.end()) return std::nullopt;
    return at->second;
  });
}

bool core::owes_farewells() const noexcept {
  return std::any_of(links_.begin(), links_.end(),
                     [](const auto& one) { return one.second->owes_farewells(); });
}

result<void> core::keep_schema(std::uint64_t hash, const std::string& schema) {
  if (schemas_bytes_ + schema.size() <= schemas_bytes_max &&
      schemas_.emplace(hash, schema).second) {
    schemas_bytes_ += schema.size();
  }
  return rendezvous_->write_schema(hash, schema);
}

std::string core::schema_of(std::uint64_t hash) const {
  const auto known = schemas_.find(hash);
  if (known != schemas_.end()) return known->second;
  auto read = rendezvous_->read_schema(hash);
  return read ? std::move(*read) : std::string();
}

// Somebody removed the bus directory, or files of ours in it. Once it is calm, all that we had
// there is put back: who comes later finds us, and no link has noticed anything. Events tell of it,
// and of a changed mode; only who waits at a pipe has to look.
void core::mend_directory(std::int64_t now) {
  if (leaving_) return;
  if (mend_at_ns_ == INT64_MAX) {
    if (rendezvous_->waits_at_pipe()) {
      look_is_owed_ = true;
      if (now < look_at_ns_) return;
      look_at_ns_ = now + look_pause_ns;
      look_is_owed_ = rendezvous_->is_open_to_others();
      for (const auto& one : transports_) one->reconsider();
    }
    if (!rendezvous_->is_disturbed()) return;
    mend_at_ns_ = now + calm_ns;
  }
  if (now < mend_at_ns_) return;
  mend_at_ns_ = INT64_MAX;
  if (const std::error_code failed = restore_directory()) {
    complain("the bus directory " + rendezvous_->path() +
             " was removed and cannot be made again: " + failed.message());
    mend_pause_ns_ = std::clamp(2 * mend_pause_ns_, calm_ns, mend_pause_max_ns);
    mend_at_ns_ = now + mend_pause_ns_;
  } else {
    mend_pause_ns_ = 0;
  }
}

std::error_code core::restore_directory() {
  auto renewed = rendezvous_->renew();
  if (!renewed) return renewed.error();
  try {
    if (*renewed) watch(rendezvous_->wait_handle(), from_rendezvous);
  } catch (const error& refused) {
    return refused.code();
  }
  // The lock before the card: a card without one is a dead node's.
  if (auto moved = ledger_->move_to(rendezvous_->directory()); !moved) return moved.error();
  for (const auto& one : transports_) {
    if (auto moved = one->move_to(rendezvous_->path()); !moved) return moved.error();
  }
  for (const auto& [hash, schema] : schemas_) {
    if (auto kept = rendezvous_->write_schema(hash, schema); !kept) return kept.error();
  }
  if (auto written = rendezvous_->write_card(card_); !written) return written.error();
  topics_.distrust();
  topics_pace_.dirty = links_file_.dirty = true;
  on_cards(rendezvous_->changes());
  return {};
}

void core::flush_file(paced_file& pace, std::string_view what,
                      const std::function<result<void>()>& write) {
  std::int64_t began_ns = steady_ns();
  pace.dirty = false;
  if (const auto written = write(); !written) {
    complain(std::string(what) + " not written in " + rendezvous_->path() + ": " +
             written.error().message());
    // Tried again when somebody may have made room, after a pause.
    pace.dirty = written.error() == errc::no_space;
    began_ns -= paced_file::pause_max_ns;
  }
  pace.write_took(began_ns, steady_ns());
}

// Writes those of our files that are due, and says who we are to those who cannot read them.
void core::flush_files() {
  const std::int64_t now = steady_ns();
  if (card_file_.is_due(now)) {
    flush_file(card_file_, "card", [this] { return rendezvous_->write_card(card_); });
  }
  if (topics_pace_.is_due(now)) {
    flush_file(topics_pace_, "list of topics",
               [this] { return topics_.write(*rendezvous_, publications_); });
  }
  if (introductions_.is_due(now)) {
    flush_file(introductions_, "introduction", [this] {
      introduce_everywhere();
      return result<void>();
    });
  }
  if (links_file_.is_due(now)) {
    flush_file(links_file_, "links", [this] {
      wire::Links links;
      fill_links(links);
      // A lost links file costs an explanation, not a message.
      static_cast<void>(rendezvous_->write_links(links));
      return result<void>();
    });
  }
}

void core::fill_links(wire::Links& links) const {
  links.set_node(id_.value);
  links.set_written_ns(wall_ns());
  for (const auto& [peer, link] : links_) {
    wire::Link& words = *links.add_links();
    link->describe(words);
    words.set_row(ledger_->number_of(link->row()));
  }
  for (const auto& one : calls_) one.link->describe(*links.add_links());
  for (const auto& [key, mismatch] : mismatches_) {
    wire::Match& match = *links.add_matches();
    match.set_publisher(key.first);
    match.set_peer(key.second.value);
    match.set_subscription(mismatch.first);
    match.set_verdict(mismatch.second);
  }
  for (const auto& [id, known] : directory_.nodes()) {
    if (!known.is_remote()) continue;
    wire::Remote& remote = *links.add_remotes();
    *remote.mutable_card() = known.card;
    remote.set_speaks(known.speaks);
  }
  for (const wire::Refused& one : refused_here_) *links.add_refused() = one;
  for (const auto& one : gateways_) one->describe(links);
  for (const std::string& trouble : troubles_) links.add_troubles(trouble);
}

}  // namespace bus
