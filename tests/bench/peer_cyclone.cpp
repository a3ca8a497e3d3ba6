// Cyclone DDS over loopback. Reliable, and both histories keep all, so that a writer waits for its
// readers instead of overwriting. Packets are as large as UDP has them; a stream is written in
// batches, which are flushed at the end of a round, and taken by many at once. Each benchmark has a
// tag of its own, the name of its folder, so that no other participant of this machine meets it.
#include "tests/bench/peer.hpp"
#include "tests/bench/peer_message.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <dds/dds.h>
#include <fmt/format.h>

namespace peers {
namespace {

constexpr dds_domainid_t domain = 77;

// Throws unless that succeeded; gives what it gave.
dds_return_t must(dds_return_t code, const std::string& what) {
  if (code < 0) fail("cyclone " + what + ": " + ::dds_strretcode(code));
  return code;
}

struct qos_end {
  void operator()(dds_qos_t* qos) const { ::dds_delete_qos(qos); }
};

class cyclone_party final : public party {
 public:
  cyclone_party(part plays, const settings& run) : run_(run), plays_(plays), body_(run.size) {}
  ~cyclone_party() override {
    give_back();
    if (domain_ > 0) ::dds_delete(domain_);
  }
  cyclone_party(const cyclone_party&) = delete;
  cyclone_party& operator=(const cyclone_party&) = delete;

  std::vector<std::string> bind(const std::string& folder) override {
    begin(folder, "there", "back");
    return {folder};
  }
  void connect(const std::string& address) override {
    begin(address, "back", "there");
    meet(1);
  }
  void gather() override { meet(run_.workload == "fanout" ? run_.subscribers : 1); }

  bool send(std::uint64_t word) override {
    write_payload(body_.data(), run_, word);
    peer_message message{};
    message.payload._buffer = body_.data();
    message.payload._length = static_cast<std::uint32_t>(body_.size());
    message.payload._maximum = message.payload._length;
    if (::dds_write(writer_, &message) < 0) return false;
    if (word == round_ends || word == all_ends) ::dds_write_flush(writer_);
    return true;
  }
  std::optional<std::uint64_t> receive() override {
    do {
      while (at_ < taken_) {
        const std::size_t each = at_++;
        if (!infos_[each].valid_data) continue;
        const auto& payload = static_cast<const peer_message*>(samples_[each])->payload;
        if (payload._length != run_.size) fail("a message of another length");
        return read_payload(payload._buffer, run_);
      }
    } while (arrived());
    return std::nullopt;
  }

 private:
  static constexpr std::size_t at_once = 64;
  static constexpr dds_duration_t patience = DDS_MSECS(patience_ms);

  // Requires that the library runs in this process for the first time.
  void begin(const std::string& folder, const char* out, const char* in) {
    domain_ = must(::dds_create_domain(domain, configuration(folder).c_str()), "domain");
    const auto participant =
        must(::dds_create_participant(domain, nullptr, nullptr), "participant");
    const std::unique_ptr<dds_qos_t, qos_end> qos(::dds_create_qos());
    ::dds_qset_reliability(qos.get(), DDS_RELIABILITY_RELIABLE, patience);
    ::dds_qset_history(qos.get(), DDS_HISTORY_KEEP_ALL, DDS_LENGTH_UNLIMITED);
    const auto topic = [&](const char* name) {
      return must(::dds_create_topic(participant, &peer_message_desc, name, nullptr, nullptr),
                  "topic");
    };
    waits_ = must(::dds_create_waitset(participant), "waitset");
    if (plays_ != part::sink) {
      writer_ = must(::dds_create_writer(participant, topic(out), qos.get(), nullptr), "writer");
    }
    if (plays_ != part::source) {
      reader_ = must(::dds_create_reader(participant, topic(in), qos.get(), nullptr), "reader");
      const auto any = must(::dds_create_readcondition(reader_, DDS_ANY_STATE), "condition");
      must(::dds_waitset_attach(waits_, any, 0), "waitset");
    }
  }
  [[nodiscard]] std::string configuration(const std::string& folder) const {
    // One packet for all readers if there are many of them: 1.3 times as fast, to four.
    const std::string multicast = run_.workload == "fanout" ? "true" : "false";
    const std::string batches = plays_ == part::source ? "true" : "false";
    return fmt::format(R"(
        <General>
          <Interfaces><NetworkInterface name="lo" multicast="{0}"/></Interfaces>
          <AllowMulticast>{0}</AllowMulticast>
          <MaxMessageSize>65500B</MaxMessageSize>
          <FragmentSize>65000B</FragmentSize>
        </General>
        <Discovery>
          <Tag>{1}</Tag>
          <ParticipantIndex>auto</ParticipantIndex>
          <MaxAutoParticipantIndex>99</MaxAutoParticipantIndex>
          <Peers><Peer address="127.0.0.1"/></Peers>
        </Discovery>
        <Internal><WriteBatch>{2}</WriteBatch></Internal>)",
                       multicast, folder, batches);
  }
  // Waits until that many readers know our writer, and as many writers our reader.
  void meet(std::uint64_t others) {
    dds_publication_matched_status_t readers{};
    dds_subscription_matched_status_t writers{};
    const auto wanted = static_cast<std::uint32_t>(others);
    const auto met = [&] {
      if (writer_ > 0) must(::dds_get_publication_matched_status(writer_, &readers), "readers");
      if (reader_ > 0) must(::dds_get_subscription_matched_status(reader_, &writers), "writers");
      return (writer_ <= 0 || readers.current_count >= wanted) &&
             (reader_ <= 0 || writers.current_count >= wanted);
    };
    const auto until = bus::deadline::after(std::chrono::milliseconds(patience_ms));
    while (!met()) {
      if (until.passed()) fail("the participants did not find each other");
      ::dds_sleepfor(DDS_MSECS(1));
    }
  }
  bool arrived() {
    give_back();
    if (run_.wait == "spin") return spin_until([&] { return take(); });
    while (!take()) {
      if (must(::dds_waitset_wait(waits_, nullptr, 0, patience), "wait") == 0) return false;
    }
    return true;
  }
  bool take() {
    at_ = 0;
    taken_ = static_cast<std::size_t>(
        must(::dds_take(reader_, samples_.data(), infos_.data(), at_once, at_once), "take"));
    return taken_ > 0;
  }
  void give_back() {
    if (taken_ > 0) ::dds_return_loan(reader_, samples_.data(), static_cast<int>(taken_));
    taken_ = 0;
  }

  const settings& run_;
  const part plays_;
  std::vector<std::uint8_t> body_;
  dds_entity_t domain_ = 0;
  dds_entity_t writer_ = 0;
  dds_entity_t reader_ = 0;
  dds_entity_t waits_ = 0;
  std::array<void*, at_once> samples_{};  // the library's own
  std::array<dds_sample_info_t, at_once> infos_{};
  std::size_t at_ = 0;
  std::size_t taken_ = 0;
};

std::unique_ptr<party> make(part plays, const settings& run) {
  return std::make_unique<cyclone_party>(plays, run);
}

}  // namespace

library cyclone() { return {.names = {"cyclone"}, .make = make}; }

}  // namespace peers
