// Strangers on a zmq node's port, and strangers where a zmq node wanted to connect: bytes that are
// no ZMTP, ZMTP that is no Omnibus, Omnibus that breaks the rules. They hurt nobody but themselves.
#include "tests/contract/world.hpp"
#include "transports/zmq/socket.hpp"
#include "transports/zmq/wire.hpp"
#include "transports/zmq/zmq.hpp"

#include <random>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace {

using namespace std::chrono_literals;
using namespace transports::zeromq;

using contract::party;
using contract::send_all;

constexpr std::uint64_t small_link_bytes = 1 << 20;

struct zmq_case {
  static bus::transport_maker maker() { return transports::zmq(); }
  static void prepare(bus::transport_setup& setup, const std::string&) {
    setup.listen = {"tcp://127.0.0.1:*"};
    setup.link_bytes_max = small_link_bytes;
  }
};
using world = contract::world<zmq_case>;

struct rejected {
  std::string listen;
  bool insecure = false;
};

bus::result<std::unique_ptr<bus::transport>> make_listening(const rejected& with) {
  bus::transport_setup setup;
  setup.id = bus::node_id::random();
  setup.listen = {with.listen};
  setup.insecure = with.insecure;
  return transports::zmq().make(setup);
}

std::uint16_t port_of(const party& one) {
  const std::string where = one.where();
  return static_cast<std::uint16_t>(std::stoul(where.substr(where.rfind(':') + 1)));
}

bus::fd dial(std::uint16_t port) {
  bus::fd made(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(made.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0);
  return made;
}

void shout(const bus::fd& to, std::string_view bytes) {
  // The other side may have hung up already, which is as good.
  static_cast<void>(::send(to.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
}

// Whether the other side has closed this connection; swallows what it said before.
bool hung_up(const bus::fd& on) {
  std::array<char, 512> rubbish;
  for (;;) {
    const ssize_t got = ::recv(on.get(), rubbish.data(), rubbish.size(), MSG_DONTWAIT);
    if (got > 0) continue;
    return got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
  }
}

// What a ZMTP 3.0 client with NULL security says first.
std::string zmtp_opening() {
  std::string greeting(64, '\0');
  greeting[0] = '\xff';
  greeting[9] = '\x7f';
  greeting[10] = 3;
  greeting.replace(12, 4, "NULL");
  const std::string ready = std::string("\x05READY\x0bSocket-Type", 18) + std::string(
                                                                              "\0\0\0\x06"
                                                                              "DEALER",
                                                                              10);
  return greeting + '\x04' + static_cast<char>(ready.size()) + ready;
}

// Somebody who speaks ZMTP, and says whatever the test wants.
class stranger {
 public:
  stranger() : context_(std::move(*context::make(8))) {}
  // Calls `whom`.
  void call(const party& whom) {
    const std::string where = whom.where();
    socket_ = std::move(*transports::zeromq::socket::make(context_, ZMQ_DEALER));
    socket_.set(ZMQ_LINGER, 200);  // what it said last must be heard
    REQUIRE(socket_.connect(where.substr(where.find(':') + 1)));
  }
  // Waits to be called; where.
  std::string wait_for_calls() {
    socket_ = std::move(*transports::zeromq::socket::make(context_, ZMQ_ROUTER));
    socket_.set(ZMQ_LINGER, 0);
    REQUIRE(socket_.bind("tcp://127.0.0.1:*"));
    return "zmq:" + socket_.last_endpoint();
  }
  void say(std::span<const std::byte> bytes) { REQUIRE(socket_.send(bytes)); }
  // What a receiver says that listens nowhere: "send to me over this line".
  void say_offer(const party& whom, std::uint64_t as = 4711) {
    auto words = make<offer_layout>(word::offer);
    words.node = as;
    words.target = whom.id.value;
    say(bytes_of(words));
  }
  void say_hello(const party& whom, std::uint64_t as = 4711) {
    auto hello = make<hello_layout>(word::hello);
    hello.node = as;
    hello.target = whom.id.value;
    say(bytes_of(hello));
  }
  // The next word, if it has come.
  template <class Layout>
  std::optional<Layout> next() {
    message one;
    if (!socket_.receive(one)) return std::nullopt;
    return read<Layout>(std::as_const(one).bytes());
  }
  // The next word that came, letting `stage` live until then.
  template <class Layout>
  Layout hear(const world& stage) {
    message one;
    std::optional<Layout> heard;
    REQUIRE(stage.pump_until([&] { return socket_.receive(one); }, {.look_every = 1ms}));
    heard = read<Layout>(std::as_const(one).bytes());
    REQUIRE(heard);
    return *heard;
  }
  // Answers the first caller with `bytes`, after its hello.
  void answer(const world& stage, std::span<const std::byte> bytes) {
    if (caller_.bytes().empty()) {
      REQUIRE(stage.pump_until([&] { return socket_.receive(caller_); }, {.look_every = 1ms}));
      message hello;
      REQUIRE(socket_.receive(hello));
    }
    REQUIRE(socket_.send(caller_.bytes(), part::more));
    REQUIRE(socket_.send(bytes));
  }

 private:
  context context_;
  transports::zeromq::socket socket_;
  message caller_;
};

struct one_record {
  packet_layout packet = make<packet_layout>(word::packet);
  record_layout record;
  std::array<std::byte, 64> payload{};

  one_record() {
    packet.count = 1;
    packet.first = 1;
    record.head.bytes = payload.size();
  }
};

// A link between two good nodes, with which all must stay well.
struct witnesses {
  explicit witnesses(world& around)
      : stage(around),
        sender(around.add()),
        receiver(around.add()),
        way(around.link(sender, receiver)) {
    receiver.heard.keep = false;
  }
  void check() {
    send_all(stage.all(), way, sender.make_many(sent + 1, 50, 300));
    sent += 50;
    REQUIRE(stage.pump_until([&] { return receiver.heard.accepted == sent; }));
    REQUIRE(receiver.heard.unproved == 0);
    REQUIRE(way.state() == bus::link_state::open);
  }

  world& stage;
  party& sender;
  party& receiver;
  bus::outbox& way;
  std::uint64_t sent = 0;
};

}  // namespace

TEST_CASE("beyond loopback nothing is bound, unless told insecure") {
  for (const char* listen : {"tcp://*:*", "tcp://0.0.0.0:*", "tcp://*:7400", "tcp://10.1.2.3:7400",
                             "tcp://128.0.0.1:*"}) {
    CAPTURE(listen);
    REQUIRE(make_listening({listen}).error() == bus::errc::denied);
  }
  auto open = make_listening({"tcp://*:*", true});
  REQUIRE(open);
  const std::string where = (*open)->where();
  REQUIRE(where.starts_with("zmq:tcp://"));
  REQUIRE(where.substr(where.rfind("tcp://")).starts_with("tcp://127.0.0.1:"));
}

TEST_CASE("what is no address to listen to is refused") {
  for (const char* listen :
       {"", "tcp://", "127.0.0.1:7400", "udp://127.0.0.1:7400", "tcp://127.0.0.1",
        "tcp://127.0.0.1:", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:74x",
        "tcp://name.example:7400", "tcp://127.0.0.1;tcp://*:7400", "ipc:///tmp/x"}) {
    CAPTURE(listen);
    REQUIRE(make_listening({listen, true}).error() == bus::errc::bad_address);
  }
  // 192.0.2.0/24 is nobody's (RFC 5737), and so not ours.
  auto foreign = make_listening({"tcp://192.0.2.1:*", true});
  REQUIRE_FALSE(foreign);
  REQUIRE(foreign.error() != bus::errc::bad_address);
}

TEST_CASE("a taken port is replaced by a free one of the same interface") {
  world stage;
  party& door = stage.add();
  bus::transport_setup setup;
  setup.listen = {"tcp://127.0.0.1:" + std::to_string(port_of(door))};
  party second(transports::zmq(), setup);
  REQUIRE(second.where().starts_with("zmq:tcp://127.0.0.1:"));
  REQUIRE(second.where() != door.where());
  bus::outbox& way = door.connect(second.id, second.where());
  REQUIRE(contract::pump_until({&door, &second},
                               [&] { return way.state() != bus::link_state::opening; }));
  REQUIRE(way.state() == bus::link_state::open);
}

TEST_CASE("a node that listens to nothing can send, and nobody can reach it") {
  world stage;
  party& receiver = stage.add();
  party mute(transports::zmq(), {});
  REQUIRE(mute.where().empty());
  bus::outbox& way = mute.connect(receiver.id, receiver.where());
  send_all({&mute, &receiver}, way, mute.make_many(1, 10, 100));
  REQUIRE(contract::pump_until({&mute, &receiver}, [&] { return receiver.heard.accepted == 10; }));
}

TEST_CASE("bytes in flight stay within the link's limit when the consumer stops") {
  world stage;
  party& sender = stage.add({.link_depth = 4096});
  party& receiver = stage.add({.link_depth = 4096});
  bus::outbox& way = stage.link(sender, receiver);
  const std::uint64_t size = GENERATE(std::uint64_t{1000}, 100'000, small_link_bytes);
  std::vector<bus::sample> mine = sender.make_many(1, 2 * small_link_bytes / size, size);
  std::size_t sent = 0;
  for (int attempt = 0; attempt < 100; ++attempt) {
    auto taken = way.send(std::span<const bus::sample>(mine).subspan(sent));
    REQUIRE(taken);
    sent += *taken;
    sender.step();
  }
  REQUIRE(way.unsettled() == sent);
  REQUIRE(way.figures().bytes <= small_link_bytes);
  REQUIRE(way.figures().bytes > small_link_bytes - size);
  REQUIRE(way.figures().full > 0);
  receiver.heard.keep = false;
  std::vector<bus::sample> rest(mine.begin() + static_cast<long>(sent), mine.end());
  send_all(stage.all(), way, rest);
  REQUIRE(stage.pump_until([&] { return receiver.heard.accepted == mine.size(); }));
  REQUIRE(receiver.heard.unproved == 0);
  stage.settle();
}

TEST_CASE(
    "garbage, silence, half a greeting and oversized frames on the port are cut off, and harm "
    "nobody") {
  world stage;
  witnesses good(stage);
  const std::uint16_t port = port_of(good.receiver);
  const bus::fd silent = dial(port);
  const bus::fd garbage = dial(port);
  const bus::fd web = dial(port);
  const bus::fd halfway = dial(port);
  shout(halfway, zmtp_opening().substr(0, 11));
  const bus::fd mute = dial(port);  // greets, and then answers no heartbeat
  shout(mute, zmtp_opening());
  const bus::fd huge = dial(port);
  std::minstd_rand random(4711);
  std::string noise(5000, '\0');
  for (char& c : noise) c = static_cast<char>(random());
  shout(garbage, noise);
  shout(web, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  // A frame that claims 2^62 bytes, and one byte beyond a chunk.
  shout(huge, zmtp_opening());
  good.check();
  shout(huge, std::string("\x02\x40\0\0\0\0\0\0\0", 9));
  const bus::fd large = dial(port);
  shout(large, zmtp_opening() + std::string("\x02\0\0\0\0\0\x04\0\x01", 9));
  for (int i = 0; i < 20; ++i) good.check();
  for (const bus::fd* one : {&garbage, &huge, &large, &web, &silent, &halfway, &mute}) {
    REQUIRE(stage.pump_until([&] { return hung_up(*one); }, {.look_every = 10ms}));
  }
  good.check();
  REQUIRE(good.receiver.heard.departures.empty());
}

TEST_CASE("hundreds of silent connections leave room for a node") {
  world stage;
  witnesses good(stage);
  std::vector<bus::fd> silent;
  silent.reserve(300);
  for (int i = 0; i < 300; ++i) silent.push_back(dial(port_of(good.receiver)));
  party& late = stage.add();
  bus::outbox& way = stage.link(late, good.receiver);
  send_all(stage.all(), way, late.make_many(1, 1, 10));
  good.sent += 1;
  good.check();
}

TEST_CASE("data without a hello, or with a wrong one, gets a refusal and nothing else") {
  world stage;
  witnesses good(stage);
  stranger rude;
  rude.call(good.receiver);
  rude.say(bytes_of(one_record()));
  REQUIRE(rude.hear<refusal_layout>(stage).why ==
          static_cast<std::uint32_t>(refusal_reason::stranger));

  auto newer = make<hello_layout>(word::hello);
  newer.prefix.version = prefix_layout::current_version + 1;
  newer.node = 1;
  newer.target = good.receiver.id.value;
  rude.say(bytes_of(newer));
  const auto refusal = rude.hear<refusal_layout>(stage);
  REQUIRE(refusal.why == static_cast<std::uint32_t>(refusal_reason::version));
  REQUIRE(refusal.prefix.version == prefix_layout::current_version);

  rude.say_hello(good.sender);
  REQUIRE(rude.hear<refusal_layout>(stage).why ==
          static_cast<std::uint32_t>(refusal_reason::not_me));
  rude.say_hello(good.receiver, 0);
  REQUIRE(rude.hear<refusal_layout>(stage).why ==
          static_cast<std::uint32_t>(refusal_reason::broken_rule));
  good.check();
  REQUIRE(good.receiver.heard.departures.empty());
}

TEST_CASE("a peer that breaks a rule is expelled with a reason, and harms nobody") {
  world stage;
  witnesses good(stage);
  std::vector<one_record> broken(9);
  broken[0].record.credit = 100'000;                // not its credit
  broken[1].record.head.flags = 0x8000;             // a flag nobody knows
  broken[2].record.head.version = 9;                // a frame of the future
  broken[3].record.head.bytes = 65;                 // more than there is
  broken[4].record.head.bytes = ~std::uint64_t{0};  // and much more
  broken[5].packet.first = 2;                       // a gap
  broken[6].packet.count = 1'000'000;               // records that are not there
  broken[7].packet.prefix.kind = 99;                // no word of ours
  broken[8].packet.prefix.magic = 0;
  std::size_t departures = 0;
  for (const one_record& bad : broken) {
    stranger rude;
    rude.call(good.receiver);
    rude.say_hello(good.receiver, 5000 + departures);
    REQUIRE(rude.hear<welcome_layout>(stage).node == good.receiver.id.value);
    rude.say(bytes_of(bad));
    REQUIRE(rude.hear<refusal_layout>(stage).why ==
            static_cast<std::uint32_t>(refusal_reason::broken_rule));
    ++departures;
    REQUIRE(stage.pump_until([&] { return good.receiver.heard.departures.size() == departures; }));
    REQUIRE(good.receiver.heard.departures.back().reason == bus::errc::bad_message);
    // The packet with too many records has one good one in front; it proves nothing.
    good.sent = good.receiver.heard.accepted;
    good.receiver.heard.unproved = 0;
    good.check();
  }
}

namespace {

// The way of `by` over the line that `id` has offered; waits for the offer.
bus::outbox& over_offer(const world& stage, party& by, std::uint64_t id) {
  std::unique_ptr<bus::outbox> way;
  REQUIRE(stage.pump_until(
      [&] {
        auto opened = by.carrier->connect({id}, "zmq:");
        if (opened) way = std::move(*opened);
        return way != nullptr;
      },
      {.look_every = 1ms}));
  by.ways.push_back(std::move(way));
  return *by.ways.back();
}

}  // namespace

TEST_CASE("an offer that breaks a rule gets a refusal, and no way leads over it") {
  world stage;
  witnesses good(stage);
  stranger rude;
  rude.call(good.sender);
  const auto require_refused = [&](std::span<const std::byte> words, refusal_reason why) {
    rude.say(words);
    REQUIRE(rude.hear<refusal_layout>(stage).why == static_cast<std::uint32_t>(why));
    REQUIRE(good.sender.carrier->connect({4711}, "zmq:").error() == bus::errc::not_found);
  };
  auto words = make<offer_layout>(word::offer);
  words.node = 4711;
  words.target = good.receiver.id.value;
  require_refused(bytes_of(words), refusal_reason::not_me);
  words.target = good.sender.id.value;
  require_refused(bytes_of(words).first(sizeof words - 1), refusal_reason::broken_rule);
  require_refused(bytes_of(words).first(sizeof(prefix_layout)), refusal_reason::broken_rule);
  words.node = 0;
  require_refused(bytes_of(words), refusal_reason::broken_rule);
  words.node = 4711;
  words.prefix.version = prefix_layout::current_version + 1;
  require_refused(bytes_of(words), refusal_reason::version);
  good.check();
  // It may still mend its ways.
  rude.say_offer(good.sender);
  static_cast<void>(over_offer(stage, good.sender, 4711));
  REQUIRE(rude.hear<hello_layout>(stage).node == good.sender.id.value);
}

TEST_CASE("who offers a line and talks before anybody sends over it has offered nothing") {
  world stage;
  witnesses good(stage);
  stranger rude;
  rude.call(good.sender);
  rude.say_offer(good.sender);
  rude.say(bytes_of(one_record()));
  REQUIRE(rude.hear<refusal_layout>(stage).why ==
          static_cast<std::uint32_t>(refusal_reason::broken_rule));
  REQUIRE(good.sender.carrier->connect({4711}, "zmq:").error() == bus::errc::not_found);
  good.check();
}

TEST_CASE("of two offers of one node one counts, and the other is told so") {
  world stage;
  witnesses good(stage);
  std::array<stranger, 2> both;
  for (stranger& one : both) {
    one.call(good.sender);
    one.say_offer(good.sender);
  }
  std::array<std::optional<refusal_layout>, 2> told;
  REQUIRE(stage.pump_until(
      [&] {
        for (std::size_t i = 0; i < both.size(); ++i) {
          if (!told[i]) told[i] = both[i].next<refusal_layout>();
        }
        return told[0] || told[1];
      },
      {.look_every = 1ms}));
  const std::size_t first = told[0] ? 0 : 1;
  REQUIRE(told[first]->why == static_cast<std::uint32_t>(refusal_reason::stranger));
  bus::outbox& way = over_offer(stage, good.sender, 4711);
  REQUIRE(both[1 - first].hear<hello_layout>(stage).node == good.sender.id.value);
  REQUIRE(way.state() == bus::link_state::opening);
  good.check();
}

TEST_CASE("who answers wrongly over the line that it offered loses it, and harms nobody") {
  world stage;
  witnesses good(stage);
  auto welcome = make<welcome_layout>(word::welcome);
  welcome.node = 4711;
  welcome.bytes_max = 1 << 20;
  welcome.link_bytes_max = 1 << 20;
  welcome.depth = 16;
  auto foreign = welcome;
  foreign.node = 12;
  auto endless = welcome;
  endless.depth = UINT32_MAX;
  auto nobody_knows = welcome;
  nobody_knows.prefix.kind = 77;
  auto release = make<release_layout>(word::release);
  release.runs = 1'000'000;
  const one_record data;
  const std::vector<std::vector<std::span<const std::byte>>> answers = {
      {bytes_of(foreign)},
      {bytes_of(nobody_knows)},
      {bytes_of(data)},
      {bytes_of(release)},
      {bytes_of(welcome).first(sizeof welcome - 1)},
      {bytes_of(welcome), bytes_of(release)},
      {bytes_of(welcome), bytes_of(data)},
      {bytes_of(endless), bytes_of(release)},
  };
  std::uint64_t id = 6000;
  for (const auto& words : answers) {
    ++id;
    INFO("answer " << id - 6000);
    stranger rude;
    rude.call(good.sender);
    rude.say_offer(good.sender, id);
    bus::outbox& way = over_offer(stage, good.sender, id);
    REQUIRE(rude.hear<hello_layout>(stage).node == good.sender.id.value);
    for (const auto& each : words) rude.say(each);
    REQUIRE(stage.pump_until([&] { return way.state() == bus::link_state::gone; }));
    REQUIRE(way.reason());
    good.check();
  }
}

TEST_CASE("an offer whose bytes were flipped at random costs only who made it") {
  world stage;
  witnesses good(stage);
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (std::uint64_t round = 0; round < contract::times(100); ++round) {
    stranger rude;
    rude.call(good.sender);
    auto words = make<offer_layout>(word::offer);
    words.node = 7000 + round;
    words.target = good.sender.id.value;
    auto bytes = std::as_writable_bytes(std::span(&words, 1));
    for (int i = 0; i < 2; ++i) {
      bytes[random() % bytes.size()] ^= static_cast<std::byte>(1U << random() % 8);
    }
    rude.say(bytes.first(random() % 4 == 0 ? random() % bytes.size() : bytes.size()));
    if (round % 10 == 0) good.check();
  }
  good.check();
}

TEST_CASE("a peer that uses a credit twice is expelled") {
  world stage;
  witnesses good(stage);
  good.receiver.heard.keep = true;
  stranger rude;
  rude.call(good.receiver);
  rude.say_hello(good.receiver);
  static_cast<void>(rude.hear<welcome_layout>(stage));
  one_record twice;
  rude.say(bytes_of(twice));
  REQUIRE(stage.pump_until([&] { return good.receiver.heard.samples.size() == 1; }));
  twice.packet.first = 2;
  rude.say(bytes_of(twice));
  REQUIRE(stage.pump_until([&] { return good.receiver.heard.departures.size() == 1; }));
  REQUIRE(good.receiver.heard.samples.size() == 1);
}

TEST_CASE("bytes flipped at random cost only the peer that sent them") {
  world stage;
  witnesses good(stage);
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::minstd_rand random(seed);
  for (std::uint64_t round = 0; round < contract::times(1000); ++round) {
    stranger rude;
    rude.call(good.receiver);
    rude.say_hello(good.receiver, 5000 + round);
    static_cast<void>(rude.hear<welcome_layout>(stage));
    one_record flipped;
    if (random() % 2 == 0) flipped.packet.prefix.kind = static_cast<std::uint8_t>(word::begin);
    auto bytes = std::as_writable_bytes(std::span(&flipped, 1));
    for (int i = 0; i < 2; ++i) bytes[random() % bytes.size()] ^= std::byte(1 << random() % 8);
    rude.say(bytes.first(random() % 4 == 0 ? random() % bytes.size() : bytes.size()));
    if (round % 20 == 0) {
      good.sent = good.receiver.heard.accepted;
      static_cast<void>(stage.pump_until([] { return true; }));
      REQUIRE(good.way.state() == bus::link_state::open);
    }
  }
  stage.settle();
  REQUIRE(good.way.state() == bus::link_state::open);
}

TEST_CASE("a peer of another version is reported as incompatible") {
  world stage;
  party& one = stage.add();
  stranger older;
  bus::outbox& way = one.connect({4711}, older.wait_for_calls());
  auto refusal = make<refusal_layout>(word::refusal);
  refusal.prefix.version = 7;
  refusal.why = static_cast<std::uint32_t>(refusal_reason::version);
  older.answer(stage, bytes_of(refusal));
  REQUIRE(stage.pump_until([&] { return way.state() == bus::link_state::gone; }));
  REQUIRE(way.reason() == bus::errc::incompatible);
}

TEST_CASE("a receiver that returns what it does not have loses the link") {
  world stage;
  party& one = stage.add();
  stranger liar;
  bus::outbox& way = one.connect({4711}, liar.wait_for_calls());
  auto welcome = make<welcome_layout>(word::welcome);
  welcome.node = 4711;
  welcome.depth = 16;
  welcome.bytes_max = welcome.link_bytes_max = 1000;
  liar.answer(stage, bytes_of(welcome));
  REQUIRE(stage.pump_until([&] { return way.state() == bus::link_state::open; }));
  const auto mine = one.make_many(1, 2, 100);
  REQUIRE(*way.send(mine) == 2);
  struct {
    release_layout head = make<release_layout>(word::release);
    credit_run run;
  } lie;
  lie.head.runs = 1;
  lie.run = GENERATE(credit_run{1, 2}, credit_run{15, 2}, credit_run{0xffffffff, 2},
                     credit_run{0, 0xffffffff});
  liar.answer(stage, bytes_of(lie));
  REQUIRE(stage.pump_until([&] { return way.state() == bus::link_state::gone; }));
  REQUIRE(way.reason() == bus::errc::bad_message);
  REQUIRE(stage.comes_home([&] { return mine[0].unique() && mine[1].unique(); }));
}

TEST_CASE("a candidate that never answers costs its deadline, and the next one is tried") {
  world stage;
  party& sender = stage.add();
  party& receiver = stage.add();
  stranger deaf;  // accepts, speaks ZMTP, and never welcomes anybody
  const std::string where = deaf.wait_for_calls();
  const std::string second = receiver.where().substr(4);
  const std::int64_t begun_ns = bus::steady_ns();
  bus::outbox& way = sender.connect(receiver.id, where + ",tcp://127.0.0.1:1," + second);
  REQUIRE(stage.pump_until([&] { return way.state() != bus::link_state::opening; }));
  REQUIRE(way.state() == bus::link_state::open);
  REQUIRE(bus::steady_ns() - begun_ns < 10'000'000'000);

  bus::outbox& lost = sender.connect(receiver.id, where);
  REQUIRE(stage.pump_until([&] { return lost.state() != bus::link_state::opening; }));
  REQUIRE(lost.reason() == bus::errc::timed_out);
  bus::outbox& closed = sender.connect(receiver.id, "zmq:tcp://127.0.0.1:1");
  REQUIRE(stage.pump_until([&] { return closed.state() != bus::link_state::opening; }));
  REQUIRE(closed.reason() == bus::errc::not_found);
}
