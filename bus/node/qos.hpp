// The choices that users make, as plain aggregates with defaults that work.
#pragma once

#include "bus/link/transport.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace asio {
class io_context;
}

namespace bus {

// What happens to a sample that finds its subscription's queue full. Whatever is lost is counted.
enum class drop : std::uint8_t {
  oldest,  // it takes the place of the oldest one (overwritten)
  newest,  // it is the one that is dropped (queue_full)
  // The subscription blocks: publishers know how much room it has, and those who ask wait for it
  // (publisher::publish_wait, room, wait_room). Lost is only what was published without waiting
  // (queue_full), or after it was waited for as long as it wished (expired). docs/delivery.md
  none,
};

// How a node waits for the next arrival.
enum class wait_policy : std::uint8_t {
  spin,             // never sleeps: lowest latency, one core
  spin_then_sleep,  // spins briefly, then sleeps
  sleep,            // sleeps at once: least CPU
};

struct subscription_options {
  std::uint32_t depth = 1024;  // samples that may wait for the user; at least 1
  drop when_full = drop::oldest;
  // With drop::none: how long its publishers wait for it, each time that it makes no room. The
  // default is a guess: longer than a pause for breath, and short enough for a publisher to bear
  // that a subscriber stands still.
  std::chrono::nanoseconds block_for = std::chrono::seconds(1);
};

// As node_options::directory, or $OMNIBUS_DIR: the node is in no bus directory. It meets those whom
// it calls, and those who call it, and nobody else; its books are its own.
inline constexpr std::string_view no_directory = "-";

struct node_options {
  std::string name;               // for people; the process's name when empty
  bill_of_transports transports;  // which, as main decides: transports::standard()
  std::string directory = {};  // the bus directory, or no_directory; empty: see default_directory()
  std::vector<std::string> listen = {};  // "tcp://*:7400"; empty: $OMNIBUS_LISTEN, by commas
  std::vector<std::string> peers = {};   // "tcp://host:7400"; empty: $OMNIBUS_PEERS, by commas
  bool insecure = false;  // bind beyond loopback without keys; or $OMNIBUS_INSECURE=1
  wait_policy waiting = wait_policy::spin_then_sleep;
  // How long spin_then_sleep spins: a few wakeups' worth (a wakeup costs about 8 us each way,
  // docs/performance.md), since a longer spin burns more than the sleep that it saves.
  std::chrono::nanoseconds spin = std::chrono::microseconds(50);
  asio::io_context* context = nullptr;        // the user's event loop; none: the node's own
  loop_wakeup woken_by = loop_wakeup::event;  // how others wake it in an event loop
  // Lent samples, per transport; and copies of those that wait, see shelter.hpp.
  std::uint64_t memory_bytes_max = 1ULL << 30;
  std::uint32_t link_depth = 1024;  // samples in flight per link, a power of two
};

// $OMNIBUS_DIR, else $XDG_RUNTIME_DIR/omnibus, else /tmp/omnibus-<uid>.
[[nodiscard]] std::string default_directory();

}  // namespace bus
