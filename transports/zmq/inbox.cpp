#include "transports/zmq/inbox.hpp"

#include "bus/base/check.hpp"
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
// What one peer hands out before the next one's turn.
constexpr std::size_t turn_max = 8;
// Credits go home in batches; a few may wait this long, which costs a quiet sender at most that.
constexpr std::int64_t report_after_ns = 5'000'000;
// Silent or hostile connections are closed by libzmq after this.
constexpr int handshake_ms = 2000;
// A fleet that starts at once should not have to knock twice.
constexpr int backlog = 1024;
// Reports that leave while the transport is being destroyed.
constexpr int router_linger_ms = 100;
// A line of ours that broke is dialled again after this, as long as we have a way into that node.
constexpr std::int64_t redial_ns = 1'000'000'000;
// libzmq's own numbers for connections: a zero byte and 32 bits. Who chose a name is none of ours.
constexpr std::size_t route_bytes = 5;

using route = std::array<std::byte, route_bytes>;

route route_of(std::uint32_t link) noexcept {
  route made{};
  std::memcpy(made.data() + 1, &link, sizeof link);
  return made;
}

// A sender that keeps the rules has no more messages under way than this.
int messages_max(const bus::transport_setup& setup) noexcept {
  const std::uint64_t chunks = setup.link_bytes_max / chunk_bytes_max;
  return static_cast<int>(std::min<std::uint64_t>(2ULL * setup.link_depth + chunks + 64, 1 << 20));
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
  auto homes = homecoming::make();
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
  router_.set(ZMQ_RCVHWM, messages_max(hub_->setup()));
  // Answers, and what goes out over a line that was offered to us.
  router_.set(ZMQ_SNDHWM, 2 * messages_max(hub_->setup()));
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
  const auto most = static_cast<std::size_t>(messages_max(hub_->setup()));
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
  const auto most = static_cast<std::size_t>(messages_max(hub_->setup()));
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
  newcomer.held.assign(setup.link_depth, false);
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

// ---------------------------------------------------------------- lines that were offered to us

// What an outbox holds of an offer.
class router_inbox::returned final : public line {
 public:
  returned(router_inbox& home, std::uint32_t link) : home_(home), link_(link) {}
  ~returned() override { hang_up(parting::silent); }

  using line::send;
  [[nodiscard]] bool send(message& one) noexcept override {
    return !hung_up_ && home_.answer(link_, one);
  }
  [[nodiscard]] bool receive(message& into) noexcept override {
    offer* one = find();
    if (!one) return false;
    // Credits come home past all data that waits: whoever sends may be who should take that.
    if (one->heard.empty()) home_.receive_calls(SIZE_MAX);
    one = find();
    if (one->heard.empty()) return false;
    into = std::move(one->heard.front());
    one->heard.pop_front();
    return true;
  }
  [[nodiscard]] std::error_code ended() noexcept override {
    const offer* const one = find();
    return !one || one->has_ended ? bus::make_error_code(bus::errc::gone) : std::error_code();
  }
  void hang_up(parting /*how*/) noexcept override {
    offer* const one = find();
    if (!one) return;
    // However it ends: the peer hears of it, ends the connection, and offers another one.
    home_.say_bye(link_);
    home_.offers_.erase(link_);
    hung_up_ = true;
  }

 private:
  [[nodiscard]] offer* find() noexcept {
    const auto at = home_.offers_.find(link_);
    return hung_up_ || at == home_.offers_.end() ? nullptr : &at->second;
  }

  router_inbox& home_;
  std::uint32_t link_;
  bool hung_up_ = false;
};

void router_inbox::park(std::uint32_t link, bus::node_id from, int connection) noexcept {
  // The newest one is the one that lives.
  for (auto& [other, one] : offers_) {
    if (one.node != from || one.user) continue;
    refuse(other, refusal_reason::stranger);
    offers_heard_ = one.has_ended = true;
  }
  offer& parked = offers_[link];
  parked.node = from;
  parked.connection = connection;
}

std::unique_ptr<line> router_inbox::take_offer(bus::node_id from, watcher& owner) {
  for (auto& [link, one] : offers_) {
    if (one.node != from || one.user || one.has_ended) continue;
    one.user = &owner;
    lends_lines_ = true;
    return std::make_unique<returned>(*this, link);
  }
  return nullptr;
}

// ---------------------------------------------------------------- lines that we offer

void router_inbox::met(bus::node_id whom, const std::string& endpoint) noexcept {
  // Whoever listens can be called.
  if (router_) return;
  const bool have = std::any_of(own_lines_.begin(), own_lines_.end(),
                                [&](const peer* one) { return one->node == whom; });
  if (!have) dial(whom, endpoint);
}

void router_inbox::dial(bus::node_id whom, const std::string& endpoint) {
  auto newcomer = std::make_unique<peer>();
  newcomer->own = std::make_unique<ear>(*this);
  newcomer->link = ++last_own_;
  newcomer->node = whom;
  newcomer->where = phase::offered;
  auto prepared = prepare();
  if (!prepared) return;
  const int most = messages_max(hub_->setup());
  auto opened = dialled::open(hub_, *newcomer->own, endpoint,
                              {.received_max = most,
                               .sent_max = most,
                               .bytes_max = static_cast<std::int64_t>(chunk_bytes_max)});
  auto words = make<offer_layout>(word::offer);
  words.node = hub_->setup().id.value;
  words.target = whom.value;
  if (!opened || !(*opened)->send(bytes_of(words))) {
    redial_at_ns_[whom] = bus::steady_ns() + redial_ns;
    hub_->schedule(redial_at_ns_[whom]);
    return;
  }
  newcomer->own->over = std::move(*opened);
  own_lines_.push_back(newcomer.get());
  peers_[newcomer->link] = std::move(newcomer);
}

// The node that we called begins to send.
void router_inbox::hear_hello(peer& one, const message& body) noexcept {
  const auto hello = read<hello_layout>(body.bytes());
  const bool hails = hello && hello->prefix.magic == prefix_layout::magic_value &&
                     static_cast<word>(hello->prefix.kind) == word::hello;
  if (hails && hello->prefix.version == prefix_layout::current_version &&
      hello->node == one.node.value && hello->target == hub_->setup().id.value) {
    one.where = phase::waiting;
    if (is_first_of_its_node(one)) admit(one);
  } else {
    // A bye or a refusal, or nothing that we understand.
    end(one, bus::errc::refused, true);
  }
}

void router_inbox::tick(std::int64_t now_ns) noexcept {
  std::vector<bus::node_id> due;
  for (const auto& [whom, at_ns] : redial_at_ns_) {
    if (now_ns >= at_ns) due.push_back(whom);
    if (now_ns < at_ns) hub_->schedule(at_ns);
  }
  for (const bus::node_id whom : due) {
    redial_at_ns_.erase(whom);
    if (const std::string place = hub_->place_of(whom); !place.empty()) met(whom, place);
  }
}

// ---------------------------------------------------------------- from the queues into the sink

std::size_t router_inbox::hand_out(std::size_t budget, bus::sink& into) noexcept {
  std::size_t handed = 0;
  while (handed < budget && !turns_.empty()) {
    peer& from = *turns_.front();
    turns_.pop_front();
    const std::size_t turn = std::min(turn_max, budget - handed);
    const std::uint64_t before = from.messages;
    // A step that gives nothing has used up a ZMTP message, so this ends.
    while (from.messages - before < turn && !from.queue.empty()) step(from, into);
    handed += from.messages - before;
    if (!from.queue.empty()) turns_.push_back(&from);
  }
  return handed;
}

// Works on the ZMTP message in front, and hands over at most one sample.
void router_inbox::step(peer& from, bus::sink& into) noexcept {
  bool believable = true;
  if (from.arriving) {
    believable = next_chunk(from, into);
  } else if (from.offset == 0) {
    believable = open_message(from, from.queue.front());
  } else {
    believable = next_record(from, into);
  }
  if (!believable) {
    expel(from, bus::errc::bad_message);
  } else if (from.records_left == 0 && !from.queue.empty()) {
    from.offset = 0;
    from.queue.pop_front();
    --queued_;
  }
}

// Looks at the head of a message that is no chunk.
bool router_inbox::open_message(peer& from, const message& front) noexcept {
  const auto prefix = read<prefix_layout>(front.bytes());
  if (!prefix || prefix->magic != prefix_layout::magic_value ||
      prefix->version != prefix_layout::current_version) {
    return false;
  }
  const auto kind = static_cast<word>(prefix->kind);
  if (kind == word::bye) {
    if (!from.own) say_bye(from.link);
    end(from, bus::errc::closed, true);
    return true;
  }
  if (kind != word::packet && kind != word::begin) return false;
  const auto head = read<packet_layout>(front.bytes());
  if (!head || head->count == 0 || head->first != from.received + 1) return false;
  if (kind == word::packet) {
    from.offset = sizeof *head;
    from.records_left = head->count;
    return true;
  }
  const auto record = read<record_layout>(front.bytes().subspan(sizeof *head));
  return record && head->count == 1 && may_use(from, *record) && begin_large(from, *record);
}

// Whether the sender may send this: a frame to be believed, and within its credits.
bool router_inbox::may_use(peer& from, const record_layout& record) noexcept {
  const std::uint64_t bytes = record.head.bytes;
  if (!bus::check(record.head, hub_->bytes_max())) return false;
  if (record.credit >= from.held.size() || from.held[record.credit]) return false;
  return from.unreported_bytes + bytes <= hub_->setup().link_bytes_max;
}

bool router_inbox::next_record(peer& from, bus::sink& into) noexcept {
  const auto rest = std::as_const(from.queue.front()).bytes().subspan(from.offset);
  auto record = read<record_layout>(rest);
  if (!record || !may_use(from, *record)) return false;
  const std::uint64_t bytes = record->head.bytes;
  const auto payload = rest.subspan(sizeof *record);
  if (payload.size() < padded(bytes)) return false;
  auto lent = memory_->lend(bytes);
  if (!lent) return false;
  if (bytes > 0) std::memcpy(lent->bytes().data(), payload.data(), bytes);
  from.offset += sizeof *record + padded(bytes);
  --from.records_left;
  record->head.node = from.node.value;
  deliver(from, std::move(*lent).commit(record->head), record->credit, into);
  return true;
}

bool router_inbox::begin_large(peer& from, const record_layout& record) noexcept {
  if (record.head.bytes == 0) return false;
  auto lent = memory_->lend(record.head.bytes);
  if (!lent) return false;
  from.arriving.emplace(std::move(*lent));
  from.arriving_head = record.head;
  from.arriving_head.node = from.node.value;
  from.arriving_credit = record.credit;
  from.arrived_bytes = 0;
  return true;
}

bool router_inbox::next_chunk(peer& from, bus::sink& into) noexcept {
  const auto chunk = std::as_const(from.queue.front()).bytes();
  const std::uint64_t missing = from.arriving_head.bytes - from.arrived_bytes;
  if (chunk.empty() || chunk.size() > missing) return false;
  std::memcpy(from.arriving->bytes().data() + from.arrived_bytes, chunk.data(), chunk.size());
  from.arrived_bytes += chunk.size();
  if (chunk.size() < missing) return true;
  bus::sample whole = std::move(*from.arriving).commit(from.arriving_head);
  from.arriving.reset();
  deliver(from, std::move(whole), from.arriving_credit, into);
  return true;
}

void router_inbox::deliver(peer& from, bus::sample memory, std::uint32_t credit,
                           bus::sink& into) noexcept {
  const bus::frame& head = memory.head();
  ++from.received;
  from.messages += std::max(1U, memory.messages());
  ++from.unreported;
  from.unreported_bytes += head.bytes;
  from.held[credit] = true;
  // Whether a control message got through is asked by somebody who waits.
  if ((head.flags & bus::frame_flag::control) != 0) from.urgent = true;
  into.accept(homes_->send_out(std::move(memory), from.link, credit));
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
    if (one.released > 0) --owing_;
    --ended_;
    last_found_ = nullptr;
    leaving.push_back(std::move(at->second));
    at = peers_.erase(at);
  }
  for (const auto& gone : leaving) {
    // An empty `held`: it only ever waited, and nobody has heard of it.
    if (gone->held.empty()) continue;
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

// ---------------------------------------------------------------- what goes home

// Notes the credits of samples that were let go.
void router_inbox::collect() noexcept {
  cell* home = homes_->collect();
  while (home) {
    cell* const next = home->next;
    peer* const from = find(home->link);
    if (from && from->where == phase::admitted) {
      if (from->released++ == 0) {
        ++owing_;
        from->due_ns = bus::steady_ns() + report_after_ns;
        due_ns_ = std::min(due_ns_, from->due_ns);
      }
      from->released_bytes += home->bytes;
      if (!from->runs.empty() &&
          from->runs.back().first + from->runs.back().count == home->credit) {
        ++from->runs.back().count;
      } else {
        from->runs.push_back({home->credit, 1});
      }
    }
    homes_->recycle(*home);
    home = next;
  }
}

// Reports where it matters now: much came home, the sender has little left, or it has waited long.
void router_inbox::report(bool everything) noexcept {
  if (owing_ == 0) return;
  const bus::transport_setup& setup = hub_->setup();
  const std::int64_t now_ns = bus::steady_ns();
  due_ns_ = INT64_MAX;
  for (auto& [link, one] : peers_) {
    if (one->released == 0) continue;
    const bool much =
        one->released >= setup.link_depth / 4 || one->released_bytes >= setup.link_bytes_max / 4;
    const bool scarce = one->unreported >= setup.link_depth / 4 * 3ULL ||
                        one->unreported_bytes >= setup.link_bytes_max / 4 * 3;
    if (everything || much || scarce || one->urgent || now_ns >= one->due_ns) report_to(*one);
    if (one->released > 0) due_ns_ = std::min(due_ns_, one->due_ns);
  }
}

void router_inbox::report_to(peer& one) noexcept {
  message report;
  const std::size_t bytes = one.runs.size() * sizeof(credit_run);
  auto head = make<release_layout>(word::release);
  head.runs = static_cast<std::uint32_t>(one.runs.size());
  if (!report.allocate(sizeof head + bytes)) return;
  std::memcpy(report.bytes().data(), &head, sizeof head);
  std::memcpy(report.bytes().data() + sizeof head, one.runs.data(), bytes);
  // A connection that has ended is noticed by its monitor; until then we try again.
  if (!answer(one.link, report)) {
    one.due_ns = bus::steady_ns() + report_after_ns;
    return;
  }
  for (const credit_run& run : one.runs) {
    for (std::uint32_t i = 0; i < run.count; ++i) one.held[run.first + i] = false;
  }
  one.unreported -= one.released;
  one.unreported_bytes -= one.released_bytes;
  one.runs.clear();
  one.released = 0;
  one.released_bytes = 0;
  one.urgent = false;
  --owing_;
}

}  // namespace transports::zeromq
