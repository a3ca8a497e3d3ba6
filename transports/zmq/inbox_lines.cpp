// Lines that one side opens so that the other, which it cannot be called by, can send.
#include "bus/base/clock.hpp"
#include "transports/zmq/inbox.hpp"

#include <algorithm>
#include <utility>

namespace transports::zeromq {

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
  const int most = hub_->messages_max();
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

}  // namespace transports::zeromq
