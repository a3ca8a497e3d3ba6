// What a node publishes, for whoever lists it (`bus list`, `bus why`): changes at the end of a file
// that grows. So the millionth topic costs what the first one did, and nobody is woken by it, as by
// a card that is replaced. When most of it tells of publishers that are gone, it is written anew.
//
// Nobody needs it to match: publishers look for subscribers, whose interests are on their cards,
// and a subscriber learns by Attach who publishes.
#pragma once

#include "bus/base/result.hpp"
#include "bus/node/publication.hpp"
#include "bus/node/rendezvous.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bus {

class topics_file {
 public:
  // A publisher is no more.
  void went(std::uint32_t publisher) {
    if (publisher <= told_) gone_.push_back(publisher);
  }
  // The file may be lost, or torn: write() is to tell everything.
  void distrust() noexcept { is_whole_ = false; }
  // Tells what has changed since the last time. Errors: too_big (they are not told of until there
  // are fewer), no_space, denied, or the kernel's; the next write() tells everything then.
  [[nodiscard]] result<void> write(rendezvous& place, const publications& all);

 private:
  std::uint32_t told_ = 0;  // the last publisher that it tells of
  std::vector<std::uint32_t> gone_;
  std::size_t records_ = 0;
  std::size_t too_many_ = SIZE_MAX;  // publishers, for a file that anybody reads
  bool is_whole_ = true;
};

}  // namespace bus
