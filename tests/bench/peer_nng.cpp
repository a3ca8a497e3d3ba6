// nng over ipc: a pair for round trips, a pipeline for a stream. Its publishers always drop when a
// queue is full; so one message is shared out over a pipeline for each subscriber.
#include "tests/bench/peer.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>

namespace peers {
namespace {

class nng_party final : public party {
 public:
  nng_party(part plays, const settings& run) : run_(run) {
    const bool fanout = run.workload == "fanout" && plays == part::source;
    sockets_.resize(fanout ? run.subscribers : 1);
    for (nng_socket& one : sockets_) {
      const int opened = plays == part::pair     ? ::nng_pair0_open(&one)
                         : plays == part::source ? ::nng_push0_open(&one)
                                                 : ::nng_pull0_open(&one);
      must(opened, "nng open");
      // Some patterns have no queues; nng says so, and that is as good as it gets.
      static_cast<void>(::nng_socket_set_int(one, NNG_OPT_SENDBUF, queue));
      static_cast<void>(::nng_socket_set_int(one, NNG_OPT_RECVBUF, queue));
      must(::nng_socket_set_ms(one, NNG_OPT_SENDTIMEO, patience_ms), "nng timeout");
      must(::nng_socket_set_ms(one, NNG_OPT_RECVTIMEO, patience_ms), "nng timeout");
      must(::nng_socket_set_size(one, NNG_OPT_RECVMAXSZ, 0), "nng size");
    }
  }
  ~nng_party() override {
    for (const nng_socket one : sockets_) ::nng_close(one);
  }
  nng_party(const nng_party&) = delete;
  nng_party& operator=(const nng_party&) = delete;

  std::vector<std::string> bind(const std::string& folder) override {
    std::vector<std::string> addresses;
    for (const nng_socket one : sockets_) {
      addresses.push_back("ipc://" + folder + "/nng" + std::to_string(addresses.size()));
      must(::nng_listen(one, addresses.back().c_str(), nullptr, 0), "nng_listen");
    }
    return addresses;
  }
  void connect(const std::string& address) override {
    must(::nng_dial(sockets_.front(), address.c_str(), nullptr, 0), "nng_dial");
  }
  void gather() override {}  // the first send waits

  bool send(std::uint64_t word) override {
    nng_msg* message = nullptr;
    if (::nng_msg_alloc(&message, run_.size) != 0) return false;
    write_payload(::nng_msg_body(message), run_, word);
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
      nng_msg* each = message;
      if (i + 1 < sockets_.size() && ::nng_msg_dup(&each, message) != 0) return false;
      if (::nng_sendmsg(sockets_[i], each, 0) != 0) return false;
    }
    return true;
  }
  std::optional<std::uint64_t> receive() override {
    nng_msg* message = nullptr;
    if (!arrived(message) || ::nng_msg_len(message) != run_.size) return std::nullopt;
    const std::uint64_t word = read_payload(::nng_msg_body(message), run_);
    ::nng_msg_free(message);
    return word;
  }

 private:
  static constexpr int queue = 8192;  // nng's own maximum

  static void must(int code, const std::string& what) {
    if (code != 0) fail(what + ": " + ::nng_strerror(code));
  }
  bool arrived(nng_msg*& message) {
    if (run_.wait == "sleep") return ::nng_recvmsg(sockets_.front(), &message, 0) == 0;
    return spin_until([&] {
             return ::nng_recvmsg(sockets_.front(), &message, NNG_FLAG_NONBLOCK) != NNG_EAGAIN;
           }) &&
           message != nullptr;
  }

  const settings& run_;
  std::vector<nng_socket> sockets_;
};

std::unique_ptr<party> make(part plays, const settings& run) {
  return std::make_unique<nng_party>(plays, run);
}

}  // namespace

library nng() { return {.names = {"nng-ipc"}, .make = make}; }

}  // namespace peers
