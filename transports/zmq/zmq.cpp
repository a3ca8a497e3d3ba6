#include "transports/zmq/zmq.hpp"

#include "bus/link/pool.hpp"
#include "transports/zmq/address.hpp"
#include "transports/zmq/hub.hpp"
#include "transports/zmq/inbox.hpp"
#include "transports/zmq/outbox.hpp"

#include <memory>
#include <utility>

namespace transports {
namespace zeromq {
namespace {

// An address without a place: over the line that the peer, which listens nowhere, has opened to us.
constexpr std::string_view line_of_the_peer = "zmq:";

class network final : public bus::transport {
 public:
  explicit network(const bus::transport_setup& setup)
      : hub_(std::make_shared<hub>(setup)),
        inbox_(std::make_unique<router_inbox>(hub_)),
        memory_(bus::pool::make(setup.memory_bytes_max)) {
    about_.scheme = scheme;
    about_.reach = bus::reach::network;
    about_.bytes_max = hub_->bytes_max();
    // Over loopback, as README.md says; a real network is slower.
    about_.latency_ns = 45'000;
    about_.bytes_per_second = 1'200'000'000;
  }

  ~network() override {
    // The last outbox may outlive us, but not our place on the network.
    for (watcher* one : std::vector<watcher*>(hub_->enlisted())) {
      if (auto* way = dynamic_cast<peer_outbox*>(one)) way->abandon();
    }
    inbox_.reset();
    hub_->end_farewells();
  }

  [[nodiscard]] bus::result<void> listen(const std::vector<std::string>& wanted, bool insecure) {
    std::vector<endpoint> parsed;
    for (const std::string& text : wanted) {
      auto one = parse_listen(text);
      if (!one) return bus::unexpected(one.error());
      // Whoever reaches the port may send: without keys, nobody beyond this machine reaches it.
      if (!one->is_loopback() && !insecure) return bus::unexpected(bus::errc::denied);
      parsed.push_back(std::move(*one));
    }
    if (parsed.empty()) return {};
    return inbox_->listen(parsed);
  }

  [[nodiscard]] const bus::traits& about() const noexcept override { return about_; }

  [[nodiscard]] std::string where() const override {
    std::string all;
    for (const std::string& one : inbox_->where()) {
      all += all.empty() ? std::string(scheme) + ":" : ",";
      all += one;
    }
    return all;
  }

  [[nodiscard]] bus::inbox& arrivals() noexcept override { return *inbox_; }

  [[nodiscard]] bus::result<std::unique_ptr<bus::outbox>> connect(
      bus::node_id peer, const std::string& address) override {
    if (address == line_of_the_peer) {
      auto way = std::make_unique<peer_outbox>(hub_, peer, std::vector<std::string>());
      auto offered = inbox_->take_offer(peer, *way);
      if (!offered) return bus::unexpected(bus::errc::not_found);
      auto opened = way->open_over(std::move(offered));
      if (!opened) return bus::unexpected(opened.error());
      return std::unique_ptr<bus::outbox>(std::move(way));
    }
    auto parsed = parse_where(address);
    if (!parsed) return bus::unexpected(parsed.error());
    auto way = std::make_unique<peer_outbox>(hub_, peer, std::move(*parsed));
    auto opened = way->open();
    if (!opened) return bus::unexpected(opened.error());
    return std::unique_ptr<bus::outbox>(std::move(way));
  }

  [[nodiscard]] bus::result<bus::loan> lend(std::uint64_t bytes) noexcept override {
    if (bytes > about_.bytes_max) return bus::unexpected(bus::errc::too_big);
    return memory_->lend(bytes);
  }

 private:
  std::shared_ptr<hub> hub_;
  std::unique_ptr<router_inbox> inbox_;
  bus::pool::owner memory_;
  bus::traits about_;
};

}  // namespace
}  // namespace zeromq

bus::transport_maker zmq() {
  const auto make =
      [](const bus::transport_setup& setup) -> bus::result<std::unique_ptr<bus::transport>> {
    auto made = std::make_unique<zeromq::network>(setup);
    auto listening = made->listen(setup.listen, setup.insecure);
    if (!listening) return bus::unexpected(listening.error());
    return std::unique_ptr<bus::transport>(std::move(made));
  };
  return {std::string(zeromq::scheme), make};
}

}  // namespace transports
