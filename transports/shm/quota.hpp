// What each user may take of a node. A node's own user is one trust domain with it, and bounded
// only by what there is; between users there is a border, and whoever fills something is charged
// for it, by the user that the kernel named (SO_PEERCRED), whatever nodes and links it calls
// itself. A claim is what was granted; its end gives it back.
//
// Reaching a limit hurts the user who reached it and nobody else: it is refused with errc::quota,
// and counted under the limit's name.
#pragma once

#include "bus/link/refusal.hpp"

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace transports::shared {

// Amounts, of all that is charged.
struct demand {
  std::uint64_t connections = 0;
  std::uint64_t links = 0;
  std::uint64_t descriptors = 0;
  std::uint64_t address_space = 0;  // bytes
  std::uint64_t memory = 0;         // bytes of ours
};

class quota : public std::enable_shared_from_this<quota> {
 public:
  struct limits {
    demand node;    // all users together
    demand others;  // all but our own
    demand user;    // each of the others
  };
  // By how many descriptors this process may open (RLIMIT_NOFILE).
  [[nodiscard]] static limits limits_for(std::uint64_t descriptors_max) noexcept;
  // How many handshakes one of the others may begin at once, and how many a second after: each
  // costs us about 100 us, so that one user takes 1 % of a core.
  static constexpr std::int64_t handshakes_at_once = 128;
  static constexpr std::int64_t handshake_pause_ns = 10'000'000;

  // Gives back what was granted, from any thread.
  class claim {
   public:
    claim() noexcept = default;
    claim(claim&&) noexcept = default;
    claim& operator=(claim&& other) noexcept {
      std::swap(from_, other.from_);
      std::swap(user_, other.user_);
      std::swap(what_, other.what_);
      return *this;
    }
    ~claim() {
      if (from_) from_->give_back(user_, what_);
    }

   private:
    friend class quota;
    claim(std::shared_ptr<quota> from, uid_t user, const demand& what) noexcept
        : from_(std::move(from)), user_(user), what_(what) {}
    std::shared_ptr<quota> from_;
    uid_t user_ = 0;
    demand what_;
  };

  quota(uid_t own, const limits& within) noexcept : own_(own), limits_(within) {}

  // Grants all of it, or names the limit that stands against it.
  struct answer {
    claim granted;
    std::optional<bus::refusal> refused;
  };
  [[nodiscard]] answer ask(uid_t user, const demand& what);
  // One more handshake. False: this user is too hasty.
  [[nodiscard]] bool may_begin(uid_t user, std::int64_t now_ns);
  [[nodiscard]] demand used_by(uid_t user) const;

 private:
  struct account {
    uid_t user = 0;
    demand used;
    std::int64_t rested_at_ns = 0;  // when it may begin handshakes_at_once again
  };
  void give_back(uid_t user, const demand& what) noexcept;
  [[nodiscard]] account& of(uid_t user);

  const uid_t own_;
  const limits limits_;
  mutable std::mutex mutex_;  // claims end where the last sample of a link ends: on any thread
  std::vector<account> accounts_;
};

}  // namespace transports::shared
