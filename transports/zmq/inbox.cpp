#include "transports/zmq/inbox.hpp"

#include "bus/base/clock.hpp"
#include "transports/zmq/farewell.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace transports::zeromq {
namespace {

// Received in one go before anything is handed out, and held in all queues before we leave the rest
// to libzmq and TCP: bounds the time of one poll.
constexpr std::size_t receive_max = 256;
constexpr std::size_t queued_max = 1024;
// Silent or hostile connections are closed by libzmq after this.
constexpr int handshake_ms = 2000;
// A fleet that starts at once should not have to knock twice.
constexpr int backlog = 1024;
// Reports that leave while the transport is being destroyed.
constexpr int router_linger_ms = 100;
// libzmq's own numbers for connections: a zero byte and 32 bits. Who chose a name is none of ours.
constexpr std::size_t route_bytes = 5;

using route = std::array<std::byte, route_bytes>;

route route_of(std::uint32_t link) noexcept {
  route made{};
  std::memcpy(made.data() + 1, &link, sizeof link);
  return made;
}

}  // namespace

router_inbox::router_inbox(std::shared_ptr<hub> shared) : hub_(std::move(shared)) {
  hub_->enlist(*this);
  // The credits of all peers together are the real limit. Doubled: the pool rounds up.
  constexpr std::uint64_t believable = 1ULL << 40;
  memory_ = bus::pool::make(2 * peers_max * std::min(hub_->setup().link_bytes_max, believable));
}

router_inbox::~router_inbox() {
  hub_->dismiss(*this);
  if (!homes_) return;
  collect();
  report(true);
  hub_->forget(homes_->descriptor(), returns_);
  for (peer* const one : own_lines_) one->own->over->hang_up(parting::settled);
  if (!router_) return;
  if (lends_lines_) dismiss_callers();
  hub_->forget(router_.descriptor(), messages_);
  hub_->forget(monitor_.descriptor(), events_);
  monitor_.stop(router_);
}

// Samples have left through the ROUTER, as through every other way out: whoever has a line to us
// hears that we leave, and hangs up. Until then all is read: farewell.hpp says why.
void router_inbox::dismiss_callers() noexcept {
  for (const auto& [connection, link] : link_of_) say_bye(link);
  const std::int64_t until_ns = bus::steady_ns() + farewell::goodbye_ns;
  message one;
  for (;;) {
    while (router_.receive(one)) {
    }
    read_events();
    if (link_of_.empty() || bus::steady_ns() >= until_ns) break;
    hub_->wait(until_ns);
  }
  router_.set(ZMQ_LINGER, 0);
}

bus::result<void> router_inbox::prepare() {
  if (homes_) return {};
  auto homes = bus::homecoming::make();
  if (!homes) return bus::unexpected(homes.error());
  auto watched = hub_->watch((*homes)->descriptor(), returns_);
  if (watched) homes_ = std::move(*homes);
  return watched;
}

bus::result<void> router_inbox::listen(const std::vector<endpoint>& wanted) {
  auto prepared = prepare();
  if (!prepared) return prepared;
  auto zmq = hub_->zmq();
  if (!zmq) return bus::unexpected(zmq.error());
  auto router = socket::make(**zmq, ZMQ_ROUTER);
  if (!router) return bus::unexpected(router.error());
  auto events = monitor::make(**zmq, *router, ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED,
                              hub_->fresh_name());
  if (!events) return bus::unexpected(events.error());
  router_ = std::move(*router);
  monitor_ = std::move(*events);
  router_.set(ZMQ_LINGER, router_linger_ms);
  router_.set(ZMQ_ROUTER_MANDATORY, 1);
  router_.set(ZMQ_RCVHWM, hub_->messages_max());
  // Answers, and what goes out over a line that was offered to us.
  router_.set(ZMQ_SNDHWM, 2 * hub_->messages_max());
  router_.set(ZMQ_MAXMSGSIZE, static_cast<std::int64_t>(chunk_bytes_max));
  router_.set(ZMQ_BACKLOG, backlog);
  router_.set(ZMQ_HANDSHAKE_IVL, handshake_ms);
  router_.set(ZMQ_HEARTBEAT_IVL, heartbeat_every_ms);
  router_.set(ZMQ_HEARTBEAT_TIMEOUT, heartbeat_lost_ms);
  auto watched = hub_->watch(router_.descriptor(), messages_);
  if (watched) watched = hub_->watch(monitor_.descriptor(), events_);
  if (!watched) return watched;
  used_ = true;
  for (const endpoint& one : wanted) {
    auto bound = bind_one(one);
    if (!bound) return bound;
  }
  return {};
}

bus::result<void> router_inbox::bind_one(const endpoint& wanted) {
  auto bound = router_.bind(wanted.text());
  if (!bound && bound.error() == std::error_code(EADDRINUSE, std::generic_category())) {
    bound = router_.bind(endpoint{wanted.host, 0}.text());
  }
  if (!bound) return bound;
  // libzmq shows a wildcard as 0.0.0.0, and the port that the kernel chose.
  auto real = parse_listen(router_.last_endpoint());
  if (!real) return bus::unexpected(real.error());
  for (std::string& one : candidates(*real)) {
    if (where_.size() < candidates_max) where_.push_back(std::move(one));
  }
  return {};
}

// ---------------------------------------------------------------- the node's calls

std::size_t router_inbox::poll(std::size_t budget, bus::sink& into) noexcept {
  if (!homes_) return 0;
  collect();
  // Looking costs two system calls, and what waits here came first.
  if (turns_.empty()) receive();
  stir_offers();
  const std::size_t handed = hand_out(budget, into);
  see_off(into);
  report(false);
  return handed;
}

void router_inbox::attend(bus::sink& into) noexcept {
  hub_->attend();
  if (!homes_) return;
  collect();
  receive();
  stir_offers();
  see_off(into);
  report(false);
}

bool router_inbox::arm() noexcept {
  hub_->rest();
  if (!homes_) return true;
  collect();
  report(false);
  if (!turns_.empty() || ended_ > 0 || offers_heard_) return false;
  // Its descriptor tells of what came since it was last found empty, if it was not used since.
  if (used_ && router_ && router_.readable()) return false;
  used_ = false;
  for (peer* const one : own_lines_) {
    if (one->own->used && one->own->over->readable()) return false;
    one->own->used = false;
  }
  if (!homes_->arm()) return false;
  if (owing_ > 0) hub_->schedule(due_ns_);
  return true;
}

void router_inbox::disarm() noexcept {
  if (homes_) homes_->disarm();
}

void router_inbox::stir(source what) noexcept {
  if (what == source::homes) homes_->drain();
  if (what == source::events) read_events();
}

// ---------------------------------------------------------------- from libzmq into the queues

void router_inbox::receive() noexcept {
  if (router_) receive_calls(queued_max);
  for (peer* const one : own_lines_) {
    if (one->own->used || one->own->may_have_ended) receive_over(*one);
  }
}

// What has come to the ROUTER, as long as less than `most` waits to be handed out.
void router_inbox::receive_calls(std::size_t most) noexcept {
  message from;
  message body;
  message surplus;
  for (std::size_t i = 0; i < receive_max && queued_ < most; ++i) {
    if (!router_.receive(from)) {
      used_ = false;
      if (ended_ == 0) return;
      for (auto& [link, one] : peers_) {
        one->drained |= one->where == phase::ended && !one->own;
      }
      return;
    }
    used_ = true;
    // libzmq hands out whole messages: the other parts are here.
    bool whole = from.more() && router_.receive(body) && !body.more();
    if (from.more() && !whole) {
      while (router_.receive(surplus) && surplus.more()) {
      }
    }
    take(from, body, whole);
  }
}

void router_inbox::receive_over(peer& one) noexcept {
  ear& own = *one.own;
  // Asked first: what came before the end is all here then.
  const std::error_code ended = own.may_have_ended ? own.over->ended() : std::error_code();
  message body;
  message surplus;
  for (std::size_t i = 0; ended || (i < receive_max && queued_ < queued_max); ++i) {
    own.used = own.over->receive(body);
    if (!own.used) break;
    const bool whole = !body.more();
    if (!whole) {
      while (own.over->receive(surplus) && surplus.more()) {
      }
    }
    take_from(one, body, whole);
  }
  own.may_have_ended = false;
  if (ended) end(one, ended, true);
}

// Lets those who send over offered lines read what has come for them.
void router_inbox::stir_offers() noexcept {
  if (!std::exchange(offers_heard_, false)) return;
  std::vector<std::pair<watcher*, source>> whom;
  for (auto at = offers_.begin(); at != offers_.end();) {
    const offer& one = at->second;
    if (one.user && !one.heard.empty()) whom.emplace_back(one.user, source::messages);
    if (one.user && one.has_ended) whom.emplace_back(one.user, source::events);
    at = !one.user && one.has_ended ? offers_.erase(at) : std::next(at);
  }
  for (const auto& [user, what] : whom) user->stir(what);
}

void router_inbox::ear::stir(source what) noexcept {
  used = true;
  may_have_ended |= what == source::events;
}

void router_inbox::read_events() noexcept {
  monitor::event event;
  while (monitor_.next(event)) {
    if (event.what == ZMQ_EVENT_ACCEPTED) {
      connections_.insert(event.value);
    } else if (event.what == ZMQ_EVENT_DISCONNECTED) {
      connections_.erase(event.value);
      connection_ended(event.value);
    }
  }
}

void router_inbox::connection_ended(int connection) noexcept {
  const auto found = link_of_.find(connection);
  if (found == link_of_.end()) return;
  const auto offered = offers_.find(found->second);
  peer* const one = find(found->second);
  link_of_.erase(found);
  if (offered != offers_.end()) offers_heard_ = offered->second.has_ended = true;
  if (!one) return;
  one->connection = -1;
  end(*one, bus::errc::gone, false);
}

router_inbox::peer* router_inbox::find(std::uint32_t link) noexcept {
  if (last_found_ && last_found_->link == link) return last_found_;
  const auto found = peers_.find(link);
  if (found == peers_.end()) return nullptr;
  last_found_ = found->second.get();
  return last_found_;
}

void router_inbox::take(message& from, message& body, bool whole) noexcept {
  const auto name = std::as_const(from).bytes();
  if (name.size() != route_bytes || name[0] != std::byte{0}) return;
  const std::uint32_t link = *read<std::uint32_t>(name.subspan(1));
  if (peer* const known = find(link)) {
    take_from(*known, body, whole);
    return;
  }
  const auto most = static_cast<std::size_t>(hub_->messages_max());
  if (const auto offered = offers_.find(link); offered != offers_.end()) {
    offer& one = offered->second;
    if (whole && one.user && one.heard.size() < most) {
      one.heard.push_back(std::move(body));
    } else {
      // Nobody asked, or more came than there are credits.
      refuse(link, refusal_reason::broken_rule);
      one.has_ended = true;
    }
    offers_heard_ = true;
    return;
  }
  const auto prefix = read<prefix_layout>(std::as_const(body).bytes());
  if (!whole || !prefix || prefix->magic != prefix_layout::magic_value) return;
  const auto kind = static_cast<word>(prefix->kind);
  if (kind == word::hello || kind == word::offer) {
    greet(link, body, kind);
  } else if (kind == word::bye) {
    say_bye(link);
  } else {
    refuse(link, refusal_reason::stranger);
  }
}

void router_inbox::take_from(peer& known, message& body, bool whole) noexcept {
  if (known.where == phase::ended && known.drained) return;
  const auto most = static_cast<std::size_t>(hub_->messages_max());
  if (!whole || known.where == phase::waiting || known.queue.size() >= most) {
    expel(known, bus::errc::bad_message);
  } else if (known.where == phase::offered) {
    hear_hello(known, body);
  } else {
    if (known.queue.empty()) turns_.push_back(&known);
    known.queue.push_back(std::move(body));
    ++queued_;
  }
}

void router_inbox::greet(std::uint32_t link, const message& body, word kind) noexcept {
  const auto hello = read<hello_layout>(body.bytes());
  if (hello && hello->prefix.version != prefix_layout::current_version) {
    refuse(link, refusal_reason::version);
  } else if (!hello || hello->node == 0) {
    refuse(link, refusal_reason::broken_rule);
  } else if (hello->target != 0 && hello->target != hub_->setup().id.value) {
    refuse(link, refusal_reason::not_me);
  } else if (peers_.size() + offers_.size() >= 2 * peers_max ||
             (kind == word::hello ? peers_.size() : offers_.size()) >= peers_max) {
    refuse(link, refusal_reason::crowded);
  } else {
    // All that is known of this descriptor's former lives is known after this.
    read_events();
    const int connection = body.connection();
    if (!connections_.contains(connection)) return;  // ended already, so nobody waits
    connection_ended(connection);
    link_of_[connection] = link;
    if (kind == word::offer) {
      park(link, bus::node_id{hello->node}, connection);
      return;
    }
    auto newcomer = std::make_unique<peer>();
    newcomer->link = link;
    newcomer->node.value = hello->node;
    newcomer->is_call = hello->target == 0;
    newcomer->connection = connection;
    peer& added = *(peers_[link] = std::move(newcomer));
    // One link of a node after the other, so that left() never speaks of the wrong one.
    if (is_first_of_its_node(added)) admit(added);
  }
}

bool router_inbox::is_first_of_its_node(const peer& one) const noexcept {
  return std::none_of(peers_.begin(), peers_.end(), [&](const auto& entry) {
    const peer& other = *entry.second;
    return &other != &one && other.node == one.node && other.is_call == one.is_call &&
           other.where != phase::offered;
  });
}

void router_inbox::admit(peer& newcomer) noexcept {
  const bus::transport_setup& setup = hub_->setup();
  newcomer.where = phase::admitted;
  newcomer.tab.open(setup.link_depth, setup.link_bytes_max);
  auto welcome = make<welcome_layout>(word::welcome);
  welcome.node = setup.id.value;
  welcome.depth = setup.link_depth;
  welcome.link_bytes_max = setup.link_bytes_max;
  welcome.bytes_max = hub_->bytes_max();
  static_cast<void>(answer(newcomer.link, bytes_of(welcome)));
}

void router_inbox::refuse(std::uint32_t link, refusal_reason why) noexcept {
  auto refusal = make<refusal_layout>(word::refusal);
  refusal.why = static_cast<std::uint32_t>(why);
  static_cast<void>(answer(link, bytes_of(refusal)));
}

void router_inbox::say_bye(std::uint32_t link) noexcept {
  static_cast<void>(answer(link, bytes_of(make<bye_layout>(word::bye))));
}

// False: the connection is gone, or does not read what we answer.
bool router_inbox::answer(std::uint32_t link, message& words) noexcept {
  if (peer* const known = find(link); known && known->own) {
    known->own->used = true;
    return known->own->over->send(words);
  }
  const route to = route_of(link);
  used_ = true;
  return router_.send(std::span<const std::byte>(to), part::more) && router_.send(words);
}

bool router_inbox::answer(std::uint32_t link, std::span<const std::byte> bytes) noexcept {
  message words;
  if (!words.allocate(bytes.size())) return false;
  std::memcpy(words.bytes().data(), bytes.data(), bytes.size());
  return answer(link, words);
}

// ---------------------------------------------------------------- how links end

void router_inbox::end(peer& one, std::error_code why, bool drained) noexcept {
  one.drained |= drained;
  if (one.where == phase::ended) return;
  one.where = phase::ended;
  one.reason = why;
  ++ended_;
}

// A broken rule: nothing more is believed, and the peer is told.
void router_inbox::expel(peer& one, std::error_code why) noexcept {
  queued_ -= one.queue.size();
  one.queue.clear();
  std::erase(turns_, &one);
  one.records_left = 0;
  one.offset = 0;
  one.arriving.reset();
  if (one.where != phase::ended) refuse(one.link, refusal_reason::broken_rule);
  end(one, why, true);
}

// Tells of those who ended, once all that they sent is handed out, and admits who waited for that.
void router_inbox::see_off(bus::sink& into) noexcept {
  if (ended_ == 0) return;
  std::vector<std::unique_ptr<peer>> leaving;
  for (auto at = peers_.begin(); at != peers_.end();) {
    peer& one = *at->second;
    if (one.where != phase::ended || !one.drained || !one.queue.empty()) {
      ++at;
      continue;
    }
    if (one.connection >= 0) link_of_.erase(one.connection);
    if (one.own) {
      std::erase(own_lines_, &one);
      one.own->over->hang_up(parting::silent);
      // At once when the sender let go of it in order: it may soon want another one.
      const bool in_order = one.reason == bus::errc::closed;
      redial_at_ns_[one.node] = bus::steady_ns() + (in_order ? 0 : redial_ns);
      hub_->schedule(redial_at_ns_[one.node]);
    }
    if (one.tab.owes()) --owing_;
    --ended_;
    last_found_ = nullptr;
    leaving.push_back(std::move(at->second));
    at = peers_.erase(at);
  }
  for (const auto& gone : leaving) {
    // It only ever waited, and nobody has heard of it.
    if (!gone->tab.is_open()) continue;
    // The end of a call is no end of the link that came of it.
    const bool stays =
        gone->is_call && std::any_of(peers_.begin(), peers_.end(), [&](const auto& other) {
          return other.second->node == gone->node && !other.second->is_call &&
                 other.second->where == phase::admitted;
        });
    if (!stays) into.left(gone->node, gone->reason);
    const auto next = std::find_if(peers_.begin(), peers_.end(), [&](const auto& other) {
      return other.second->node == gone->node && other.second->is_call == gone->is_call &&
             other.second->where == phase::waiting;
    });
    if (next != peers_.end()) admit(*next->second);
  }
}

}  // namespace transports::zeromq
