#include "transports/inproc/inproc.hpp"

#include "bus/link/pool.hpp"
#include "transports/inproc/exchange.hpp"
#include "transports/inproc/lane.hpp"

#include <bit>
#include <cerrno>
#include <new>
#include <optional>
#include <string_view>

namespace transports {
namespace {

constexpr std::string_view scheme = "inproc";
// How many samples one peer may hand over before the next one's turn. A guess: enough to spread the
// cost of a turn (two shared cache lines), few enough to keep nobody waiting for long.
constexpr std::size_t turn = 32;

// Somebody else's message under our name: a frame of our own before a payload that stays where it
// is. It is its own lender, and holds the original until it is home.
class envelope final : public bus::lender {
 public:
  // Nothing if the heap is exhausted.
  [[nodiscard]] static std::optional<bus::sample> wrap(const bus::sample& original,
                                                       bus::node_id from) noexcept {
    auto* const made = new (std::nothrow) envelope(original, from);
    if (!made) return std::nullopt;
    return bus::sample(made->block_);
  }
  void take_back(bus::block&) noexcept override { delete this; }

 private:
  envelope(const bus::sample& original, bus::node_id from) noexcept
      : head_(original.head()), original_(original) {
    head_.node = from.value;
    block_.home = this;
    block_.head = &head_;
    block_.payload = original_.memory().payload;
    block_.capacity = original_.memory().capacity;
    // Relaxed: nobody else knows the block.
    block_.references.store(1, std::memory_order_relaxed);
  }

  bus::block block_;
  bus::frame head_;
  const bus::sample original_;
};

// Open from the first moment: whoever is in the hall reads what is handed in, or closes it.
class inproc_outbox final : public bus::outbox {
 public:
  struct parts {
    std::shared_ptr<exchange> through;  // keeps `where` alive
    const hall* where = nullptr;
    bus::node_id self;
    bus::node_id peer;
    std::uint64_t bytes_max = 0;
    std::shared_ptr<port> target;
    std::shared_ptr<lane> way;
  };

  explicit inproc_outbox(parts&& given) noexcept : link_(std::move(given)) {}
  ~inproc_outbox() override {
    if (!link_.where->here()) return;
    link_.way->end();
    if (link_.way->closed()) link_.way->reclaim();
    link_.target->knock();
  }

  [[nodiscard]] bus::result<std::size_t> send(
      std::span<const bus::sample> batch) noexcept override {
    if (left()) return bus::unexpected(bus::errc::gone);
    if (batch.empty()) return 0;
    if (batch.front().head().bytes > link_.bytes_max) return bus::unexpected(bus::errc::too_big);
    const std::size_t room = link_.way->room(batch.size());
    std::size_t taken = 0;
    std::uint64_t bytes = 0;
    bool exhausted = false;
    for (; taken < room; ++taken) {
      const bus::sample& one = batch[taken];
      if (one.head().bytes > link_.bytes_max) break;
      if (one.head().node == link_.self.value) {
        link_.way->put(bus::sample(one));
      } else {
        auto wrapped = envelope::wrap(one, link_.self);
        exhausted = !wrapped;
        if (exhausted) break;
        link_.way->put(std::move(*wrapped));
      }
      bytes += one.head().bytes;
    }
    if (taken == room) figures_.full += batch.size() - taken;
    if (taken == 0) {
      if (exhausted) return bus::unexpected(bus::errc::no_memory);
      return 0;
    }
    link_.way->publish();
    figures_.taken += taken;
    figures_.bytes += bytes;
    if (link_.target->knock() != bus::rung::none) ++figures_.wakeups;
    return taken;
  }

  [[nodiscard]] bus::link_state state() const noexcept override {
    return link_.way->closed() || !link_.where->here() ? bus::link_state::gone
                                                       : bus::link_state::open;
  }
  [[nodiscard]] std::error_code reason() const noexcept override {
    if (state() == bus::link_state::gone) return make_error_code(bus::errc::gone);
    return {};
  }
  // False for ever once the peer is gone: nothing will happen any more.
  [[nodiscard]] bool arm() noexcept override { return !left() && link_.way->ask(); }
  // Samples that the peer has not polled yet. What it has polled, it shares with us as references,
  // and sample::unique() tells.
  [[nodiscard]] std::size_t unsettled() noexcept override {
    return left() ? 0 : link_.way->in_flight();
  }
  [[nodiscard]] bus::link_figures figures() const noexcept override { return figures_; }
  [[nodiscard]] std::string describe() const override {
    return "node " + bus::to_hex(link_.peer.value) + " of this process, woken by its bell";
  }

 private:
  // Whether nobody reads any more. Takes home what lay on the way then.
  bool left() noexcept {
    if (!link_.where->here()) return true;
    if (!link_.way->closed()) return false;
    link_.way->reclaim();
    return true;
  }

  parts link_;
  bus::link_figures figures_;
};

class inproc_inbox final : public bus::inbox {
 public:
  // `memory`: the node's, which outlives the inbox; what comes home there knocks at `entrance`.
  inproc_inbox(const hall& where, std::shared_ptr<port> entrance, bus::pool& memory)
      : where_(where), port_(std::move(entrance)), memory_(memory) {}
  ~inproc_inbox() override {
    // In a forked child, threads that do not exist here may hold the port's mutex, and the bells
    // are the parent's: only memory is freed.
    if (!where_.here()) return;
    for (auto& one : port_->close()) lanes_.push_back(std::move(one));
    for (auto& one : lanes_) one->close();
  }

  std::size_t poll(std::size_t budget, bus::sink& into) noexcept override {
    if (!where_.here()) return 0;
    if (port_->has_newcomers()) {
      for (auto& one : port_->welcome()) lanes_.push_back(std::move(one));
    }
    std::size_t done = 0;
    std::size_t quiet = 0;  // lanes in a row that had nothing
    while (done < budget && quiet < lanes_.size()) {
      if (next_ >= lanes_.size()) next_ = 0;
      lane& one = *lanes_[next_];
      const std::size_t count = one.take(std::min(turn, budget - done), into);
      done += count;
      if (count == 0 && one.finished()) {
        const bus::node_id peer = one.from();
        lanes_.erase(lanes_.begin() + static_cast<std::ptrdiff_t>(next_));
        into.left(peer, make_error_code(bus::errc::gone));
        continue;
      }
      quiet = count == 0 ? quiet + 1 : 0;
      ++next_;
    }
    return done;
  }

  // Newcomers and departures are rare and cheap to see: poll() looks after them.
  void attend(bus::sink&) noexcept override {}
  [[nodiscard]] int wait_handle() noexcept override { return -1; }

  [[nodiscard]] bool arm() noexcept override {
    if (!where_.here()) return true;
    port_->fall_asleep();
    bool quiet = !port_->has_newcomers() && !memory_.came_home();
    for (const auto& one : lanes_) quiet = quiet && one->idle();
    if (!quiet) port_->wake_up();
    return quiet;
  }
  void disarm() noexcept override { port_->wake_up(); }

 private:
  const hall& where_;
  std::shared_ptr<port> port_;
  bus::pool& memory_;
  std::vector<std::shared_ptr<lane>> lanes_;
  std::size_t next_ = 0;  // whose turn it is
};

class inproc_transport final : public bus::transport {
 public:
  [[nodiscard]] static bus::result<std::unique_ptr<bus::transport>> make(
      std::shared_ptr<exchange> through, const bus::transport_setup& setup) {
    if (!std::has_single_bit(setup.link_depth)) {
      return bus::unexpected(bus::system_error_of(EINVAL));
    }
    auto where = through->current();
    if (!where) return bus::unexpected(where.error());
    std::unique_ptr<inproc_transport> made(
        new inproc_transport(std::move(through), **where, setup));
    made->entered_ = (*where)->enter(setup.id, made->entrance_);
    if (!made->entered_) return bus::unexpected(bus::errc::exists);
    return bus::result<std::unique_ptr<bus::transport>>(std::move(made));
  }
  ~inproc_transport() override {
    if (entered_ && where_.here()) where_.leave(self_);
  }

  [[nodiscard]] const bus::traits& about() const noexcept override { return about_; }
  [[nodiscard]] std::string where() const override {
    if (!where_.here()) return {};
    return std::string(scheme) + ":" + bus::to_hex(where_.token()) + "/" + bus::to_hex(self_.value);
  }
  [[nodiscard]] bus::inbox& arrivals() noexcept override { return inbox_; }
  [[nodiscard]] bus::result<std::unique_ptr<bus::outbox>> connect(
      bus::node_id peer, const std::string& address) override {
    if (auto ours = check(peer, address); !ours) return bus::unexpected(ours.error());
    auto target = where_.find(peer);
    if (!target) return bus::unexpected(bus::errc::not_found);
    auto way = std::make_shared<lane>(depth_, self_, entrance_);
    if (!target->admit(way)) return bus::unexpected(bus::errc::not_found);
    return bus::result<std::unique_ptr<bus::outbox>>(
        std::make_unique<inproc_outbox>(inproc_outbox::parts{.through = through_,
                                                             .where = &where_,
                                                             .self = self_,
                                                             .peer = peer,
                                                             .bytes_max = about_.bytes_max,
                                                             .target = std::move(target),
                                                             .way = std::move(way)}));
  }
  [[nodiscard]] bus::result<bus::loan> lend(std::uint64_t bytes) noexcept override {
    return memory_->lend(bytes);
  }

 private:
  inproc_transport(std::shared_ptr<exchange> through, hall& where,
                   const bus::transport_setup& setup)
      : through_(std::move(through)),
        where_(where),
        self_(setup.id),
        depth_(setup.link_depth),
        entrance_(std::make_shared<port>(*setup.doorbell)),
        memory_(bus::pool::make(setup.memory_bytes_max, bus::pool::start::line,
                                [through = through_, &where, entrance = entrance_] {
                                  if (where.here()) entrance->knock();
                                })),
        inbox_(where, entrance_, *memory_) {
    about_.scheme = scheme;
    about_.reach = bus::reach::process;
    about_.shares_memory = true;
    about_.needs_directory = true;
    about_.survives_crash = false;  // the sender's crash is the receiver's
    // The pool lends in powers of two: beyond the greatest one under its cap it has nothing.
    about_.bytes_max = std::bit_floor(setup.memory_bytes_max);
    about_.latency_ns = 9'000;
    about_.bytes_per_second = 30'000'000'000;  // the reader's cache misses; nothing is moved
  }

  // Whether `address` is `peer`'s in this exchange and this process.
  // Errors: unsupported (another scheme, exchange or process), bad_address.
  [[nodiscard]] bus::result<void> check(bus::node_id peer, std::string_view address) const {
    if (!address.starts_with(scheme) || !address.substr(scheme.size()).starts_with(':')) {
      return bus::unexpected(bus::errc::unsupported);
    }
    address.remove_prefix(scheme.size() + 1);
    constexpr std::size_t digits = 16;
    if (address.size() != 2 * digits + 1 || address[digits] != '/') {
      return bus::unexpected(bus::errc::bad_address);
    }
    const auto token = bus::from_hex(address.substr(0, digits));
    const auto id = bus::from_hex(address.substr(digits + 1));
    if (!token || !id || *token == 0) return bus::unexpected(bus::errc::bad_address);
    if (*token != where_.token()) return bus::unexpected(bus::errc::unsupported);
    if (*id != peer.value) return bus::unexpected(bus::errc::bad_address);
    return {};
  }

  const std::shared_ptr<exchange> through_;
  hall& where_;
  const bus::node_id self_;
  const std::uint32_t depth_;
  bool entered_ = false;
  bus::traits about_;
  std::shared_ptr<port> entrance_;
  bus::pool::owner memory_;
  inproc_inbox inbox_;
};

}  // namespace

std::shared_ptr<exchange> make_exchange() { return std::make_shared<exchange>(); }

std::shared_ptr<exchange> process_exchange() {
  static const std::shared_ptr<exchange> only = make_exchange();
  return only;
}

bus::transport_maker inproc(std::shared_ptr<exchange> through) {
  return {.scheme = std::string(scheme),
          .make = [through = std::move(through)](const bus::transport_setup& setup) {
            return inproc_transport::make(through, setup);
          }};
}

}  // namespace transports
