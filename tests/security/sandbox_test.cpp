// A child that is locked in, and that does not keep to the rules: it leaves its node aside and does
// what a hostile program would. Each attempt is made by the same code outside as well, where it
// succeeds: so that what fails inside fails for the walls.
#include "bus/base/fd.hpp"
#include "bus/bus.hpp"
#include "schemas/bus/control.pb.h"
#include "tests/contract/world.hpp"
#include "tests/unit/family.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using tests::household;
using tests::kin;
using tests::patience;
using tests::reading;

namespace {

// A child that knows where the parent's directory is.
bus::child start(household& with, const std::string& hidden_case, bus::spawn_options options) {
  options.environment.push_back("SCENE=" + with.scratch.path());
  return with.start(hidden_case, std::move(options));
}

std::string scene() { return std::getenv("SCENE"); }

// A file of the bus directory with this ending.
std::string file_of(const std::string& directory, const std::string& ending) {
  for (const auto& each : std::filesystem::directory_iterator(directory)) {
    if (each.path().string().ends_with(ending)) return each.path().string();
  }
  return {};
}

bool connects(int family, const sockaddr* to, socklen_t bytes, int type) {
  const bus::fd made(::socket(family, type | SOCK_CLOEXEC, 0));
  return made && ::connect(made.get(), to, bytes) == 0;
}

bool connects_to_port(std::uint16_t port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return connects(AF_INET, reinterpret_cast<const sockaddr*>(&to), sizeof to, SOCK_STREAM);
}

bool connects_to_path(const std::string& path) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  path.copy(to.sun_path, sizeof to.sun_path - 1);
  return connects(AF_UNIX, reinterpret_cast<const sockaddr*>(&to), sizeof to, SOCK_SEQPACKET);
}

bool makes_a_node_in(const std::string& directory) {
  try {
    bus::node_options options = kin("intruder");
    options.directory = directory;
    bus::node intruder(std::move(options));
    auto out = intruder.advertise<reading>("secret");
    return out.wait_matched(1, 200ms);
  } catch (const bus::error&) {
    return false;
  }
}

// What a program may try that wants out: the names of what succeeded.
std::vector<std::string> attempts() {
  std::vector<std::string> succeeded;
  const auto attempt = [&](const std::string& what, bool success) {
    if (success) succeeded.push_back(what);
  };
  const std::string card = std::getenv("CARD");
  const std::string socket = std::getenv("SOCKET");
  const auto port = static_cast<std::uint16_t>(std::stoi(std::getenv("PORT")));
  attempt("list the bus directory",
          bus::fd(::open(scene().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)).get() >= 0);
  attempt("read a card", bus::fd(::open(card.c_str(), O_RDONLY | O_CLOEXEC)).get() >= 0);
  attempt("write a card", bus::fd(::open(card.c_str(), O_WRONLY | O_CLOEXEC)).get() >= 0);
  attempt("close the bus directory", ::chmod(scene().c_str(), 0700) == 0);
  attempt("reach a node's socket", connects_to_path(socket));
  attempt("be a node there", makes_a_node_in(scene()));
  attempt("reach the network", connects_to_port(port));
  attempt("signal the parent", ::kill(::getppid(), SIGCONT) == 0);
  return succeeded;
}

const std::vector<std::string> all_attempts = {
    "list the bus directory", "read a card",     "write a card",      "close the bus directory",
    "reach a node's socket",  "be a node there", "reach the network", "signal the parent"};

void send(contract::party& from, const bus::wire::Control& words) {
  auto lent = from.carrier->lend(words.ByteSizeLong());
  REQUIRE(lent);
  REQUIRE(words.SerializeToArray(lent->bytes().data(), static_cast<int>(words.ByteSizeLong())));
  bus::frame head;
  head.flags = bus::frame_flag::control;
  head.node = from.id.value;
  head.bytes = words.ByteSizeLong();
  const bus::sample sealed = std::move(*lent).commit(head);
  REQUIRE(from.ways.front()->send({&sealed, 1}).value_or(std::size_t{0}) == 1);
}

}  // namespace

TEST_CASE("a program that wants out", "[.]") {
  REQUIRE(attempts() == (std::getenv("OUTSIDE") ? all_attempts : std::vector<std::string>()));
}

TEST_CASE("a peer that attaches what it may not", "[.]") {
  bus::transport_setup setup;
  setup.link_depth = 1024;
  contract::party liar(transports::pipe(), setup);
  const bus::outbox& way = liar.connect({}, std::getenv("OMNIBUS_PARENT"));
  REQUIRE(contract::pump_until({&liar}, [&] { return way.state() == bus::link_state::open; }));
  bus::wire::Control hello;
  bus::wire::Card& card = *hello.mutable_introduce()->mutable_card();
  card.set_version(1);
  card.set_node(liar.id.value);
  card.set_revision(1);
  card.add_addresses("pipe:");
  send(liar, hello);
  // It speaks for another node, too, which is not there.
  bus::wire::Control rumour = hello;
  bus::wire::Card& another = *rumour.mutable_introduce()->add_others();
  another.set_version(1);
  another.set_node(17);
  another.set_revision(1);
  another.add_addresses("zmq:tcp://127.0.0.1:9");
  send(liar, rumour);
  for (const char* const topic : {"secret", "allowed"}) {
    bus::wire::Control attach;
    attach.mutable_attach()->set_publisher(1);
    attach.mutable_attach()->set_topic(topic);
    attach.mutable_attach()->set_next_sequence(1);
    send(liar, attach);
    for (std::uint64_t i = 1; i <= 100; ++i) {
      bus::sample one = liar.make(i, 8);
      REQUIRE(liar.ways.front()->send({&one, 1}).value_or(std::size_t{0}) == 1);
    }
  }
  // All of it was taken, and looked at.
  REQUIRE(contract::pump_until({&liar}, [&] { return liar.ways.front()->unsettled() == 0; },
                               {.look_every = 1ms}));
}

TEST_CASE("a child that publishes more topics than it may", "[.]") {
  bus::node here(kin("child"));
  std::vector<bus::publisher<reading>> all;
  all.reserve(100);
  for (int i = 0; i < 100; ++i) all.push_back(here.advertise<reading>("many/" + std::to_string(i)));
  auto end = here.subscribe<reading>("end");
  REQUIRE(end.take(patience));
}

TEST_CASE("statement 31: a child that is locked in has no way out but its pipes") {
  household one;
  auto spied = one.other.subscribe<reading>("**");
  const bus::fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof at;
  REQUIRE(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0);
  REQUIRE(::listen(listener.get(), 8) == 0);
  REQUIRE(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&at), &bytes) == 0);
  const std::vector<std::string> told = {"CARD=" + file_of(one.scratch.path(), ".card"),
                                         "SOCKET=" + file_of(one.scratch.path(), ".sock"),
                                         "PORT=" + std::to_string(ntohs(at.sin_port))};
  SECTION("outside, all of it succeeds") {
    bus::spawn_options options{.shares_directory = false, .environment = told};
    options.environment.emplace_back("OUTSIDE=1");
    auto child = start(one, "a program that wants out", std::move(options));
    REQUIRE(one.turn_both([&] { return child.last_end().has_value(); }));
    REQUIRE(child.last_end() == bus::exit_status{});
  }
  SECTION("locked in, nothing") {
    auto child = start(one, "a program that wants out",
                       {.sandbox = bus::allow{.publish = {"allowed"}}, .environment = told});
    INFO(child.locked_in_by().describe());
    REQUIRE(one.turn_both([&] { return child.last_end().has_value(); }));
    REQUIRE(child.last_end() == bus::exit_status{});
    REQUIRE(spied.matched() == 0);
  }
}

TEST_CASE("statement 31: what a child attaches without leave is dropped, and counted") {
  household one;
  auto spied = one.other.subscribe<reading>("**");
  auto own = one.parent.subscribe<reading>("**");
  auto child = start(one, "a peer that attaches what it may not",
                     {.sandbox = bus::allow{.publish = {"allowed"}}});
  REQUIRE(one.turn_both([&] { return child.last_end().has_value(); }));
  REQUIRE(child.last_end() == bus::exit_status{});
  // "allowed" is not on its card, so nobody has asked for it.
  REQUIRE(child.relayed().refused_messages == 200);
  REQUIRE(child.relayed().refused_topics == 2);
  REQUIRE(child.relayed().out == 0);
  REQUIRE(spied.accounts().expected == 0);
  REQUIRE(own.accounts().expected == 0);
}

TEST_CASE("statement 31: a child has no more topics than it may, and each one too many counts") {
  household one;
  auto end = one.other.advertise<reading>("end");
  auto child =
      start(one, "a child that publishes more topics than it may",
            {.sandbox = bus::allow{.publish = {"many/*"}, .subscribe = {"end"}, .topics_max = 10}});
  REQUIRE(one.turn_both([&] { return child.relayed().refused_topics == 90; }));
  REQUIRE(one.turn_both([&] { return end.matched() == 1; }));
  REQUIRE(end.publish(reading{1}));
  REQUIRE(one.turn_both([&] { return child.last_end().has_value(); }));
  REQUIRE(child.last_end() == bus::exit_status{});
}
