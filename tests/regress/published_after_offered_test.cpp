// A publisher killed between offering a message and counting it left a ledger that said one less
// than its subscriber had been given.
#include "tests/scratch.hpp"
#include "tests/stress/crew.hpp"
#include "transports/shm/shm.hpp"

#include <csignal>
#include <memory>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

// Dies right after its peer was given the third data message.
class deadly_outbox final : public bus::outbox {
 public:
  explicit deadly_outbox(std::unique_ptr<bus::outbox> real) : real_(std::move(real)) {}
  bus::result<std::size_t> send(std::span<const bus::sample> batch) noexcept override {
    const auto sent = real_->send(batch);
    if (batch.front().head().sequence == 3) ::raise(SIGKILL);
    return sent;
  }
  bus::link_state state() const noexcept override { return real_->state(); }
  std::error_code reason() const noexcept override { return real_->reason(); }
  bool arm() noexcept override { return real_->arm(); }
  std::size_t unsettled() noexcept override { return real_->unsettled(); }
  bus::link_figures figures() const noexcept override { return real_->figures(); }
  std::string describe() const override { return real_->describe(); }

 private:
  std::unique_ptr<bus::outbox> real_;
};

class deadly_transport final : public bus::transport {
 public:
  explicit deadly_transport(std::unique_ptr<bus::transport> real) : real_(std::move(real)) {}
  const bus::traits& about() const noexcept override { return real_->about(); }
  std::string where() const override { return real_->where(); }
  bus::inbox& arrivals() noexcept override { return real_->arrivals(); }
  bus::result<std::unique_ptr<bus::outbox>> connect(bus::node_id peer,
                                                    const std::string& address) override {
    auto real = real_->connect(peer, address);
    if (!real) return bus::unexpected(real.error());
    return std::unique_ptr<bus::outbox>(std::make_unique<deadly_outbox>(std::move(*real)));
  }
  bus::result<bus::loan> lend(std::uint64_t bytes) noexcept override { return real_->lend(bytes); }

 private:
  std::unique_ptr<bus::transport> real_;
};

bus::transport_maker deadly_shm() {
  return {"shm",
          [](const bus::transport_setup& setup) -> bus::result<std::unique_ptr<bus::transport>> {
            auto real = transports::shm().make(setup);
            if (!real) return bus::unexpected(real.error());
            return std::unique_ptr<bus::transport>(
                std::make_unique<deadly_transport>(std::move(*real)));
          }};
}

}  // namespace

TEST_CASE("a publisher's last word covers all that it gave away") {
  const tests::scratch_directory scratch;
  fault::child speaker([&](fault::channel& parent) {
    bus::node node({.name = "w", .transports = {deadly_shm()}, .directory = scratch.path()});
    parent.say(node.id().value);
    auto numbers = node.advertise<crew::numbered>("numbers");
    crew::must(numbers.wait_matched(1, crew::patience), "nobody listens");
    for (std::uint64_t i = 1; i <= 10; ++i) static_cast<void>(numbers.publish(crew::make(i, 1)));
  });
  const bus::node_id source{speaker.pipe().hear(crew::patience)};
  fault::child listener([&](fault::channel& parent) {
    bus::node node({.name = "r", .transports = {transports::shm()}, .directory = scratch.path()});
    auto heard = node.subscribe<crew::numbered>("numbers");
    while (heard.accounts().delivered < 3) {
      crew::must(heard.take(crew::patience).has_value(), "a message is missing");
    }
    crew::say(parent, heard.accounts());
  });
  REQUIRE(speaker.wait() == -SIGKILL);
  const bus::accounts books = crew::hear_accounts(listener.pipe());
  CHECK(books.delivered == 3);
  CHECK(crew::published_by(scratch.path(), source) == 3);
  CHECK(listener.wait() == 0);
}
