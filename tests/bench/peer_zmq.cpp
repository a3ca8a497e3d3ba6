// libzmq, over ipc and over tcp: a PAIR for round trips, PUSH and PULL for a stream, XPUB and SUB
// for many. XPUB_NODROP makes a full queue wait instead of dropping, which is what the others do,
// too.
#include "tests/bench/peer.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <zmq.h>

namespace peers {
namespace {

class zmq_party final : public party {
 public:
  zmq_party(part plays, const settings& run) : run_(run), plays_(plays), context_(::zmq_ctx_new()) {
    const bool fanout = run.workload == "fanout";
    const int type = plays == part::pair     ? ZMQ_PAIR
                     : plays == part::source ? (fanout ? ZMQ_XPUB : ZMQ_PUSH)
                                             : (fanout ? ZMQ_SUB : ZMQ_PULL);
    socket_ = ::zmq_socket(context_, type);
    if (socket_ == nullptr) fail("zmq_socket");
    // Pinned, load 5, 64 B, million/s: 1000 messages 4.6, 4000 5.0, 10,000 4.4, 30,000 3.2,
    // 131,072 2.5.
    const std::uint64_t usual = std::clamp<std::uint64_t>((64ULL << 20) / run.size, 16, 4000);
    const auto queue = static_cast<int>(run.queue != 0 ? run.queue : usual);
    set(ZMQ_SNDHWM, queue);
    set(ZMQ_RCVHWM, queue);
    set(ZMQ_SNDTIMEO, patience_ms);
    set(ZMQ_RCVTIMEO, patience_ms);
    set(ZMQ_LINGER, 1000);
    if (type == ZMQ_XPUB) {
      set(ZMQ_XPUB_NODROP, 1);
      set(ZMQ_XPUB_VERBOSE, 1);  // or it would not hear of the second equal subscription
    }
    if (type == ZMQ_SUB) ::zmq_setsockopt(socket_, ZMQ_SUBSCRIBE, "", 0);
  }
  ~zmq_party() override {
    ::zmq_close(socket_);
    ::zmq_ctx_term(context_);
  }
  zmq_party(const zmq_party&) = delete;
  zmq_party& operator=(const zmq_party&) = delete;

  std::vector<std::string> bind(const std::string& folder) override {
    const std::string wanted =
        run_.peer == "zmq-tcp" ? "tcp://127.0.0.1:*" : "ipc://" + folder + "/zmq";
    if (::zmq_bind(socket_, wanted.c_str()) != 0) fail("zmq_bind " + wanted);
    std::array<char, 256> bound{};
    std::size_t bytes = bound.size();
    ::zmq_getsockopt(socket_, ZMQ_LAST_ENDPOINT, bound.data(), &bytes);
    return {bound.data()};
  }
  void connect(const std::string& address) override {
    if (::zmq_connect(socket_, address.c_str()) != 0) fail("zmq_connect " + address);
  }
  void gather() override {
    // An XPUB hears of each subscription; the others wait in their first send.
    if (plays_ != part::source || run_.workload != "fanout") return;
    for (std::uint64_t i = 0; i < run_.subscribers; ++i) {
      std::array<char, 16> words{};
      if (::zmq_recv(socket_, words.data(), words.size(), 0) < 0) fail("no subscriber came");
    }
  }
  bool send(std::uint64_t word) override {
    zmq_msg_t message;
    if (::zmq_msg_init_size(&message, run_.size) != 0) return false;
    write_payload(::zmq_msg_data(&message), run_, word);
    if (::zmq_msg_send(&message, socket_, 0) >= 0) return true;
    ::zmq_msg_close(&message);
    return false;
  }
  std::optional<std::uint64_t> receive() override {
    zmq_msg_t message;
    ::zmq_msg_init(&message);
    if (!arrived(message) || ::zmq_msg_size(&message) != run_.size) return std::nullopt;
    const std::uint64_t word = read_payload(::zmq_msg_data(&message), run_);
    ::zmq_msg_close(&message);
    return word;
  }

 private:
  void set(int option, int value) {
    if (::zmq_setsockopt(socket_, option, &value, sizeof value) != 0) fail("zmq_setsockopt");
  }
  bool arrived(zmq_msg_t& message) {
    if (run_.wait == "sleep") return ::zmq_msg_recv(&message, socket_, 0) >= 0;
    return spin_until([&] { return ::zmq_msg_recv(&message, socket_, ZMQ_DONTWAIT) >= 0; });
  }

  const settings& run_;
  part plays_;
  void* context_;
  void* socket_ = nullptr;
};

std::unique_ptr<party> make(part plays, const settings& run) {
  return std::make_unique<zmq_party>(plays, run);
}

}  // namespace

library zmq() { return {.names = {"zmq-ipc", "zmq-tcp"}, .make = make}; }

}  // namespace peers
