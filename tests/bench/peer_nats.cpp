// NATS: one connection for each party over loopback, by its C library. A stream is published into
// the library's buffer, which it writes whenever that is full, and is flushed at the end of a
// round; a round trip sends each message at once. Nobody drops: the library's own subscription has
// no limits, the server's are far above the window, and a connection that it cut would be an error
// here.
#include "tests/bench/peer.hpp"
#include "tests/bench/peer_broker.hpp"
#include "tests/bench/peer_server.hpp"

#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nats/nats.h>
#include <nlohmann/json.hpp>

namespace peers {
namespace {

class nats_party final : public broker_party {
 public:
  nats_party(part plays, const settings& run) : broker_party(plays, run), body_(run.size) {}
  ~nats_party() override {
    ::natsSubscription_Destroy(incoming_);
    ::natsConnection_Destroy(connection_);
  }
  nats_party(const nats_party&) = delete;
  nats_party& operator=(const nats_party&) = delete;

  std::vector<std::string> bind(const std::string& folder) override {
    const std::string configuration = folder + "/nats.conf";
    std::ofstream(configuration) << "listen: \"127.0.0.1:-1\"\n"  // any free port
                                 << "ports_file_dir: \"" << folder << "\"\n"
                                 << "max_payload: 1073741824\n"
                                 << "max_pending: 17179869184\n"
                                 << "write_deadline: \"20s\"\n";
    server_.emplace(server_options{.program = "nats-server",
                                   .package = "nats-server",
                                   .arguments = {"-c", configuration},
                                   .folder = folder});
    const std::string ports = folder + "/nats-server_" + std::to_string(server_->pid()) + ".ports";
    std::string address;
    // The server writes this file when it listens.
    server_->await([&] { return !(address = address_in(ports)).empty(); });
    begin(address, "there", "back");
    return {address};
  }
  void connect(const std::string& address) override {
    begin(address, "back", "there");
    announce(here);
  }

 protected:
  bool publish(std::uint64_t word, std::uint64_t bytes) override {
    if (bytes == run_.size) {
      write_payload(body_.data(), run_, word);
    } else {
      std::memcpy(body_.data(), &word, sizeof word);
    }
    must(::natsConnection_Publish(connection_, subject_.c_str(), body_.data(),
                                  static_cast<int>(bytes)),
         "publish");
    return true;
  }
  bool flush() override {
    must(::natsConnection_FlushTimeout(connection_, patience_ms), "flush");
    return true;
  }
  // Only a source gathers, and a thread of the library empties its buffer within a millisecond.
  bool hasten() override { return true; }
  std::optional<std::uint64_t> take(std::uint64_t bytes) override {
    natsMsg* message = nullptr;
    const bool came = run_.wait == "sleep" ? arrived(message, patience_ms)
                                           : spin_until([&] { return arrived(message, 0); });
    if (!came) return std::nullopt;
    const char* const body = ::natsMsg_GetData(message);
    if (::natsMsg_GetDataLength(message) != static_cast<int>(bytes)) {
      fail("a message of another length");
    }
    std::uint64_t word = 0;
    if (bytes == run_.size) {
      word = read_payload(body, run_);
    } else {
      std::memcpy(&word, body, sizeof word);
    }
    ::natsMsg_Destroy(message);
    return word;
  }

 private:
  static void must(natsStatus status, const std::string& what) {
    if (status != NATS_OK) fail("nats " + what + ": " + ::natsStatus_GetText(status));
  }
  // Empty while the file is not there, or not yet whole.
  static std::string address_in(const std::string& ports) {
    std::ifstream file(ports);
    const auto told = nlohmann::json::parse(file, nullptr, false);
    if (!told.is_object() || told.value("nats", nlohmann::json::array()).empty()) return {};
    return told["nats"][0].get<std::string>();
  }
  void begin(const std::string& address, const std::string& out, const std::string& in) {
    subject_ = out;
    natsOptions* options = nullptr;
    must(::natsOptions_Create(&options), "options");
    must(::natsOptions_SetURL(options, address.c_str()), "address");
    must(::natsOptions_SetAllowReconnect(options, false), "options");
    must(::natsOptions_SetSendAsap(options, plays_ != part::source), "options");
    must(::natsOptions_SetIOBufSize(options, buffer_bytes), "options");
    must(::natsConnection_Connect(&connection_, options), "connect");
    ::natsOptions_Destroy(options);
    must(::natsConnection_SubscribeSync(&incoming_, connection_, in.c_str()), "subscribe");
    must(::natsSubscription_SetPendingLimits(incoming_, -1, -1), "limits");
    must(::natsConnection_FlushTimeout(connection_, patience_ms), "subscribe");
  }
  bool arrived(natsMsg*& message, int timeout_ms) {
    const natsStatus status = ::natsSubscription_NextMsg(&message, incoming_, timeout_ms);
    if (status != NATS_OK && status != NATS_TIMEOUT) must(status, "subscription");
    return status == NATS_OK;
  }

  static constexpr int buffer_bytes = 64 << 10;

  std::optional<server> server_;
  natsConnection* connection_ = nullptr;
  natsSubscription* incoming_ = nullptr;
  std::string subject_;
  std::vector<char> body_;
};

std::unique_ptr<party> make(part plays, const settings& run) {
  return std::make_unique<nats_party>(plays, run);
}

}  // namespace

library nats() { return {.names = {"nats"}, .make = make}; }

}  // namespace peers
