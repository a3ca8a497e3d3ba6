// One way for bytes to travel, as the node sees it: an abstract class, because the set is chosen at
// run time, and one virtual call per batch is free. A transport knows bytes, descriptors and files;
// it never hears of topics, types or quality of service.
//
// The receiver creates, the sender opens: where() is the address at which others reach us,
// connect() opens our way into somebody else.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/ids.hpp"
#include "bus/base/result.hpp"
#include "bus/link/bell.hpp"
#include "bus/link/inbox.hpp"
#include "bus/link/loan.hpp"
#include "bus/link/outbox.hpp"
#include "bus/link/traits.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace bus {

// What a node tells each of its transports at birth. `doorbell` and `directory` outlive the
// transport.
struct transport_setup {
  node_id id;
  bell* doorbell = nullptr;
  std::string directory;                        // the bus directory; empty: none
  std::uint64_t memory_bytes_max = 1ULL << 30;  // what this node may lend in all, per transport
  std::uint32_t link_depth = 1024;              // samples in flight per link; a power of two
  std::uint64_t link_bytes_max = 256ULL << 20;  // bytes in flight per link, where bytes are copied
  std::vector<std::string> listen;              // network addresses to bind: "tcp://*:7400"
  bool insecure = false;                        // may bind beyond loopback without keys
};

// A way between us and a process that we are about to start: see transport::invite().
struct invitation {
  std::vector<fd> theirs;     // what the process gets
  std::string their_address;  // what its node connects to
  std::vector<fd> ours;       // to be released: our_address hands them over
  std::string our_address;    // what we connect to, once our copies of `theirs` are closed
};

class transport {
 public:
  virtual ~transport() = default;
  transport() = default;
  transport(const transport&) = delete;
  transport& operator=(const transport&) = delete;

  [[nodiscard]] virtual const traits& about() const noexcept = 0;
  // Where others reach us, "scheme:rest"; empty when nobody can.
  [[nodiscard]] virtual std::string where() const = 0;
  [[nodiscard]] virtual inbox& arrivals() noexcept = 0;
  // Opens our way into `peer`, whose transport said `address`. Returns at once; the outbox opens as
  // attend() hears from the peer. An address that is a scheme and a colon and no more means the way
  // back to a peer that cannot be called, if it has called us and left one open.
  // Errors: bad_address, unsupported (not this transport's), denied, not_found (nobody listens
  // there, or left a way back), or the kernel's.
  [[nodiscard]] virtual result<std::unique_ptr<outbox>> connect(node_id peer,
                                                                const std::string& address) = 0;
  // Makes a way to a process that will get some descriptors under the numbers from `first` on; if
  // it is not trusted, memory of ours is not lent to it. Errors: unsupported (this transport has no
  // such ways: see traits::invites), or the kernel's.
  [[nodiscard]] virtual result<invitation> invite(int /*first*/, bool /*is_trusted*/) {
    return unexpected(errc::unsupported);
  }
  // The bus directory was removed or moved away and made again: from now on peers find us in the
  // one that `directory` names now. Links that are open go on. Errors: the kernel's; nothing
  // changed.
  [[nodiscard]] virtual result<void> move_to(const std::string& /*directory*/) { return {}; }
  // The mode or the group of the bus directory has changed: peers whom it does not admit any more
  // are cut off, and see nothing that is lent from now on.
  virtual void reconsider() {}
  // Memory for a payload of `bytes`, aligned to payload_align, where this transport's peers read it
  // without a copy. Errors: too_big, no_memory (the byte cap is reached; try when samples came
  // home).
  [[nodiscard]] virtual result<loan> lend(std::uint64_t bytes) noexcept = 0;
};

// How main introduces a transport to a node: name and maker. Making one fails with the kernel's
// error or with errc::unsupported where it cannot work; the node goes on without it and says so.
struct transport_maker {
  std::string scheme;
  std::function<result<std::unique_ptr<transport>>(const transport_setup&)> make;
};
using bill_of_transports = std::vector<transport_maker>;

}  // namespace bus
