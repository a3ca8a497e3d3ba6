#include "bus/node/gateway.hpp"

#include "bus/codec/dynamic.hpp"
#include "bus/node/error.hpp"
#include "bus/topic/name.hpp"
#include "bus/topic/pattern.hpp"

#include <algorithm>
#include <chrono>
#include <filesystem>

namespace bus {
namespace {

// For people; the ledger counts all.
constexpr std::size_t refusals_max = 64;
constexpr std::size_t refusals_known_max = 16'384;
// What a child may name on its card; of these, allow::topics_max are passed on.
constexpr int names_max = 65'536;
constexpr std::size_t schemas_bytes_max = 4 << 20;
// At the end: for what the child had sent to come out of its pipes.
constexpr std::chrono::seconds linger{1};

constexpr std::string_view publish_verb = "publish";
constexpr std::string_view subscribe_verb = "subscribe to";
constexpr std::string_view subscribe_all_verb = "subscribe to all of";

void check_patterns(const char* which, const std::vector<std::string>& patterns) {
  for (const std::string& each : patterns) {
    const auto verdict = check_pattern(each);
    if (verdict) continue;
    throw error(errc::bad_name,
                std::string("allow::") + which + " names '" + each +
                    "', which is no pattern: " + std::string(reason(verdict.fault)) + " (at byte " +
                    std::to_string(verdict.at) + ")");
  }
}

void check_paths(const char* which, const std::vector<std::string>& paths) {
  for (const std::string& each : paths) {
    std::error_code failed;
    const auto meant = std::filesystem::canonical(each, failed);
    const std::string names = std::string("allow::") + which + " names '" + each + "', ";
    if (failed) {
      throw error(failed, names + "which cannot be found: " + failed.message() +
                              "; make it, or leave it out");
    }
    if (meant == meant.root_path()) {
      throw error(errc::denied, names + "which is all of the file system; name what is needed");
    }
  }
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& topic) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& each) { return matches(each, topic); });
}

// A child could say of another's type that it looks otherwise.
bool is_true(const type_info& claimed) {
  if (claimed.encoding == encoding::plain) return claimed.hash == hash64("plain " + claimed.schema);
  return claimed.encoding != encoding::raw && dynamic_type::from_schema(claimed).has_value();
}

type_info to_type_info(const wire::Type& words) {
  return {.name = words.name(),
          .encoding = static_cast<encoding>(std::min<std::uint32_t>(words.encoding(), 3)),
          .hash = words.hash()};
}

wire::Refused to_wire(const std::pair<std::string, std::string>& what, const std::string& reason) {
  wire::Refused words;
  words.set_verb(what.first);
  words.set_name(what.second);
  words.set_reason(reason);
  return words;
}

}  // namespace

gateway::gateway(core& outside, allow rights, std::string program)
    : outside_(outside), rights_(std::move(rights)), program_(std::move(program)) {
  check_patterns("publish", rights_.publish);
  check_patterns("subscribe", rights_.subscribe);
  check_paths("reads", rights_.reads);
  check_paths("writes", rights_.writes);
  const node_options& ours = outside_.options();
  node_options options{.name = ours.name,
                       .transports = outside_.bill_for_children(),
                       .directory = std::string(no_directory)};
  options.waiting = wait_policy::sleep;
  options.memory_bytes_max = ours.memory_bytes_max;
  options.link_depth = ours.link_depth;
  if (options.transports.empty()) {
    throw error(errc::unsupported,
                "a child can be locked in only where it can be met over pipes: pass "
                "transports::standard() or transports::pipe() in node_options::transports");
  }
  row_ = &outside_.books().take(row_kind::relay, 0);
  inside_ = std::make_unique<core>(std::move(options), this);
}

gateway::~gateway() {
  if (child_) child_->kill();
  try {
    constexpr std::size_t budget = 4096;
    inside_->drive(deadline::after(linger), budget, [this] {
      work();
      return is_at_rest();
    });
  } catch (...) {
    // What is still on the way is counted as lost below.
  }
  outward_.clear();
  inward_.clear();
  while (!offers_.empty()) withdraw(offers_.begin());
  inside_.reset();
  outside_.books().release(*row_);
}

bool gateway::is_at_rest() const noexcept {
  return inside_->known().nodes().size() <= 1 &&
         std::all_of(outward_.begin(), outward_.end(),
                     [](const auto& one) { return one.second->is_settled(); });
}

result<std::shared_ptr<supervised>> gateway::start(child_plan plan, restart when) {
  auto started = inside_->look_after(std::move(plan), when, true);
  if (started) child_ = *started;
  return started;
}

// ---------------------------------------------------------------- turned by the parent's node

void gateway::attend() noexcept {
  try {
    inside_->attend();
  } catch (...) {
    outside_.complain("out of memory while looking after " + program_);
  }
}

std::size_t gateway::turn(std::size_t budget) noexcept {
  if (std::exchange(in_turn_, true)) return 0;
  std::size_t came = 0;
  try {
    came = inside_->pump(budget);
  } catch (...) {
    outside_.complain("out of memory while passing on what " + program_ + " says");
  }
  work();
  in_turn_ = false;
  return came;
}

bool gateway::arm() noexcept {
  if (due_) return false;
  try {
    return inside_->arm_for_descriptors();
  } catch (...) {
    return false;
  }
}

void gateway::work() noexcept {
  if (!std::exchange(due_, false)) return;
  try {
    for (const node_id peer : std::exchange(lost_, {})) {
      take_off_card(peer);
      withdraw_unlisted(peer);
      if (peer == peer_) inward_.clear();
    }
    if (const auto words = std::exchange(news_, nullptr)) review(*words);
    listen();
  } catch (...) {
    outside_.complain("out of memory while passing on what " + program_ + " publishes");
  }
  for (const auto* const each : {&outward_, &inward_}) {
    for (const auto& [name, one] : *each) {
      if (one->is_due()) one->drain();
    }
  }
}

// ---------------------------------------------------------------- who the child is

// The node within is in the middle of something: what follows from it waits for work().
bool gateway::met(const wire::Introduce& words) {
  // But whom it is about is known at once: what it is refused counts for it.
  if (const node_id child{words.card().node()}; child != peer_) begin_life(child);
  const wire::Card& card = words.card();
  const int names = card.advertisements_size() + card.interests_size();
  if (names > names_max) {
    refuse("be heard with", std::to_string(names) + " names",
           "a child's card has no more than " + std::to_string(names_max),
           column::relay_refused_topics);
    return false;
  }
  news_ = std::make_unique<wire::Introduce>(words);
  due_ = true;
  return true;
}

void gateway::lost(node_id peer) {
  lost_.push_back(peer);
  due_ = true;
}

void gateway::review(const wire::Introduce& words) {
  if (std::exchange(is_new_life_, false)) inward_.clear();
  keep_schemas(words);
  review_offers(words.card());
  review_wishes(words.card());
}

void gateway::begin_life(node_id child) {
  peer_ = child;
  is_new_life_ = true;
  refused_.clear();
  refused_ever_.clear();
  kin_.set_name(program_);
  // What it says of itself counts for nothing here.
  const auto* const life = child_ ? child_->life() : nullptr;
  kin_.set_pid(life ? static_cast<std::uint32_t>(life->pid()) : 0);
  outside_.books().release(*row_);
  row_ = &outside_.books().take(row_kind::relay,
                                child_ ? static_cast<std::uint32_t>(child_->restarts()) : 0, child,
                                kin_.pid());
}

void gateway::keep_schemas(const wire::Introduce& words) {
  std::map<std::uint64_t, const std::string*> told;
  for (const wire::Schema& each : words.schemas()) told[each.hash()] = &each.text();
  const auto learn = [&](const wire::Type& type) {
    const auto text = told.find(type.hash());
    if (type.hash() == 0 || text == told.end() || schemas_.contains(type.hash())) return;
    if (schemas_bytes_ + text->second->size() > schemas_bytes_max) return;
    type_info claimed = to_type_info(type);
    claimed.schema = *text->second;
    if (!is_true(claimed)) return;
    schemas_bytes_ += claimed.schema.size();
    schemas_.emplace(type.hash(), std::move(claimed.schema));
  };
  for (const auto& each : words.card().advertisements()) learn(each.type());
  for (const auto& each : words.card().interests()) learn(each.type());
}

type_info gateway::type_of(const wire::Type& words) const {
  type_info made = to_type_info(words);
  const auto known = schemas_.find(made.hash);
  if (known != schemas_.end()) made.schema = known->second;
  return made;
}

// ---------------------------------------------------------------- what it publishes

void gateway::take_off_card(node_id peer) noexcept {
  for (auto at = offers_.lower_bound({peer, 0}); at != offers_.end() && at->first.first == peer;
       ++at) {
    at->second.is_on_card = false;
  }
}

// Those of which something is still to be passed on go when that is done.
void gateway::withdraw_unlisted(node_id peer) {
  for (auto at = offers_.lower_bound({peer, 0}); at != offers_.end() && at->first.first == peer;) {
    const auto next = std::next(at);
    if (!at->second.is_on_card && !at->second.passing) withdraw(at);
    at = next;
  }
}

void gateway::review_offers(const wire::Card& card) {
  take_off_card(peer_);
  for (const wire::Advertisement& words : card.advertisements()) {
    const source_key key{peer_, words.publisher()};
    if (const auto known = offers_.find(key); known != offers_.end()) {
      known->second.is_on_card = true;
    } else if (!matches_any(rights_.publish, words.topic())) {
      refuse(publish_verb, words.topic(), why_not(rights_.publish), column::relay_refused_topics);
    } else if (offers_.size() >= rights_.topics_max) {
      refuse(publish_verb, words.topic(),
             "allow::topics_max is " + std::to_string(rights_.topics_max),
             column::relay_refused_topics);
    } else {
      publication& ours = outside_.advertise(words.topic(), type_of(words.type()), kin_);
      ours.on_routes = [this] { due_ = true; };
      offers_[key].ours = &ours;
    }
  }
  withdraw_unlisted(peer_);
}

void gateway::withdraw(std::map<source_key, offer>::iterator at) {
  offer& one = at->second;
  if (one.passing) one.passing->close();
  outside_.retire(*one.ours, one.passing ? one.passing->cause : one.cause);
  offers_.erase(at);
}

// Listens to those topics of the child that somebody wants, and to no others.
void gateway::listen() {
  std::set<std::string> wanted;
  for (const auto& [key, one] : offers_) {
    if (!one.ours->routes.empty()) wanted.insert(one.ours->topic);
  }
  std::erase_if(outward_, [&](const auto& one) { return !wanted.contains(one.first); });
  for (const std::string& topic : wanted) {
    if (outward_.contains(topic)) continue;
    // It blocks, as long as it takes: who is not to be waited for is known outside.
    outward_[topic] = std::make_unique<conveyor>(
        *inside_, *this,
        conveyor::setup{.pattern = topic,
                        .options = {.depth = outside_.options().link_depth,
                                    .when_full = drop::none,
                                    .block_for = std::chrono::nanoseconds::max()}});
  }
}

// ---------------------------------------------------------------- what it subscribes to

void gateway::review_wishes(const wire::Card& card) {
  std::map<std::string, conveyor::setup> wanted;
  for (const wire::Interest& words : card.interests()) {
    std::set<std::string> patterns;
    bool is_clear = true;
    bool is_whole = false;
    for (const std::string& each : rights_.subscribe) {
      const auto common = common_patterns(words.pattern(), each);
      is_clear = is_clear && common.has_value();
      is_whole = is_whole || (common && common->size() == 1 && common->front() == words.pattern());
      if (common) patterns.insert(common->begin(), common->end());
    }
    if (!is_clear) {
      refuse(subscribe_verb, words.pattern(), "too many ** in it, and in allow::subscribe",
             column::relay_refused_patterns);
      continue;
    }
    if (is_whole) {
      patterns = {words.pattern()};
    } else {
      refuse(patterns.empty() ? subscribe_verb : subscribe_all_verb, words.pattern(),
             why_not(rights_.subscribe), column::relay_refused_patterns);
    }
    if (wanted.size() + patterns.size() > rights_.topics_max) {
      refuse(subscribe_verb, words.pattern(),
             "allow::topics_max is " + std::to_string(rights_.topics_max),
             column::relay_refused_patterns);
      continue;
    }
    const std::uint32_t depth =
        std::clamp<std::uint32_t>(words.depth(), 1, outside_.options().link_depth);
    const auto when_full = static_cast<drop>(std::min<std::uint32_t>(words.when_full(), 2));
    for (const std::string& pattern : patterns) {
      conveyor::setup one{.pattern = pattern,
                          .options = {.depth = depth,
                                      .when_full = when_full,
                                      .block_for = std::chrono::nanoseconds(words.block_for_ns())},
                          .on_behalf_of = kin_};
      if (words.has_type()) one.type = type_of(words.type());
      const std::string key = pattern + ' ' +
                              (words.has_type() ? to_hex(words.type().hash()) : "any") + ' ' +
                              std::to_string(depth) + ' ' + std::to_string(words.when_full()) +
                              ' ' + std::to_string(words.block_for_ns());
      wanted.emplace(key, std::move(one));
    }
  }
  // New ones first: what both an old one and a new one bring goes on without a gap.
  for (auto& [key, one] : wanted) {
    if (inward_.contains(key)) continue;
    inward_[key] = std::make_unique<conveyor>(outside_, *this, std::move(one));
  }
  std::erase_if(inward_, [&](const auto& one) { return !wanted.contains(one.first); });
}

// ---------------------------------------------------------------- flows

// What comes from the child comes from the node within, whatever number it gives itself.
bool gateway::is_outward(const conveyor& one) const noexcept {
  return &one.from() == inside_.get();
}

flow* gateway::joined(const conveyor& by, const source_event& about) noexcept {
  try {
    flow* const one = is_outward(by) ? join_offer(about) : join_inward(about);
    if (!one) return nullptr;
    one->held_by(by);
    return one;
  } catch (...) {
    outside_.complain("out of memory for another topic of " + program_);
    return nullptr;
  }
}

flow* gateway::join_offer(const source_event& about) {
  const auto known = offers_.find({about.node, about.publisher});
  if (known == offers_.end() || known->second.ours->topic != about.topic) return nullptr;
  offer& one = known->second;
  if (!one.passing) {
    one.passing = std::make_unique<flow>(flow{.to = outside_,
                                              .into = *one.ours,
                                              .shift = one.ours->head.sequence - about.last,
                                              .last = about.last});
  }
  return one.passing.get();
}

flow* gateway::join_inward(const source_event& about) {
  std::unique_ptr<flow>& one = inward_flows_[{about.node, about.publisher}];
  if (one) return one.get();
  if (inward_flows_.size() > rights_.topics_max) {
    inward_flows_.erase({about.node, about.publisher});
    refuse(subscribe_verb, about.topic,
           "allow::topics_max is " + std::to_string(rights_.topics_max),
           column::relay_refused_patterns);
    return nullptr;
  }
  type_info type = to_type_info(about.type);
  type.schema = outside_.schema_of(type.hash);
  publication& into = inside_->advertise(about.topic, type);
  one = std::make_unique<flow>(flow{.to = *inside_,
                                    .into = into,
                                    .needs_route = true,
                                    .shift = into.head.sequence - about.last,
                                    .last = about.last});
  return one.get();
}

void gateway::left(const conveyor& by, source_key which) noexcept {
  if (is_outward(by)) {
    leave_offer(which, by);
  } else {
    leave_inward(which, by);
  }
}

void gateway::leave_offer(source_key which, const conveyor& by) {
  const auto at = offers_.find(which);
  if (at == offers_.end() || !at->second.passing) return;
  offer& one = at->second;
  if (one.passing->let_go_by(by)) return;
  if (one.passing->is_over) one.passing->close();
  one.cause = one.passing->cause;
  one.passing.reset();
  if (!one.is_on_card) withdraw(at);
}

void gateway::leave_inward(source_key which, const conveyor& by) {
  const auto at = inward_flows_.find(which);
  if (at == inward_flows_.end() || at->second->let_go_by(by)) return;
  if (at->second->is_over) at->second->close();
  inside_->retire(at->second->into, at->second->cause);
  inward_flows_.erase(at);
}

void gateway::passed(const core& to) noexcept {
  row_->add(&to == &outside_ ? column::relay_out : column::relay_in, 1);
}

// ---------------------------------------------------------------- what it may not

bool gateway::admits(node_id /*from*/, const wire::Attach& words) {
  const auto known = offers_.find({peer_, words.publisher()});
  const bool may = known != offers_.end() && known->second.ours->topic == words.topic();
  if (!may) {
    refuse(publish_verb, words.topic(), why_not(rights_.publish), column::relay_refused_topics);
  }
  return may;
}

void gateway::turned_away(std::uint64_t messages) noexcept {
  row_->add(column::relay_refused_messages, messages);
}

std::string gateway::why_not(const std::vector<std::string>& allowed) const {
  const bool publishes = &allowed == &rights_.publish;
  std::string words = std::string("allow::") + (publishes ? "publish" : "subscribe") + " has ";
  if (allowed.empty()) return words + "nothing";
  for (const std::string& each : allowed) {
    words += (&each == &allowed.front() ? "'" : ", '") + each + "'";
  }
  return words + " and no more";
}

void gateway::refuse(std::string_view verb, const std::string& name, std::string reason,
                     std::size_t counter) {
  // Each counts once, as far as we remember; that its card is told again is no new attempt.
  const std::uint64_t mark = hash64(std::string(verb) + ' ' + name);
  if (refused_ever_.contains(mark)) return;
  if (refused_ever_.size() < refusals_known_max) refused_ever_.insert(mark);
  row_->add(counter, 1);
  if (refused_.size() >= refusals_max) return;
  // It may be anything, and of any length.
  refused_.emplace(refusal_key{verb, name.substr(0, name_bytes_max)}, std::move(reason));
  outside_.links_changed();
  inside_->introduce_again();
}

void gateway::describe(wire::Links& links) const {
  for (const auto& [key, reason] : refused_) {
    wire::Refused& one = *links.add_refused();
    one = to_wire(key, reason);
    *one.mutable_child() = kin_;
  }
}

// The child knows who it is.
void gateway::complete(wire::Introduce& words) const {
  for (const auto& [key, reason] : refused_) *words.add_refused() = to_wire(key, reason);
}

std::vector<std::string> gateway::refusals() const {
  std::vector<std::string> told;
  told.reserve(refused_.size());
  for (const auto& [key, reason] : refused_) {
    told.push_back("may not " + key.first + ' ' + key.second + ": " + reason);
  }
  return told;
}

}  // namespace bus
