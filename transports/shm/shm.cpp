#include "transports/shm/shm.hpp"

#include "transports/shm/hub.hpp"

#include <string>
#include <string_view>
#include <utility>

namespace transports {
namespace {

using shared::hub;
using shared::outgoing;

constexpr std::string_view scheme = "shm";

std::string_view name_of(bus::rung used) noexcept {
  switch (used) {
    case bus::rung::none:
      return "nothing";
    case bus::rung::semaphore:
      return "semaphore";
    case bus::rung::signal:
      return "signal";
    case bus::rung::event:
      return "event";
    case bus::rung::socket:
      return "socket";
  }
  return "nothing";
}

class shm_outbox final : public bus::outbox {
 public:
  shm_outbox(std::shared_ptr<hub> home, std::unique_ptr<outgoing> link) noexcept
      : home_(std::move(home)), link_(std::move(link)) {}

  ~shm_outbox() override {
    if (home_->is_forked()) {
      // The parent's link: its copy here is left alone.
      static_cast<void>(link_.release());
      return;
    }
    home_->leave(std::move(link_));
  }

  bus::result<std::size_t> send(std::span<const bus::sample> batch) noexcept override {
    return home_->send(*link_, batch);
  }
  bus::result<std::size_t> give(bus::sample&& one) noexcept override {
    return home_->give(*link_, std::move(one));
  }
  std::byte* claim(std::uint64_t bytes) noexcept override { return home_->claim(*link_, bytes); }
  void commit(const bus::frame& head) noexcept override { home_->commit(*link_, head); }
  bus::link_state state() const noexcept override { return link_->state; }
  std::error_code reason() const noexcept override { return link_->reason; }
  bool arm() noexcept override { return home_->arm(*link_); }
  std::size_t unsettled() noexcept override { return home_->unsettled(*link_); }
  bus::link_figures figures() const noexcept override {
    bus::link_figures all = link_->figures;
    if (link_->bell) all.fallen = link_->bell->fallen();
    return all;
  }

  std::string describe() const override {
    std::string text = "pid " + std::to_string(link_->who.pid) + " uid " +
                       std::to_string(static_cast<std::int64_t>(link_->who.uid));
    if (link_->bell) text += ", woken by " + std::string(name_of(link_->bell->loop_rung()));
    return text;
  }

 private:
  std::shared_ptr<hub> home_;
  std::unique_ptr<outgoing> link_;
};

class shm_transport final : public bus::transport {
 public:
  shm_transport(std::shared_ptr<hub> home, bus::node_id id) : home_(std::move(home)), id_(id) {
    about_ = {.scheme = scheme,
              .reach = bus::reach::host,
              .shares_memory = true,
              .needs_directory = true,
              .survives_crash = true,
              .bytes_max = home_->payload_bytes_max(),
              .latency_ns = 8'000,
              .bytes_per_second = 20'000'000'000};
  }

  ~shm_transport() override {
    if (home_->is_forked()) {
      // Not ours: closing would end the parent's links.
      static_cast<void>(new std::shared_ptr<hub>(std::move(home_)));
      return;
    }
    home_->close();
  }

  const bus::traits& about() const noexcept override { return about_; }
  std::string where() const override { return std::string(scheme) + ":" + bus::to_hex(id_.value); }
  bus::inbox& arrivals() noexcept override { return *home_; }

  bus::result<std::unique_ptr<bus::outbox>> connect(bus::node_id peer,
                                                    const std::string& address) override {
    const std::string_view text = address;
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos) return bus::unexpected(bus::errc::bad_address);
    if (text.substr(0, colon) != scheme) return bus::unexpected(bus::errc::unsupported);
    const auto named = bus::from_hex(text.substr(colon + 1));
    // An address names the node that it reaches, and nobody else.
    if (!named || *named != peer.value) return bus::unexpected(bus::errc::bad_address);
    auto link = home_->connect(peer);
    if (!link) return bus::unexpected(link.error());
    return std::unique_ptr<bus::outbox>(std::make_unique<shm_outbox>(home_, std::move(*link)));
  }

  bus::result<void> move_to(const std::string& directory) override {
    return home_->move_to(directory);
  }

  void reconsider() override { home_->reconsider(); }

  bus::result<bus::loan> lend(std::uint64_t bytes) noexcept override { return home_->lend(bytes); }

 private:
  std::shared_ptr<hub> home_;
  bus::node_id id_;
  bus::traits about_;
};

}  // namespace

bus::transport_maker shm() {
  return {std::string(scheme),
          [](const bus::transport_setup& setup) -> bus::result<std::unique_ptr<bus::transport>> {
            auto home = hub::make(setup);
            if (!home) return bus::unexpected(home.error());
            return std::unique_ptr<bus::transport>(
                std::make_unique<shm_transport>(std::move(*home), setup.id));
          }};
}

}  // namespace transports
