// The bytes of a pipe link from a stranger, cut anywhere. The input is a list of things to say:
// true to the protocol, nearly so, or no such thing. Nothing is believed beyond its limits: what is
// delivered is no more than the credits allow, and the link either goes on or ends with a reason.
#include "bus/base/check.hpp"
#include "bus/link/pool.hpp"
#include "tests/contract/pipe_switchboard.hpp"
#include "transports/pipe/pipe.hpp"
#include "transports/pipe/wire.hpp"

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include <unistd.h>

namespace {

using namespace transports::pipes;

constexpr std::uint64_t link_bytes = 1 << 16;
constexpr std::uint32_t depth = 8;

// Numbers out of the input; zeroes when it has run out.
class dice {
 public:
  explicit dice(std::span<const std::byte> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool is_empty() const { return bytes_.empty(); }
  template <class Number>
  Number take() {
    Number number{};
    const auto some = raw(sizeof number);
    std::memcpy(&number, some.data(), some.size());
    return number;
  }
  std::span<const std::byte> raw(std::size_t most) {
    const auto some = bytes_.first(std::min(most, bytes_.size()));
    bytes_ = bytes_.subspan(some.size());
    return some;
  }

 private:
  std::span<const std::byte> bytes_;
};

class hearer final : public bus::sink {
 public:
  void accept(bus::sample&& arrived) noexcept override {
    BUS_CHECK(arrived.head().node == 5 && !has_left_);
    BUS_CHECK(arrived.payload().size() == arrived.head().bytes);
    held_bytes_ += arrived.payload().size();
    BUS_CHECK(held_bytes_ <= link_bytes && held_.size() < depth);
    held_.push_back(std::move(arrived));
  }
  void left(bus::node_id peer, std::error_code reason) noexcept override {
    BUS_CHECK(peer.value == 5 && reason);
    has_left_ = reason != bus::errc::closed;
  }
  void forget() {
    held_.clear();
    held_bytes_ = 0;
  }

 private:
  std::vector<bus::sample> held_;
  std::uint64_t held_bytes_ = 0;
  bool has_left_ = false;
};

void append(std::vector<std::byte>& to, std::span<const std::byte> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

// One thing that a peer may say. `owed`: payloads that were announced.
void say_something(dice& input, std::vector<std::byte>& words, std::uint64_t& owed) {
  switch (input.take<std::uint8_t>() % 5) {
    case 0: {
      bus::frame head;
      head.bytes = input.take<std::uint16_t>() % 512;
      head.node = input.take<std::uint8_t>();
      const auto choice = input.take<std::uint8_t>();
      const word kind = choice >= 0xc0 ? word::more : word::message;
      append(words, bytes_of(message_layout{head_of(kind, choice % (depth + 1)), head}));
      owed += head.bytes;
      if (kind == word::message) words.resize(words.size() + std::exchange(owed, 0));
      break;
    }
    case 1: {
      const std::uint32_t runs = input.take<std::uint8_t>() % 4;
      append(words, bytes_of(head_of(word::release, runs)));
      for (std::uint32_t i = 0; i < runs; ++i) {
        const std::uint32_t first = input.take<std::uint8_t>() % depth;
        const std::uint32_t count = input.take<std::uint8_t>() % 3U;
        append(words, bytes_of(bus::credit_run{first, count}));
      }
      break;
    }
    case 2:
      append(words, bytes_of(head_of(word::bye, 0)));
      break;
    case 3:
      append(words, bytes_of(message_layout{head_of(word::message, input.take<std::uint32_t>()),
                                            {.flags = input.take<std::uint16_t>(),
                                             .bytes = input.take<std::uint64_t>()}}));
      break;
    default:
      append(words, input.raw(input.take<std::uint8_t>()));
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // Our end of the words' pipe may be closed by whoever reads it.
  static const auto before = ::signal(SIGPIPE, SIG_IGN);
  static_cast<void>(before);
  dice input(std::as_bytes(std::span(data, size)));
  const auto choice = input.take<std::uint8_t>();
  static const auto memory = bus::pool::make(1 << 20);
  bus::transport_setup setup;
  setup.id = bus::node_id{7};
  setup.link_depth = depth;
  setup.link_bytes_max = link_bytes;
  auto made = transports::pipe().make(setup);
  BUS_CHECK(made.has_value());
  auto [here, there] = contract::make_pair_of_pipes();
  auto way = contract::plug(**made, std::move(here), {}, (choice & 1) != 0);
  BUS_CHECK(way.has_value());
  std::vector<std::byte> words;
  if ((choice & 2) == 0) {
    hello_layout hello;
    hello.node = 5;
    hello.bytes_max = hello.link_bytes_max = link_bytes;
    hello.depth = depth;
    append(words, bytes_of(hello));
  }
  std::uint64_t owed = 0;
  while (!input.is_empty() && words.size() < link_bytes / 2) say_something(input, words, owed);
  hearer ear;
  // In pieces, so that each record is cut somewhere in some run.
  const std::size_t piece = choice < 16 ? words.size() + 1 : choice;
  for (std::size_t at = 0; at < words.size(); at += piece) {
    const auto some = std::span(words).subspan(at, std::min(piece, words.size() - at));
    if (::write(there.out.get(), some.data(), some.size()) < 0) break;
    static_cast<void>((*made)->arrivals().poll(choice % 7, ear));
    auto lent = memory->lend(40);
    const bus::sample one = std::move(*lent).commit({.bytes = 40});
    static_cast<void>((*way)->send({&one, 1}).has_value());
    if (at % 3 == 0) ear.forget();
  }
  there.out.reset();
  while ((*way)->state() != bus::link_state::gone) {
    (*made)->arrivals().attend(ear);
    static_cast<void>((*made)->arrivals().poll(depth, ear));
    ear.forget();
  }
  while ((*made)->arrivals().poll(64, ear) > 0) ear.forget();
  BUS_CHECK((*way)->reason() && (*way)->unsettled() == 0);
  return 0;
}
