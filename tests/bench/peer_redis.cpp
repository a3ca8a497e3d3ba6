// Redis: publish and subscribe over a unix socket, by hiredis. A subscribed connection cannot
// publish, so that each party has two. The one that publishes has told the server to be silent
// (CLIENT REPLY OFF): no answers, nothing to wait for. A stream is pipelined: commands gather in
// hiredis, and go out by 64 KiB; a round trip sends each at once. The server saves nothing and
// never cuts anybody off.
#include "tests/bench/peer.hpp"
#include "tests/bench/peer_broker.hpp"
#include "tests/bench/peer_server.hpp"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/time.h>

#include <hiredis/hiredis.h>

namespace peers {
namespace {

struct context_end {
  void operator()(redisContext* context) const { ::redisFree(context); }
};
using context_handle = std::unique_ptr<redisContext, context_end>;

struct reply_end {
  void operator()(redisReply* reply) const { ::freeReplyObject(reply); }
};
using reply_handle = std::unique_ptr<redisReply, reply_end>;

class redis_party final : public broker_party {
 public:
  using broker_party::broker_party;

  std::vector<std::string> bind(const std::string& folder) override {
    const std::string socket = folder + "/redis";
    server_.emplace(server_options{
        .program = "redis-server",
        .package = "redis-server",
        .arguments = {"--port", "0", "--unixsocket", socket, "--dir", folder, "--save", "",
                      "--appendonly", "no", "--client-output-buffer-limit", "pubsub 0 0 0",
                      "--client-query-buffer-limit", "4gb", "--proto-max-bulk-len", "2gb"},
        .folder = folder});
    server_->await([&] { return open(outgoing_, socket); });
    begin(socket, "there", "back");
    return {socket};
  }
  void connect(const std::string& address) override {
    if (!open(outgoing_, address)) fail("cannot connect to redis-server");
    begin(address, "back", "there");
    announce(here);
  }

 protected:
  bool publish(std::uint64_t word, std::uint64_t bytes) override {
    if (bytes != framed_bytes_) frame(bytes);
    char* const body = frame_.data() + body_at_;
    if (bytes == run_.size) {
      write_payload(body, run_, word);
    } else {
      std::memcpy(body, &word, sizeof word);
    }
    if (::redisAppendFormattedCommand(outgoing_.get(), frame_.data(), frame_.size()) != REDIS_OK) {
      return false;
    }
    gathered_ += frame_.size();
    return gathered_ < gathered_max || hasten();
  }
  // A socket that took it is as good as a server that has it: nothing is lost between them.
  bool flush() override { return hasten(); }
  bool hasten() override {
    int done = 0;
    while (done == 0) {
      if (::redisBufferWrite(outgoing_.get(), &done) != REDIS_OK) {
        fail(std::string("redis-server takes no more: ") + outgoing_->errstr);
      }
    }
    gathered_ = 0;
    return true;
  }
  std::optional<std::uint64_t> take(std::uint64_t bytes) override {
    const reply_handle reply = next();
    if (!reply) return std::nullopt;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3) fail("not a message of redis");
    const redisReply& body = *reply->element[2];
    if (body.len != bytes) fail("a message of another length");
    if (bytes == run_.size) return read_payload(body.str, run_);
    std::uint64_t word = 0;
    std::memcpy(&word, body.str, sizeof word);
    return word;
  }

 private:
  static constexpr std::size_t gathered_max = 64 << 10;

  static bool open(context_handle& into, const std::string& socket) {
    const timeval patience{.tv_sec = patience_ms / 1000, .tv_usec = 0};
    into.reset(::redisConnectUnixWithTimeout(socket.c_str(), patience));
    if (!into || into->err != 0) return false;
    into->reader->maxbuf = 0;  // keeps its buffer, however large
    return ::redisSetTimeout(into.get(), patience) == REDIS_OK;
  }
  // Requires: outgoing_ is open.
  void begin(const std::string& socket, const std::string& out, const std::string& in) {
    subject_ = out;
    if (!open(incoming_, socket)) fail("cannot connect to redis-server");
    const reply_handle subscribed(
        static_cast<redisReply*>(::redisCommand(incoming_.get(), "SUBSCRIBE %s", in.c_str())));
    if (!subscribed || subscribed->type != REDIS_REPLY_ARRAY) fail("redis-server: no subscription");
    if (::redisAppendCommand(outgoing_.get(), "CLIENT REPLY OFF") != REDIS_OK || !hasten()) {
      fail("redis-server: no silence");
    }
  }
  // The command around a body of that many bytes; made once, since all bodies are of one length.
  void frame(std::uint64_t bytes) {
    frame_ = "*3\r\n$7\r\nPUBLISH\r\n$" + std::to_string(subject_.size()) + "\r\n" + subject_ +
             "\r\n$" + std::to_string(bytes) + "\r\n";
    body_at_ = frame_.size();
    frame_.append(bytes, '\0').append("\r\n");
    framed_bytes_ = bytes;
  }
  reply_handle next() {
    void* reply = nullptr;
    if (run_.wait == "sleep") {
      const bool failed = ::redisGetReply(incoming_.get(), &reply) != REDIS_OK;
      const bool took_too_long = incoming_->err == REDIS_ERR_IO && errno == EAGAIN;
      if (failed && !took_too_long) cut_off();
    } else {
      static_cast<void>(spin_until([&] {
        if (::redisGetReplyFromReader(incoming_.get(), &reply) != REDIS_OK) cut_off();
        if (reply != nullptr) return true;
        pollfd ready{.fd = incoming_->fd, .events = POLLIN, .revents = 0};
        if (::poll(&ready, 1, 0) == 1 && ::redisBufferRead(incoming_.get()) != REDIS_OK) cut_off();
        return false;
      }));
    }
    return reply_handle(static_cast<redisReply*>(reply));
  }
  [[noreturn]] void cut_off() const {
    fail(std::string("redis-server ended the subscription: ") + incoming_->errstr);
  }

  std::optional<server> server_;
  context_handle outgoing_;
  context_handle incoming_;
  std::string subject_;
  std::string frame_;
  std::size_t body_at_ = 0;
  std::uint64_t framed_bytes_ = 0;
  std::size_t gathered_ = 0;  // bytes that hiredis has, and the server has not
};

std::unique_ptr<party> make(part plays, const settings& run) {
  return std::make_unique<redis_party>(plays, run);
}

}  // namespace

library redis() { return {.names = {"redis"}, .make = make}; }

}  // namespace peers
