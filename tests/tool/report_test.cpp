// list, info, why, doctor, completion and the rules for all verbs.
#include "bus/node/child.hpp"
#include "schemas/demo/quake.pb.h"
#include "tests/calm_sanitizers.hpp"
#include "tests/tool/workbench.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <fstream>
#include <set>
#include <sstream>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace std::chrono_literals;
using namespace tool_tests;
using json = nlohmann::json;

namespace {

const std::vector<std::string> verbs = {"list", "info", "echo",   "pub", "hz",
                                        "bw",   "why",  "doctor", "gc",  "completion"};

std::vector<json> lines_of(const std::string& text) {
  std::vector<json> found;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) found.push_back(json::parse(line));
  return found;
}

}  // namespace

TEST_CASE("every verb has help with an example, and refuses what it does not know with 2") {
  const scratch where;
  for (const std::string& verb : verbs) {
    INFO(verb);
    const outcome help = where.run({verb, "--help"});
    CHECK(help.code == 0);
    CHECK(has(help.out, "Example:"));
    CHECK(has(help.out, "bus " + verb));
    const outcome unknown = where.run({verb, "--no-such-option"});
    CHECK(unknown.code == 2);
    CHECK(has(unknown.err, "try: bus"));
  }
  CHECK(where.run({"no-such-verb"}).code == 2);
}

TEST_CASE("a report on a fresh machine makes nothing, and is no failure") {
  const scratch where;
  CHECK(where.run({}).code == 0);
  CHECK(where.run({"list", "--nodes"}).code == 0);
  CHECK(where.run({"info"}).code == 0);
  CHECK(where.run({"gc"}).code == 0);
  CHECK(where.run({"why", "a"}).code == 1);
  struct stat about {};
  CHECK(::stat((where.path() + "/bus").c_str(), &about) != 0);
}

TEST_CASE("a name from a stranger cannot send escape sequences to the terminal") {
  const scratch where;
  const bus::node evil(where.options("evil\033[31m"));
  const outcome nodes = where.run({"list", "--nodes"});
  CHECK(has(nodes.out, "evil?[31m"));
  CHECK_FALSE(has(nodes.out, "\033"));
}

TEST_CASE("info tells whom a node has refused, by user and cause") {
  const scratch where;
  bus::node one(where.options("one"));
  const std::string path =
      where.options("").directory + "/" + bus::to_hex(one.id().value) + ".sock";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  const bus::fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
          0);
  REQUIRE(::send(socket.get(), "rubbish", 7, MSG_NOSIGNAL) == 7);
  // It is told so, and then it is in the books.
  std::array<char, 64> farewell;
  const auto until = bus::deadline::after(20s);
  while (::recv(socket.get(), farewell.data(), farewell.size(), MSG_DONTWAIT) < 0) {
    REQUIRE_FALSE(until.passed());
    one.run_for(1ms);
  }
  const outcome text = where.run({"info", "one"});
  CHECK(text.code == 0);
  CHECK(has(text.out, "refused over shm, user " + std::to_string(::geteuid())));
  CHECK(has(text.out, "malformed 1"));
  const auto lines = lines_of(where.run({"info", "one", "--json"}).out);
  REQUIRE(lines.size() == 1);
  const json& books = lines[0]["books"];
  REQUIRE(books.size() == 1);
  CHECK(books[0]["kind"] == "refusals");
  CHECK(books[0]["transport"] == "shm");
  CHECK(books[0]["user"] == ::geteuid());
  CHECK(books[0]["refused"]["malformed"] == 1);
  CHECK(books[0]["refused"]["stranger"] == 0);
}

TEST_CASE("why and info name the child that is locked in, and what it may not") {
  const scratch where;
  bus::node one(where.options("one"));
  auto heard = one.subscribe<bus::raw>("open/*");
  const auto child = bus::spawn(
      one, {BUS_COMMAND, "echo", "**"},
      {.sandbox = bus::allow{.subscribe = {"open/*"}}, .environment = tests::calm_sanitizers});
  const auto until = bus::deadline::after(20s);
  while (child.relayed().refused_patterns == 0) {
    REQUIRE_FALSE(until.passed());
    one.run_for(1ms);
  }
  wait_told(one, 0, 2);
  const std::string who = "its child bus, pid " + std::to_string(child.pid());
  const outcome secret = where.run({"why", "secret/a"});
  CHECK(secret.code == 1);
  INFO(secret.out);
  CHECK(has(secret.out, "rights: one ("));
  CHECK(has(secret.out,
            who + ", may not subscribe to all of **: allow::subscribe has 'open/*' and no more"));
  CHECK(has(secret.out, "name it in bus::allow, where the child is spawned"));
  CHECK(has(where.run({"why", "open/a"}).out, "for " + who));
  const outcome books = where.run({"info", "one"});
  INFO(books.out);
  CHECK(has(books.out, "for " + who));
  CHECK(has(books.out, "relay for its child, pid " + std::to_string(child.pid())));
  CHECK(has(books.out, "refused: topics 0, patterns 1, messages 0"));
  const auto lines = lines_of(where.run({"info", "one", "--json"}).out);
  REQUIRE(lines.size() == 1);
  const json& rows = lines[0]["books"];
  const auto relay = std::find_if(rows.begin(), rows.end(),
                                  [](const json& row) { return row["kind"] == "relay"; });
  REQUIRE(relay != rows.end());
  CHECK((*relay)["pid"] == child.pid());
  CHECK((*relay)["refused_patterns"] == 1);
}

TEST_CASE("pub within a locked-in child is heard, or says what it may not") {
  const scratch where;
  bus::node one(where.options("one"));
  auto heard = one.subscribe<bus::raw>("*/a");
  const auto published = [&](const char* topic) {
    auto child = bus::spawn(
        one, {BUS_COMMAND, "pub", "--raw", topic, "hello"},
        {.sandbox = bus::allow{.publish = {"open/*"}}, .environment = tests::calm_sanitizers});
    const auto ended = child.wait(20s);
    REQUIRE(ended);
    return ended->code;
  };
  CHECK(published("open/a") == 0);
  const auto came = heard.take(20s);
  REQUIRE(came);
  CHECK(came->bytes().size() == std::string("hello").size());
  CHECK(published("secret/a") == 1);
  CHECK(heard.accounts().expected == 1);
}

TEST_CASE("list counts publishers and subscriptions, wildcards included; bare bus lists") {
  const scratch where;
  bus::node one(where.options("one"));
  const auto quakes = one.advertise<demo::Quake>("quakes/ak");
  const auto all = one.subscribe<bus::raw>("quakes/**");
  const auto exact = one.subscribe<bus::raw>("alerts");
  wait_told(one, 1, 2);
  const auto topics = lines_of(where.run({"list", "--json"}).out);
  REQUIRE(topics.size() == 2);
  CHECK(topics[0]["topic"] == "alerts");
  CHECK(topics[0]["publishers"] == 0);
  CHECK(topics[1]["topic"] == "quakes/ak");
  CHECK(topics[1]["publishers"] == 1);
  CHECK(topics[1]["subscriptions"] == 1);
  CHECK(topics[1]["types"] == json({"demo.Quake"}));
  CHECK(where.run({"list", "--names"}).out == "alerts\nquakes/ak\n");
  CHECK(where.run({"list", "--names", "quakes/*"}).out == "quakes/ak\n");
  CHECK(has(where.run({"list", "-t"}).out, "demo.Quake"));
  CHECK(where.run({}).out == where.run({"list"}).out);
  const auto nodes = lines_of(where.run({"list", "--nodes", "--json"}).out);
  REQUIRE(nodes.size() == 1);
  CHECK(nodes[0]["node"] == "one");
  CHECK(nodes[0]["life"] == "alive");
}

TEST_CASE("list and info show a node on another machine, and that its books are there") {
  const scratch here;
  const scratch there;
  bus::node_options near = here.options("near");
  near.listen = {"tcp://127.0.0.1:*"};
  bus::node door(near);
  const auto wanted = door.subscribe<demo::Quake>("quakes/**");
  const auto card = bus::rendezvous::visit(here.path() + "/bus")->read_card(door.inside().id());
  REQUIRE(card);
  bus::node_options far = there.options("far");
  for (const std::string& address : card->addresses()) {
    if (address.starts_with("zmq:")) far.peers = {address.substr(4)};
  }
  bus::node caller(far);
  const auto quakes = caller.advertise<demo::Quake>("quakes/ak");
  // Until the links file of the node here names the one that cannot be called.
  json found;
  for (int turns = 0; turns < 2000 && found.is_null(); ++turns) {
    door.run_for(std::chrono::milliseconds(5));
    caller.run_for(std::chrono::milliseconds(5));
    const auto links = bus::rendezvous::visit(here.path() + "/bus")->read_links(door.inside().id());
    if (!links || links->remotes().empty()) continue;
    if (links->remotes(0).card().advertisements().empty()) continue;
    for (const json& one : lines_of(here.run({"list", "--nodes", "--json"}).out)) {
      if (one["node"] == "far") found = one;
    }
  }
  REQUIRE(found.is_object());
  CHECK(found["life"] == "speaks");
  CHECK(found["host"] == "calls us");
  CHECK(has(here.run({"list", "--nodes"}).out, "calls us"));
  const auto topics = lines_of(here.run({"list", "--json"}).out);
  REQUIRE(topics.size() == 1);
  CHECK(topics[0]["topic"] == "quakes/ak");
  CHECK(topics[0]["publishers"] == 1);
  CHECK(topics[0]["remote_publishers"] == 1);
  CHECK(topics[0]["remote_subscriptions"] == 0);
  CHECK(has(here.run({"list"}).out, "1 (1 remote)"));
  const outcome books = here.run({"info", "far"});
  CHECK(books.code == 0);
  CHECK(has(books.out, "its books are there"));
  CHECK(has(books.out, "quakes/ak"));
}

TEST_CASE("info has the books, and still has them of a killed node") {
  const scratch where;
  other_process talker(where, "talker", [](bus::node& own, const std::function<void()>& ready) {
    auto words = own.advertise<bus::raw>("words");
    const std::string line = "hello";
    for (int i = 0; i < 3; ++i) words.publish(std::as_bytes(std::span(line)));
    ready();
    own.run();
  });
  for (const bool killed : {false, true}) {
    if (killed) talker.kill();
    const auto books = lines_of(where.run({"info", "words", "--json"}).out);
    REQUIRE(books.size() == 1);
    CHECK(books[0]["life"] == (killed ? "dead" : "alive"));
    const json& row = books[0]["books"][0];
    CHECK(row["kind"] == "publisher");
    CHECK(row["published"] == 3);
    CHECK(row["bytes"] == 15);
  }
  CHECK(has(where.run({"info", "talker"}).out, "published 3"));
  const outcome nobody = where.run({"info", "nothing"});
  CHECK(nobody.code == 1);
  CHECK(has(nobody.err, "bus why nothing"));
}

TEST_CASE("info names losses by their cause") {
  const scratch where;
  bus::node one(where.options("one"));
  auto words = one.advertise<bus::raw>("words");
  auto slow = one.subscribe<bus::raw>("words", {.depth = 2});
  wait_told(one, 1, 1);
  REQUIRE(words.wait_matched(1, 20s));
  const std::string line = "x";
  for (int i = 0; i < 5; ++i) words.publish(std::as_bytes(std::span(line)));
  one.run_for(50ms);
  REQUIRE(slow.take(20s));
  const outcome text = where.run({"info", "words"});
  CHECK(has(text.out, "lost 3 (overwritten 3)"));
  CHECK(has(text.out, "delivered 1"));
  CHECK(has(text.out, "queued 1"));
}

TEST_CASE("why says flowing with code 0, in the same words as the API") {
  const scratch where;
  bus::node one(where.options("one"));
  auto words = one.advertise<bus::raw>("words");
  auto heard = one.subscribe<bus::raw>("words");
  REQUIRE(words.wait_matched(1, 20s));
  const std::string line = "x";
  words.publish(std::as_bytes(std::span(line)));
  REQUIRE(heard.take(20s));
  // A node writes its decisions when it is turned, and seldom where writing is slow.
  outcome told = where.run({"why", "words"});
  for (const auto until = bus::deadline::after(20s); told.code != 0 && !until.passed();) {
    one.run_for(10ms);
    told = where.run({"why", "words"});
  }
  INFO(told.out);
  CHECK(told.code == 0);
  CHECK(has(told.out, "words: flowing"));
  CHECK(has(told.out, "last sent 1, last received 1, by "));
  CHECK(bus::to_text(one.why("words")) == told.out);
  const json paths = json::parse(where.run({"why", "words", "--json"}).out)["paths"];
  // Which of the two near ways is cheaper is for their traits to say.
  const std::string winner = paths[0]["winner"];
  CHECK((winner == "inproc" || winner == "shm"));
  CHECK(paths[0]["last_received"] == 1);
  CHECK(paths[0]["candidates"].size() >= 2);
}

TEST_CASE("why finds a typing error and a type mismatch") {
  const scratch where;
  bus::node one(where.options("one"));
  const auto quakes = one.advertise<demo::Quake>("quakes/ak");
  const auto typed = one.subscribe<demo::Alert>("quakes/ak");
  wait_told(one, 1, 1);
  const outcome typo = where.run({"why", "quakes/ka"});
  CHECK(typo.code == 1);
  CHECK(has(typo.out, "did you mean quakes/ak?"));
  const outcome mismatch = where.run({"why", "quakes/ak"});
  CHECK(mismatch.code == 1);
  CHECK(has(mismatch.out, "demo.Quake"));
  CHECK(has(mismatch.out, "demo.Alert"));
}

TEST_CASE("why sees a stopped peer by what it does not take") {
  const scratch where;
  other_process hearer(where, "hearer", [](bus::node& own, const std::function<void()>& ready) {
    const auto words = own.subscribe<bus::raw>("words", [](const bus::received<bus::raw>&) {});
    ready();
    own.run();
  });
  bus::node one(where.options("one"));
  auto words = one.advertise<bus::raw>("words");
  REQUIRE(words.wait_matched(1, 20s));
  REQUIRE(::kill(hearer.pid(), SIGSTOP) == 0);
  const std::string line = "x";
  for (int i = 0; i < 5; ++i) words.publish(std::as_bytes(std::span(line)));
  one.run_for(1200ms);
  const outcome told = where.run({"why", "words"});
  INFO(told.out);
  CHECK(told.code == 1);
  CHECK(has(told.out, "first broken step: taken"));
  CHECK(has(told.out, "kill -CONT " + std::to_string(hearer.pid())));
  REQUIRE(::kill(hearer.pid(), SIGCONT) == 0);
}

TEST_CASE("doctor tells each line with its state, and finds what is wrong") {
  const scratch where;
  {
    const bus::node one(where.options("one"));
    const outcome told = where.run({"doctor", "--json"});
    INFO(told.out);
    std::set<std::string> checks;
    for (const json& line : lines_of(told.out)) {
      checks.insert(line["check"]);
      CHECK(line["state"] != "fail");
      if (line["state"] != "ok") CHECK_FALSE(line["fix"].get<std::string>().empty());
    }
    CHECK(told.code == 0);
    for (const char* const name : {"directory", "space", "file system", "socket path", "inotify",
                                   "descriptors", "limits", "memfd", "wakeups", "nodes", "node"}) {
      CHECK(checks.contains(name));
    }
  }
  REQUIRE(::chmod((where.path() + "/bus").c_str(), 0777) == 0);
  const outcome told = where.run({"doctor"});
  CHECK(told.code == 1);
  CHECK(has(told.out, "everybody may write there"));
  CHECK(has(told.out, "fix: chmod 700"));
}

TEST_CASE("a bus directory that is a file is refused with one sentence") {
  const scratch where;
  std::ofstream(where.path() + "/bus") << "no directory";
  const outcome told = where.run({"list"});
  CHECK(told.code == 1);
  CHECK(has(told.err, "cannot read the bus directory"));
  CHECK(where.run({"doctor"}).code == 1);
}

TEST_CASE("somebody else's bus directory is denied, with 4 and what to do") {
  const scratch where;
  const bus::node one(where.options("one"));
  const std::string nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups ";
  const std::string command(BUS_COMMAND);
  if (std::system((nobody + command + " --version > /dev/null 2>&1").c_str()) != 0) return;
  const std::string errors = where.path() + "/errors";
  std::ofstream(errors).close();
  const std::string run = "OMNIBUS_DIR=" + where.path() + "/bus " + nobody + command;
  for (const char* const verb : {" list", " echo a --timeout 1", " gc", " info"}) {
    INFO(verb);
    const int status =
        std::system(std::string(run).append(verb).append(" 2> ").append(errors).c_str());
    CHECK(WEXITSTATUS(status) == 4);
    std::ifstream file(errors);
    std::string sentence;
    std::getline(file, sentence);
    CHECK(has(sentence, where.path()));
    CHECK(has(sentence, "; "));
  }
}

TEST_CASE("the completion knows the verbs, their options and the topics, in a real bash") {
  const scratch where;
  const outcome script = where.run({"completion", "bash"});
  REQUIRE(script.code == 0);
  for (const std::string& verb : verbs) CHECK(has(script.out, "    " + verb + ")"));
  CHECK(has(script.out, "--filter"));
  CHECK(where.run({"completion", "fish"}).code == 2);
  bus::node one(where.options("one"));
  const auto words = one.advertise<bus::raw>("words/of/mine");
  wait_told(one, 1);
  const std::string file = where.path() + "/completion";
  std::ofstream(file) << script.out << "COMP_WORDS=(" << BUS_COMMAND
                      << " echo wo); COMP_CWORD=2; _omnibus_bus; echo ${COMPREPLY[*]}\n"
                      << "COMP_WORDS=(bus ec); COMP_CWORD=1; _omnibus_bus; echo ${COMPREPLY[*]}\n"
                      << "COMP_WORDS=(bus echo --on); COMP_CWORD=2; _omnibus_bus; "
                         "echo ${COMPREPLY[*]}\n";
  const std::string command =
      "OMNIBUS_DIR=" + where.path() + "/bus bash " + file + " > " + file + ".out";
  REQUIRE(std::system(command.c_str()) == 0);
  std::ifstream out(file + ".out");
  std::string topic;
  std::string verb;
  std::string option;
  std::getline(out, topic);
  std::getline(out, verb);
  std::getline(out, option);
  CHECK(topic == "words/of/mine");
  CHECK(verb == "echo");
  CHECK(option == "--once");
}
