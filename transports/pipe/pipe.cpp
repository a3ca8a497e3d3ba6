#include "transports/pipe/pipe.hpp"

#include "bus/link/pool.hpp"
#include "transports/pipe/address.hpp"
#include "transports/pipe/hub.hpp"
#include "transports/pipe/outbox.hpp"

#include <memory>
#include <string>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

namespace transports {
namespace {

// The pipes of `ends`, under the numbers that they have in another process.
bus::result<std::string> pipe_address(const pipe_pair& ends, const pipe_pair& numbers) {
  std::string text(pipes::scheme);
  for (const auto& [end, number] : {std::pair(ends.in, numbers.in), {ends.out, numbers.out}}) {
    struct stat about {};
    if (::fstat(end, &about) != 0 || !S_ISFIFO(about.st_mode)) {
      return bus::unexpected(bus::errc::bad_address);
    }
    text += end == ends.in ? ":" : ",";
    text += std::to_string(number) + "@" + std::to_string(about.st_ino);
  }
  return text + (ends.lends_pages ? ",pages" : "");
}

}  // namespace

namespace pipes {
namespace {

class pipe_transport final : public bus::transport {
 public:
  explicit pipe_transport(const bus::transport_setup& setup)
      : hub_(std::make_unique<hub>(setup)),
        memory_(bus::pool::make(setup.memory_bytes_max, bus::pool::start::page)) {
    about_.scheme = scheme;
    about_.reach = bus::reach::host;
    about_.invites = true;
    about_.bytes_max = hub_->bytes_max();
    // As README.md says.
    about_.latency_ns = 9'000;
    about_.bytes_per_second = 1'500'000'000;
  }

  ~pipe_transport() override { hub_->close(); }

  [[nodiscard]] const bus::traits& about() const noexcept override { return about_; }
  [[nodiscard]] std::string where() const override { return std::string(scheme) + ":"; }
  [[nodiscard]] bus::inbox& arrivals() noexcept override { return *hub_; }

  [[nodiscard]] bus::result<std::unique_ptr<bus::outbox>> connect(
      bus::node_id peer, const std::string& address) override {
    if (hub_->is_forked()) return bus::unexpected(bus::errc::closed);
    const auto named = parse(address);
    if (!named) return bus::unexpected(named.error());
    auto over = hub_->find(peer);
    if (*named) {
      auto plugged = hub_->plug(peer, **named);
      if (!plugged) return bus::unexpected(plugged.error());
      over = std::move(*plugged);
    }
    if (!over) return bus::unexpected(bus::errc::not_found);
    if (!over->has_room_for_a_way()) return bus::unexpected(bus::errc::quota);
    return std::unique_ptr<bus::outbox>(std::make_unique<peer_outbox>(std::move(over)));
  }

  [[nodiscard]] bus::result<bus::invitation> invite(int first, bool is_trusted) override {
    auto down = bus::make_pipe();
    if (!down) return bus::unexpected(down.error());
    auto up = bus::make_pipe();
    if (!up) return bus::unexpected(up.error());
    auto ours = pipe_address(
        {.in = up->reader.get(), .out = down->writer.get(), .lends_pages = is_trusted});
    auto theirs =
        pipe_address({.in = down->reader.get(), .out = up->writer.get(), .lends_pages = true},
                     {.in = first, .out = first + 1});
    if (!ours || !theirs) return bus::unexpected(bus::errc::bad_address);
    bus::invitation made;
    made.theirs.push_back(std::move(down->reader));
    made.theirs.push_back(std::move(up->writer));
    made.their_address = std::move(*theirs);
    made.ours.push_back(std::move(up->reader));
    made.ours.push_back(std::move(down->writer));
    made.our_address = std::move(*ours);
    return made;
  }

  [[nodiscard]] bus::result<bus::loan> lend(std::uint64_t bytes) noexcept override {
    if (bytes > about_.bytes_max) return bus::unexpected(bus::errc::too_big);
    return memory_->lend(bytes);
  }

 private:
  std::unique_ptr<hub> hub_;
  bus::pool::owner memory_;
  bus::traits about_;
};

}  // namespace
}  // namespace pipes

bus::transport_maker pipe() {
  const auto make =
      [](const bus::transport_setup& setup) -> bus::result<std::unique_ptr<bus::transport>> {
    return std::unique_ptr<bus::transport>(std::make_unique<pipes::pipe_transport>(setup));
  };
  return {std::string(pipes::scheme), make};
}

bus::result<std::string> pipe_address(const pipe_pair& ends) { return pipe_address(ends, ends); }

}  // namespace transports
