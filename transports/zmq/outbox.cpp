#include "transports/zmq/outbox.hpp"

#include "bus/base/clock.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <utility>

namespace transports::zeromq {
namespace {

// A candidate that has not welcomed us by then is given up: a connection over any network takes
// less, and its node is at most that busy.
constexpr std::int64_t candidate_ns = 2'000'000'000;
// The peer's releases and refusals: no more than all credits one by one, twice.
constexpr int answers_max(std::uint32_t depth) { return static_cast<int>(2 * depth + 64); }

// A sample's memory while libzmq's thread sends it in chunks.
struct carriage {
  bus::sample memory;
  std::atomic<std::size_t> chunks;

  static void release_chunk(void*, void* hint) noexcept {
    auto* const self = static_cast<carriage*>(hint);
    // Pairs with: itself. The last chunk's drop comes after all others, and after our writes.
    if (self->chunks.fetch_sub(1, std::memory_order_acq_rel) == 1) delete self;
  }
};

std::error_code error_of(refusal_reason why) noexcept {
  switch (why) {
    case refusal_reason::version:
      return bus::errc::incompatible;
    case refusal_reason::not_me:
      return bus::errc::not_found;
    case refusal_reason::crowded:
      return bus::errc::refused;
    case refusal_reason::stranger:
      return bus::errc::gone;
    case refusal_reason::broken_rule:
      return bus::errc::bad_message;
  }
  return bus::errc::refused;
}

}  // namespace

peer_outbox::peer_outbox(std::shared_ptr<hub> shared, bus::node_id peer,
                         std::vector<std::string> candidates)
    : hub_(std::move(shared)),
      peer_(peer),
      candidates_(std::move(candidates)),
      is_call_(peer == bus::node_id{}) {
  // Where it has answered a call counts more than where it says that it can be reached.
  if (std::string place = hub_->called_at(peer_); !place.empty()) {
    std::erase(candidates_, place);
    candidates_.insert(candidates_.begin(), std::move(place));
  }
  hub_->enlist(*this);
}

peer_outbox::~peer_outbox() {
  abandon();
  hub_->dismiss(*this);
}

bus::result<void> peer_outbox::open() { return try_candidate(); }

bus::result<void> peer_outbox::open_over(std::unique_ptr<line> opened) {
  candidates_ = {"the line that it opened to us"};
  tried_ = 1;
  line_ = std::move(opened);
  return say_hello();
}

void peer_outbox::abandon() noexcept {
  // Nobody is taken leave of over a connection that has ended.
  read_events();
  const auto politely = unsettled() > 0 ? parting::owing : parting::settled;
  hang_up(state_ == bus::link_state::open ? politely : parting::silent);
  if (state_ != bus::link_state::gone) end(bus::errc::closed);
}

// Tries candidates until one can be dialled; the last one's error if none can.
bus::result<void> peer_outbox::try_candidate() {
  bus::result<void> begun = bus::unexpected(bus::errc::bad_address);
  while (!begun && tried_ < candidates_.size()) {
    auto dialling = dialled::open(
        hub_, *this, candidates_[tried_++],
        {.received_max = answers_max(hub_->setup().link_depth),
         .sent_max = 0,
         .bytes_max = static_cast<std::int64_t>(sizeof(release_layout) + 64 +
                                                hub_->setup().link_depth * sizeof(credit_run))});
    begun = dialling ? bus::result<void>() : bus::unexpected(dialling.error());
    if (begun) {
      line_ = std::move(*dialling);
      dialled_ = true;
      begun = say_hello();
    }
    if (!begun) hang_up(parting::silent);
  }
  return begun;
}

bus::result<void> peer_outbox::say_hello() {
  auto hello = make<hello_layout>(word::hello);
  hello.node = hub_->setup().id.value;
  hello.target = peer_.value;
  if (!line_->send(bytes_of(hello))) return bus::unexpected(bus::errc::no_memory);
  used_ = true;
  deadline_ns_ = bus::steady_ns() + candidate_ns;
  hub_->schedule(deadline_ns_);
  return {};
}

void peer_outbox::hang_up(parting how) noexcept {
  if (!line_) return;
  line_->hang_up(how);
  line_.reset();
}

void peer_outbox::failed(std::error_code why) noexcept {
  hang_up(parting::silent);
  if (state_ == bus::link_state::opening) {
    // What a bus node said of itself tells more than a silent or closed port.
    if (!verdict_ || why == bus::errc::incompatible || why == bus::errc::refused) verdict_ = why;
    if (try_candidate()) return;
    why = verdict_;
  }
  end(why);
}

void peer_outbox::end(std::error_code why) noexcept {
  if (std::exchange(met_, false)) hub_->parted(peer_);
  state_ = bus::link_state::gone;
  reason_ = why;
  purse_.clear();
  changed();
}

void peer_outbox::changed() noexcept {
  changed_ = true;
  if (std::exchange(armed_, false)) hub_->ring();
}

// ---------------------------------------------------------------- what the peer says

void peer_outbox::stir(source what) noexcept {
  if (what == source::messages) {
    read_messages();
  } else {
    read_events();
  }
}

void peer_outbox::tick(std::int64_t now_ns) noexcept {
  if (state_ != bus::link_state::opening) return;
  if (now_ns >= deadline_ns_) {
    // A welcome may be waiting for a node that was busy for longer than that.
    const std::size_t attempt = tried_;
    read_messages();
    if (state_ != bus::link_state::opening || attempt != tried_) return;
    failed(bus::errc::timed_out);
  } else {
    hub_->schedule(deadline_ns_);
  }
}

void peer_outbox::rest() noexcept {
  if (used_) read_messages();
}

void peer_outbox::read_messages() noexcept {
  message one;
  while (line_ && line_->receive(one)) heard(one);
  used_ = false;
}

void peer_outbox::read_events() noexcept {
  if (!line_) return;
  const std::error_code why = line_->ended();
  if (!why) return;
  // What the peer said before the end may be a refusal, and counts first.
  const std::size_t attempt = tried_;
  read_messages();
  if (line_ && attempt == tried_) failed(why);
}

void peer_outbox::heard(const message& one) noexcept {
  const auto bytes = one.bytes();
  const auto prefix = read<prefix_layout>(bytes);
  if (!prefix || prefix->magic != prefix_layout::magic_value || one.more()) {
    failed(bus::errc::bad_message);
    return;
  }
  const auto kind = static_cast<word>(prefix->kind);
  if (kind == word::refusal) {
    refused(bytes);
  } else if (prefix->version != prefix_layout::current_version) {
    failed(bus::errc::incompatible);
  } else if (kind == word::welcome && state_ == bus::link_state::opening) {
    welcomed(bytes);
  } else if (kind == word::release && state_ == bus::link_state::open) {
    released(bytes);
  } else if (kind == word::bye) {
    failed(bus::errc::gone);
  } else {
    failed(bus::errc::bad_message);
  }
}

void peer_outbox::welcomed(std::span<const std::byte> bytes) noexcept {
  const auto welcome = read<welcome_layout>(bytes);
  if (!welcome || welcome->depth == 0 || welcome->node == 0) {
    failed(bus::errc::bad_message);
    return;
  }
  if (peer_.value != 0 && welcome->node != peer_.value) {
    failed(bus::errc::not_found);
    return;
  }
  peer_.value = welcome->node;
  const std::uint32_t depth = std::min(welcome->depth, hub_->setup().link_depth);
  purse_.fill(depth, std::min(welcome->link_bytes_max, hub_->setup().link_bytes_max));
  bytes_max_ = std::min({welcome->bytes_max, hub_->bytes_max(), purse_.bytes_max()});
  state_ = bus::link_state::open;
  met_ = dialled_;
  if (met_) hub_->met(peer_, candidates_[tried_ - 1], is_call_);
  changed();
}

void peer_outbox::refused(std::span<const std::byte> bytes) noexcept {
  const auto refusal = read<refusal_layout>(bytes);
  failed(refusal ? error_of(static_cast<refusal_reason>(refusal->why))
                 : bus::make_error_code(bus::errc::bad_message));
}

void peer_outbox::released(std::span<const std::byte> bytes) noexcept {
  const auto head = read<release_layout>(bytes);
  bool believable = head && bytes.size() == sizeof *head + head->runs * sizeof(credit_run);
  for (std::size_t i = 0; believable && i < head->runs; ++i) {
    const auto run = read<credit_run>(bytes.subspan(sizeof *head + i * sizeof(credit_run)));
    believable = run && purse_.take_back(*run);
  }
  if (believable) {
    changed();
  } else {
    failed(bus::errc::bad_message);
  }
}

// ---------------------------------------------------------------- what we send

bus::result<std::size_t> peer_outbox::send(std::span<const bus::sample> batch) noexcept {
  if (state_ == bus::link_state::gone) return bus::unexpected(bus::errc::gone);
  if (batch.empty()) return std::size_t{0};
  const bool open = state_ == bus::link_state::open;
  if (batch.front().head().bytes > (open ? bytes_max_ : hub_->bytes_max())) {
    return bus::unexpected(bus::errc::too_big);
  }
  if (!open) return std::size_t{0};
  std::size_t taken = post(batch);
  if (taken < batch.size()) {
    // Credits may have come home unseen.
    read_messages();
    if (state_ == bus::link_state::gone && taken == 0) return bus::unexpected(bus::errc::gone);
    if (state_ == bus::link_state::open) taken += post(batch.subspan(taken));
  }
  if (taken < batch.size() && batch[taken].head().bytes <= bytes_max_) {
    figures_.full += batch.size() - taken;
  }
  return taken;
}

std::size_t peer_outbox::post(std::span<const bus::sample> batch) noexcept {
  std::size_t taken = 0;
  while (taken < batch.size()) {
    std::size_t posted = post_packet(batch.subspan(taken));
    if (posted == 0 && post_large(batch[taken])) posted = 1;
    if (posted == 0) break;
    taken += posted;
    used_ = true;
  }
  return taken;
}

void peer_outbox::occupy(const bus::sample& one) noexcept {
  const std::uint64_t bytes = one.head().bytes;
  purse_.occupy(one);
  ++sent_;
  ++figures_.taken;
  figures_.bytes += bytes;
}

// As many small samples from the front of `batch` as fit into one message.
std::size_t peer_outbox::post_packet(std::span<const bus::sample> batch) noexcept {
  std::size_t count = 0;
  std::size_t total = sizeof(packet_layout);
  std::uint64_t payloads = 0;
  for (const bus::sample& one : batch) {
    const std::uint64_t bytes = one.head().bytes;
    if (bytes > std::min(inline_bytes_max, bytes_max_) || !purse_.has_room(bytes, count, payloads))
      break;
    const std::size_t record = sizeof(record_layout) + padded(bytes);
    if (total + record > packet_bytes_max) break;
    total += record;
    payloads += bytes;
    ++count;
  }
  message packet;
  if (count == 0 || !packet.allocate(total)) return 0;
  std::byte* at = packet.bytes().data();
  auto head = make<packet_layout>(word::packet);
  head.count = static_cast<std::uint32_t>(count);
  head.first = sent_ + 1;
  std::memcpy(at, &head, sizeof head);
  at += sizeof head;
  for (std::size_t i = 0; i < count; ++i) {
    const auto payload = batch[i].payload();
    const record_layout record{purse_.next(i), 0, batch[i].head()};
    std::memcpy(at, &record, sizeof record);
    at += sizeof record;
    if (!payload.empty()) std::memcpy(at, payload.data(), payload.size());
    const std::size_t filled = padded(payload.size());
    std::memset(at + payload.size(), 0, filled - payload.size());
    at += filled;
  }
  if (!line_->send(packet)) return 0;
  for (std::size_t i = 0; i < count; ++i) occupy(batch[i]);
  figures_.copied += count;
  return count;
}

// One sample without a copy of ours: its frame, then its payload in chunks.
bool peer_outbox::post_large(const bus::sample& one) noexcept {
  const auto payload = one.payload();
  if (payload.size() <= inline_bytes_max || payload.size() > bytes_max_ ||
      !purse_.has_room(payload.size())) {
    return false;
  }
  const std::size_t chunks = (payload.size() + chunk_bytes_max - 1) / chunk_bytes_max;
  auto* const cargo = new (std::nothrow) carriage{one, chunks};
  if (!cargo) return false;
  struct {
    packet_layout packet = make<packet_layout>(word::begin);
    record_layout record;
  } head;
  head.packet.count = 1;
  head.packet.first = sent_ + 1;
  head.record = {purse_.next(), 0, one.head()};
  if (!line_->send(bytes_of(head))) {
    delete cargo;
    return false;
  }
  occupy(one);
  // The cargo ends with the last of its chunks, sent or not: what the analyser does not count.
  // NOLINTBEGIN(clang-analyzer-cplusplus.NewDelete,clang-analyzer-cplusplus.NewDeleteLeaks)
  for (std::size_t i = 0; i < chunks; ++i) {
    const auto chunk = payload.subspan(
        i * chunk_bytes_max, std::min(chunk_bytes_max, payload.size() - i * chunk_bytes_max));
    message part;
    const bool referred = part.refer(chunk, carriage::release_chunk, cargo);
    if (!referred) carriage::release_chunk(nullptr, cargo);
    if (!referred || !line_->send(part)) {
      // The connection ended, or memory did, in the middle: the receiver drops the beginning.
      for (std::size_t unsent = i + 1; unsent < chunks; ++unsent)
        carriage::release_chunk(nullptr, cargo);
      failed(referred ? bus::errc::gone : bus::errc::no_memory);
      break;
    }
  }
  return true;
  // NOLINTEND(clang-analyzer-cplusplus.NewDelete,clang-analyzer-cplusplus.NewDeleteLeaks)
}

bool peer_outbox::arm() noexcept {
  if (used_) read_messages();
  if (std::exchange(changed_, false)) return false;
  armed_ = true;
  return true;
}

std::size_t peer_outbox::unsettled() noexcept {
  if (purse_.in_flight() > 0) read_messages();
  return purse_.in_flight();
}

bool peer_outbox::has_room_for(std::uint64_t bytes) noexcept {
  if (purse_.in_flight() > 0) read_messages();
  return purse_.has_room(bytes);
}

std::string peer_outbox::describe() const {
  const std::string where = tried_ == 0 ? "nowhere" : candidates_[tried_ - 1];
  const std::string who = "zmq " + where + ", node " + bus::to_hex(peer_.value);
  switch (state_) {
    case bus::link_state::opening:
      return who + ": waiting for its welcome, candidate " + std::to_string(tried_) + " of " +
             std::to_string(candidates_.size());
    case bus::link_state::open:
      return who + ": woken through TCP, " + std::to_string(purse_.in_flight()) + " of " +
             std::to_string(purse_.depth()) + " samples and " +
             std::to_string(purse_.bytes_in_flight()) + " of " +
             std::to_string(purse_.bytes_max()) + " bytes in flight";
    case bus::link_state::gone:
      break;
  }
  return who + ": gone, " + reason_.message();
}

}  // namespace transports::zeromq
