// The control plane of core: cards come and go, publishers meet interests, links are made and
// dropped.
#include "bus/node/census.hpp"
#include "bus/node/core.hpp"
#include "bus/node/error.hpp"
#include "bus/node/overseer.hpp"
#include "bus/topic/name.hpp"
#include "bus/topic/pattern.hpp"

#include <algorithm>
#include <set>

namespace bus {
namespace {

// More topics than these are not told over a network with our card: at 320 bytes each, half of what
// a control message may hold.
constexpr std::size_t introduced_topics_max = 100'000;
constexpr int introduced_refusals_max = 64;
constexpr std::size_t introduced_schemas_max = 4 << 20;

wire::Type to_wire(const type_info& type) {
  wire::Type words;
  words.set_name(type.name);
  words.set_encoding(static_cast<std::uint32_t>(type.encoding));
  words.set_hash(type.hash);
  return words;
}

[[noreturn]] void refuse(std::string_view what, const std::string& name, name_verdict verdict) {
  throw error(errc::bad_name, std::string(what) + " '" + name +
                                  "' is refused: " + std::string(reason(verdict.fault)) +
                                  " (at byte " + std::to_string(verdict.at) + ")");
}

void add_to(appetite& whose, const wire::Interest& interest) {
  if (interest.when_full() == static_cast<std::uint32_t>(drop::none)) {
    whose.blocking.emplace_back(interest.subscription(), interest.block_for_ns());
  } else {
    whose.is_free = true;
  }
}

bool has_network_address(const wire::Card& card) {
  return std::any_of(card.addresses().begin(), card.addresses().end(), [](const std::string& one) {
    return one.find("tcp://") != std::string::npos;
  });
}

}  // namespace

publication& core::advertise(const std::string& topic, const type_info& type,
                             const wire::Kin& on_behalf_of) {
  if (const auto verdict = check_name(topic); !verdict) refuse("topic", topic, verdict);
  auto made = std::make_unique<publication>();
  publication& source = *made;
  source.number = ++last_number_;
  source.topic = topic;
  source.type = to_wire(type);
  source.on_behalf_of = on_behalf_of;
  std::weak_ptr<const std::string>& kept_schema = schemas_in_use_[type.hash];
  source.schema = kept_schema.lock();
  if (!source.schema || *source.schema != type.schema) {
    source.schema = std::make_shared<const std::string>(type.schema);
    kept_schema = source.schema;
  }
  source.head.publisher = source.number;
  source.head.node = id_.value;
  source.head.topic_hash = hash64(topic);
  source.head.type_hash = type.hash;
  source.row = &ledger_->take(row_kind::publisher, source.number);
  if (type.hash != 0 && !type.schema.empty()) {
    if (auto kept = keep_schema(type.hash, type.schema); !kept) {
      complain("schema of " + type.name + " not written: " + kept.error().message());
    }
  }
  publications_.emplace(source.number, std::move(made));
  by_topic_.add(source);
  topics_changed();
  rematch(source);
  tend();
  return source;
}

void core::retire(publication& source, loss cause) {
  if (is_forked()) return;
  for (const auto& each : waits_) {
    const auto one = each.lock();
    if (!one || one->source != &source) continue;
    one->source = nullptr;
    one->wake();
  }
  for (auto& [peer, link] : links_) link->unwant(source, cause);
  mismatches_.erase(mismatches_.lower_bound({source.number, node_id{}}),
                    mismatches_.lower_bound({source.number + 1, node_id{}}));
  topics_.went(source.number);
  by_topic_.remove(source);
  retired_rows_.push_back(source.row);
  publications_.erase(source.number);
  topics_changed();
  restless_ = true;
  tend();
}

std::shared_ptr<subscription> core::subscribe(const std::string& pattern, const type_info* type,
                                              subscription_options options,
                                              std::function<void(sample&&)> callback,
                                              relaying how) {
  if (const auto verdict = check_pattern(pattern); !verdict) refuse("pattern", pattern, verdict);
  subscription::setup wanted{.number = ++last_number_,
                             .interest = {},
                             .options = options,
                             .callback = std::move(callback),
                             .how = std::move(how)};
  if (!wanted.how.on_behalf_of.name().empty()) {
    *wanted.interest.mutable_on_behalf_of() = wanted.how.on_behalf_of;
  }
  wanted.interest.set_pattern(pattern);
  if (type) *wanted.interest.mutable_type() = to_wire(*type);
  if (type && type->hash != 0 && !type->schema.empty()) {
    // So that `bus pub` can make what we wait for, before anybody has published it.
    if (auto kept = keep_schema(type->hash, type->schema); !kept) {
      complain("schema of " + type->name + " not written: " + kept.error().message());
    }
  }
  ledger_row& row = ledger_->take(row_kind::subscription, wanted.number);
  auto made = std::make_shared<subscription>(std::move(wanted), row, *shelter_);
  reception_->add(made);
  subscriptions_.emplace(made->number(), made);
  share_places();
  *card_.add_interests() = made->interest();
  directory_.add_interest(id_, made->interest());
  meet_own(made->interest());
  card_changed();
  return made;
}

void core::retire(const std::shared_ptr<subscription>& one) {
  if (is_forked()) return;
  one->end();
  reception_->remove(*one);
  auto& all = *card_.mutable_interests();
  all.erase(std::remove_if(all.begin(), all.end(),
                           [&](const auto& each) { return each.subscription() == one->number(); }),
            all.end());
  directory_.remove_interest(id_, one->number());
  meet_own(one->interest());
  subscriptions_.erase(one->number());
  share_places();
  ledger_->release(one->row());
  card_changed();
}

void core::share_places() noexcept {
  const auto queues = std::count_if(subscriptions_.begin(), subscriptions_.end(),
                                    [](const auto& one) { return !one.second->has_callback(); });
  shelter_->share(subscriptions_.size(), static_cast<std::size_t>(queues), options_.link_depth);
}

std::size_t core::confirmed(const publication& source) const {
  return static_cast<std::size_t>(
      std::count_if(links_.begin(), links_.end(),
                    [&](const auto& entry) { return entry.second->confirmed(source); }));
}

std::size_t core::sources(const subscription& one) const { return reception_->sources_of(one); }

std::size_t core::backlog(const publication& source) const noexcept {
  std::size_t most = 0;
  for (const peer_link* const link : source.routes) most = std::max(most, link->unsettled());
  return most;
}

explanation core::why(const std::string& topic) {
  tend();
  keep_books();
  if (rendezvous_->directory() >= 0) return explain(take_census(*rendezvous_), topic);
  node_report own;
  own.id = id_;
  own.life = liveness::alive;
  own.card = card_;
  add_advertisements(own.card);
  fill_links(own.links);
  if (auto books = ledger_->reading()) own.ledger = std::move(*books);
  return explain(census_of(std::move(own)), topic);
}

void core::card_changed() {
  card_file_.dirty = true;
  identity_changed();
}

// The card in the bus directory stays as it is.
void core::topics_changed() {
  topics_pace_.dirty = true;
  identity_changed();
}

void core::identity_changed() {
  card_.set_revision(card_.revision() + 1);
  introductions_.dirty = true;
  if (leaving_) return;
  flush_files();
  set_timer();
}

void core::add_advertisements(wire::Card& to) const {
  for (const auto& [number, source] : publications_) {
    *to.add_advertisements() = source->advertisement();
  }
}

void core::on_cards(std::vector<card_change> changes) {
  for (card_change& change : changes) {
    if (change.node == id_) continue;
    if (change.card) {
      learn(*change.card, directory::origin::local);
    } else if (const auto link = links_.find(change.node);
               link != links_.end() && link->second->open() && !link->second->over_network()) {
      // A file went, and perhaps nobody with it (`rm -rf` of the directory). The link tells: when
      // it ends, its peer is a suspect without a ledger, and is forgotten then.
      continue;
    } else {
      forget(change.node, grave_of_dead_ns);
      suspects_[change.node] = {.left = true};
    }
  }
}

void core::learn(const wire::Card& card, directory::origin from) {
  const node_id peer{card.node()};
  if (from != directory::origin::hearsay) {
    graves_.raise(peer);
  } else if (graves_.holds(peer, steady_ns())) {
    return;
  }
  if (const auto look = suspects_.find(peer);
      from == directory::origin::local && look != suspects_.end() && look->second.left) {
    suspects_.erase(look);  // its card is back
  }
  if (!directory_.upsert(card, from)) return;
  // To itself, if it is new over a network; to those who should meet it, if we vouch for it.
  introductions_.dirty =
      introductions_.dirty || directory_.find(peer)->network || has_network_address(card);
  const auto link = links_.find(peer);
  if (link != links_.end()) {
    link->second->set_ways(rank_ways(traits_, *directory_.find(peer)), card.name());
  }
  // Whoever is still unknown is put back.
  for (const auto& [to, words] : std::exchange(early_grants_, {})) grant(to, words);
  if (card.version() != card_version) {
    complain("node " + card.name() + " (" + to_hex(peer.value) + ") speaks version " +
             std::to_string(card.version()) + ", we speak " + std::to_string(card_version) +
             ": not linked; run the same release on both sides");
    return;
  }
  rematch(peer);
  restless_ = true;
}

void core::forget(node_id id, std::int64_t grave_ns) {
  if (!directory_.remove(id)) return;
  if (overseer_) overseer_->lost(id);
  graves_.bury(id, steady_ns() + grave_ns);
  std::erase_if(mismatches_, [&](const auto& one) { return one.first.second == id; });
  drop_link(id);
}

// All our publishers against one peer's interests, after its card changed.
void core::rematch(node_id peer) {
  const known_node& known = *directory_.find(peer);
  std::erase_if(mismatches_, [&](const auto& one) { return one.first.second == peer; });
  std::map<std::uint32_t, std::pair<publication*, appetite>> wanted;
  const auto meet = [&](publication& source, const wire::Interest& interest) {
    if (types_agree(source.type, interest)) {
      auto& [one, whose] = wanted[source.number];
      one = &source;
      add_to(whose, interest);
    } else {
      note_mismatch(source, peer, interest);
    }
  };
  for (const wire::Interest& interest : known.card.interests()) {
    for_each_publication(interest.pattern(), [&](publication& source) { meet(source, interest); });
  }
  if (const auto link = links_.find(peer); link != links_.end()) {
    steps_ += publications_.size();
    for (auto& [number, source] : publications_) {
      if (link->second->wants(*source) && !wanted.contains(number)) link->second->unwant(*source);
    }
  }
  for (auto& [number, one] : wanted) want(*one.first, peer, one.second);
  links_file_.dirty = true;
}

template <class Visitor>
void core::for_each_publication(const std::string& pattern, Visitor&& visit) {
  if (has_wildcard(pattern)) {
    steps_ += publications_.size();
    for (auto& [number, source] : publications_) {
      if (matches(pattern, source->topic)) visit(*source);
    }
    return;
  }
  by_topic_.for_each(pattern, [&](publication& source) {
    ++steps_;
    visit(source);
  });
}

// A subscription of our own has come, or ended: our publishers whom it meets are asked again what
// our own subscriptions want of them.
void core::meet_own(const wire::Interest& changed) {
  for_each_publication(changed.pattern(), [&](publication& source) {
    const wire::Interest* refused = nullptr;
    appetite whose;
    directory_.for_each_interested(source.topic, [&](node_id peer, const wire::Interest& one) {
      if (peer != id_ || is_own_voice(source.on_behalf_of, one.on_behalf_of())) return;
      if (types_agree(source.type, one)) {
        add_to(whose, one);
      } else {
        refused = &one;
      }
    });
    mismatches_.erase({source.number, id_});
    if (refused) note_mismatch(source, id_, *refused);
    if (whose.is_free || !whose.blocking.empty()) {
      want(source, id_, whose);
    } else if (const auto link = links_.find(id_); link != links_.end()) {
      link->second->unwant(source);
    }
  });
  restless_ = true;
  links_file_.dirty = true;
}

// One new publisher against all interests.
void core::rematch(publication& source) {
  std::map<node_id, appetite> peers;
  directory_.for_each_interested(source.topic, [&](node_id peer, const wire::Interest& interest) {
    ++steps_;
    if (directory_.find(peer)->card.version() != card_version) return;
    if (peer == id_ && is_own_voice(source.on_behalf_of, interest.on_behalf_of())) return;
    if (types_agree(source.type, interest)) {
      add_to(peers[peer], interest);
    } else {
      note_mismatch(source, peer, interest);
    }
  });
  for (const auto& [peer, whose] : peers) want(source, peer, whose);
  links_file_.dirty = true;
}

void core::want(publication& source, node_id peer, const appetite& whose) {
  peer_link& link = link_to(peer);
  link.want(source, whose);
  restless_ = restless_ || link.restless();
}

void core::note_mismatch(const publication& source, node_id peer, const wire::Interest& interest) {
  mismatches_[{source.number, peer}] = {
      interest.subscription(),
      "types differ: ours is " + source.type.name() + " (" + to_hex(source.type.hash()) +
          "), theirs is " + interest.type().name() + " (" + to_hex(interest.type().hash()) + ")"};
}

std::unique_ptr<peer_link> core::make_link(node_id peer) {
  return std::make_unique<peer_link>(peer_link::setup{.self = id_,
                                                      .peer = peer,
                                                      .transports = transports_,
                                                      .depth = options_.link_depth,
                                                      .ledger = ledger_.get()},
                                     ledger_->take(row_kind::link, 0, peer));
}

peer_link& core::link_to(node_id peer) {
  std::unique_ptr<peer_link>& link = links_[peer];
  if (!link) {
    link = make_link(peer);
    const known_node& known = *directory_.find(peer);
    link->set_ways(rank_ways(traits_, known), known.card.name());
  }
  return *link;
}

void core::drop_link(node_id peer) {
  const auto at = links_.find(peer);
  if (at == links_.end()) return;
  ledger_row& row = at->second->row();
  steps_ += at->second->steps();
  links_.erase(at);
  ledger_->release(row);
  links_file_.dirty = true;
}

// We know where they are and not who.
void core::call_peers() {
  for (const std::string& where : options_.peers) call(where);
}

// "tcp://host:7400" is for every network transport; an address of a transport of ours, for that
// one.
void core::call(const std::string& where) {
  known_node unknown;
  unknown.network = true;
  const auto whose = std::find_if(traits_.begin(), traits_.end(), [&](const traits& about) {
    return about.scheme == scheme_of(where);
  });
  const bool is_once = whose != traits_.end();
  for (const traits& about : traits_) {
    if (!is_once && about.reach == reach::network) {
      unknown.card.add_addresses(std::string(about.scheme) + ":" + where);
    }
  }
  if (is_once) unknown.card.add_addresses(where);
  if (unknown.card.addresses().empty()) {
    complain("peer " + where + " cannot be called: no transport for it was given");
    return;
  }
  auto link = make_link(node_id{});
  link->set_ways(rank_ways(traits_, unknown), where);
  link->introduce(introduction(is_once));
  calls_.push_back({.address = where, .is_once = is_once, .link = std::move(link)});
  restless_ = true;
  if (!is_once) return;
  // Now: what it names is ours only until somebody has taken it.
  static_cast<void>(calls_.back().link->step(steady_ns()));
  watch_inboxes();
  const std::string back = std::string(whose->scheme) + ":";
  const auto& known = card_.addresses();
  if (std::find(known.begin(), known.end(), back) != known.end()) return;
  card_.add_addresses(back);
  card_changed();
}

std::uint64_t core::steps() const noexcept {
  std::uint64_t sum = steps_ + reception_->steps();
  for (const auto& [peer, link] : links_) sum += link->steps();
  return sum;
}

wire::Introduce core::introduction(bool to_kin) {
  wire::Introduce words;
  if (overseer_) overseer_->complete(words);
  *words.mutable_card() = card_;
  // Who publishes is learned by Attach, topic by topic; a list of a million is for the bus
  // directory only.
  if (publications_.size() <= introduced_topics_max) add_advertisements(*words.mutable_card());
  for (const auto& [id, known] : directory_.nodes()) {
    // We vouch for those whose life we have proof of, and pass on no rumours.
    if (id == id_ || !(known.local || known.speaks) || !has_network_address(known.card)) continue;
    if (known.local && !is_alive(rendezvous_->directory(), id)) {
      // Nobody told us, since no link of ours ended with it.
      suspects_.try_emplace(id);
      continue;
    }
    *words.add_others() = known.card;
  }
  if (to_kin) add_schemas(words);
  return words;
}

// Who has no directory in common with us finds none of our schemas there.
void core::add_schemas(wire::Introduce& words) const {
  std::size_t bytes = 0;
  std::set<std::uint64_t> told;
  const auto add = [&](const wire::Type& type) {
    const auto known = schemas_.find(type.hash());
    if (known == schemas_.end() || !told.insert(type.hash()).second) return;
    if ((bytes += known->second.size()) > introduced_schemas_max) return;
    wire::Schema& one = *words.add_schemas();
    one.set_hash(type.hash());
    one.set_text(known->second);
  };
  for (const auto& each : words.card().advertisements()) add(each.type());
  for (const auto& each : words.card().interests()) add(each.type());
}

void core::introduce_everywhere() {
  const bool anybody =
      !calls_.empty() || std::any_of(directory_.nodes().begin(), directory_.nodes().end(),
                                     [](const auto& one) { return one.second.is_remote(); });
  if (!anybody || leaving_) return;
  const wire::Introduce words = introduction(false);
  wire::Introduce to_kin = words;
  add_schemas(to_kin);
  for (const auto& one : calls_) one.link->introduce(one.is_once ? to_kin : words);
  for (const auto& [id, known] : directory_.nodes()) {
    if (!known.is_remote()) continue;
    peer_link& link = link_to(id);
    link.introduce(link.over_network() ? words : to_kin);
  }
  restless_ = true;
}

void core::introduced(node_id from, const wire::Introduce& words) {
  // Everybody speaks for itself first; who gives another's card for its own is not believed at all.
  if (from == id_ || from == node_id{} || words.card().node() != from.value) return;
  if (overseer_ && !overseer_->met(words)) return;
  learn(words.card(), directory::origin::itself);
  // Of others it may not even speak.
  if (overseer_) return;
  if (words.refused_size() > 0 || keeper_ == from) {
    keeper_ = from;
    const int count = std::min(words.refused_size(), introduced_refusals_max);
    refused_here_.assign(words.refused().begin(), words.refused().begin() + count);
    links_file_.dirty = true;
  }
  for (const wire::Card& other : words.others()) {
    if (other.node() == 0 || other.node() == id_.value || !has_network_address(other)) continue;
    learn(other, directory::origin::hearsay);
  }
}

}  // namespace bus
