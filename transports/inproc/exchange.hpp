// Who is here: the nodes of one exchange by id. Control plane only; no message passes through.
//
// fork() copies all of it into a process that has none of those nodes' threads. So that the child
// does not believe itself to be its parent, the exchange's random token, which is part of every
// address, stands in a page that the kernel wipes in a child (MADV_WIPEONFORK): no handler has to
// run, no pid is compared, and a raw clone() is covered. What lives here is therefore a *hall* of
// one process. A wiped hall is over: its mutexes may be held by threads that do not exist, so
// nobody locks them again; inherited transports hear and reach nobody; and the exchange opens a
// fresh hall when it is next asked for one.
#pragma once

#include "bus/base/ids.hpp"
#include "bus/base/result.hpp"
#include "transports/inproc/port.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace transports {

class hall {
 public:
  // Errors: the kernel's (no memory, or no MADV_WIPEONFORK: Linux before 4.14).
  [[nodiscard]] static bus::result<std::unique_ptr<hall>> open();
  ~hall();
  hall(const hall&) = delete;
  hall& operator=(const hall&) = delete;

  // Random, and 0 in a process that is not the one which opened the hall.
  [[nodiscard]] std::uint64_t token() const noexcept {
    // Relaxed: it changes only in fork(), before the child's first instruction.
    return token_->load(std::memory_order_relaxed);
  }
  [[nodiscard]] bool here() const noexcept { return token() != 0; }

  // The next three: any thread of a process in which here() holds.
  // False: that node is there already.
  [[nodiscard]] bool enter(bus::node_id id, std::shared_ptr<port> entrance);
  void leave(bus::node_id id) noexcept;
  // Null: nobody of that name.
  [[nodiscard]] std::shared_ptr<port> find(bus::node_id id) noexcept;

 private:
  friend class exchange;
  hall() = default;

  std::atomic<std::uint64_t>* token_ = nullptr;
  std::mutex control_;
  std::unordered_map<bus::node_id, std::shared_ptr<port>> entrances_;
  std::unique_ptr<hall> before_;  // the parent process's, kept for those who still refer to it
};

class exchange {
 public:
  exchange() = default;
  exchange(const exchange&) = delete;
  exchange& operator=(const exchange&) = delete;
  ~exchange();

  // The hall of the calling process, opened if need be; it lives as long as the exchange. Any
  // thread. Takes no lock, since a lock might have been held when the process was forked.
  [[nodiscard]] bus::result<hall*> current();

 private:
  std::atomic<hall*> current_{nullptr};
};

}  // namespace transports
