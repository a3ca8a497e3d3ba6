// Lanes or ring: the two candidates of docs/design/0002-lanes-or-ring.md. Depends on nothing but
// std and Linux, so that what is measured is the two shapes and not the bus.
//
// Both move 32-bit slot offsets from one publisher to its local subscribers, all of them real
// processes. The rest is shared: one arena memfd of [64-byte frame][payload] slots, read-only in
// subscribers, slots recycled last in first out from a private ledger, one bell per process.
//   ring   one log per publisher that all subscribers follow. An entry is {offset, mask of peers}.
//          A subscriber announces the range that it reads, {cursor, from, to}, in a page of its
//          own; the publisher announces `floor`, the oldest entry that it still honours. Store,
//          fence, load on both sides: either the subscriber sees the new floor or the publisher
//          the pin.
//   lanes  one queue per peer. An entry is {offset, credit}. Releasing flips the credit's bit in
//          the subscriber's page; what differs from the publisher's private copy came home.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace prototype {

using u32 = std::uint32_t;
using u64 = std::uint64_t;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

constexpr u32 window = 1024;      // entries of a lane or ring: a power of two, the same for both
constexpr u32 drain_limit = 256;  // entries that a subscriber reads between two looks at the world
constexpr u32 peers_max = 256;

// Laps begin with 1: fresh memory holds no entry.
constexpr u32 lap_of(u64 sequence) { return static_cast<u32>(sequence / window) + 1; }

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "prototype_lanes: %s (%s)\n", what, std::strerror(errno));
  std::abort();
}

inline u64 now_ns() {
  return static_cast<u64>(std::chrono::steady_clock::now().time_since_epoch().count());
}

inline void pause_cpu() { __builtin_ia32_pause(); }

// ---- shared memory ------------------------------------------------------------------------------

struct unmap {
  std::size_t bytes = 0;
  void operator()(const void* at) const { ::munmap(const_cast<void*>(at), bytes); }
};
template <typename T>
using mapped = std::unique_ptr<T, unmap>;

// A memfd. It travels by fork here, by SCM_RIGHTS in the bus; each process maps it for itself.
class memory {
 public:
  explicit memory(std::size_t bytes)
      : fd_(::memfd_create("prototype", MFD_CLOEXEC)), bytes_(bytes) {
    require(fd_ >= 0 && ::ftruncate(fd_, static_cast<off_t>(bytes)) == 0, "memfd");
  }
  memory(memory&& other) noexcept : fd_(std::exchange(other.fd_, -1)), bytes_(other.bytes_) {}
  memory& operator=(memory&&) = delete;
  ~memory() {
    if (fd_ >= 0) ::close(fd_);
  }

  template <typename T>
  [[nodiscard]] mapped<T> map(bool writable) const {
    const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void* at = ::mmap(nullptr, bytes_, protection, MAP_SHARED | MAP_POPULATE, fd_, 0);
    require(at != MAP_FAILED, "mmap");
    return mapped<T>(static_cast<T*>(at), unmap{bytes_});
  }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  int fd_;
  std::size_t bytes_;
};

struct frame_layout {
  u64 sequence;
  u64 pattern;
  u32 last;
  u32 unused[11];
};
static_assert(sizeof(frame_layout) == 64);

// There is no shared tail: an entry carries its lap, so that one cache line tells of a message and
// where it lies. A batch is published by storing its first entry last.
struct lane_layout {
  // offset in units of 64 bytes | credit << 32 | lap << 48; pairs with: lane_receiver::drain
  alignas(128) std::atomic<u64> entries[window];
};
struct answers_layout {
  alignas(128) std::atomic<u64> cursor;             // for `bus info` only
  alignas(128) std::atomic<u64> bits[window / 64];  // pairs with: lane_sender::reclaim
};
struct ring_layout {
  struct entry {
    std::atomic<u64> offset;  // offset in units of 64 bytes | lap << 32
    std::atomic<u64> mask;
  };
  alignas(128) std::atomic<u64> floor;  // pairs with: ring_receiver::pin, through fences
  alignas(128) entry entries[window];   // pairs with: ring_receiver::pin; a seqlock under `floor`
};
struct pins_layout {
  alignas(128) std::atomic<u64> cursor;  // consumed up to; pairs with: ring_sender::advance
  std::atomic<u64> from, to;             // range that must not be recycled; pairs likewise
};
struct bell_layout {
  alignas(128) std::atomic<u32> asleep;
  sem_t semaphore;
};

// Who is about to sleep and who has just published must each see the other's store: a full fence on
// both sides, or, when `asymmetric`, none for the publisher: the sleeper, who has time, fences
// every process that has registered for it.
struct habits {
  bool asymmetric = false;
  u32 yields = 1;  // times that a process gives way before it sleeps
};
inline habits habit;  // set before any fork

inline void register_publisher() {
  require(::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0,
          "membarrier");
}
inline void fence_publisher() {
  if (habit.asymmetric)
    std::atomic_signal_fence(memory_order_seq_cst);
  else
    std::atomic_thread_fence(memory_order_seq_cst);
}
inline void fence_sleeper() {
  if (!habit.asymmetric) return std::atomic_thread_fence(memory_order_seq_cst);
  require(::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0, "membarrier");
}

// The caller has published and fenced: either we see `asleep`, or the sleeper's second look sees
// what was published.
inline void ring_bell(bell_layout& bell) {
  if (bell.asleep.load(memory_order_relaxed) != 0 && bell.asleep.exchange(0) != 0)
    ::sem_post(&bell.semaphore);
}

inline void wait_semaphore(sem_t& semaphore) {
  while (::sem_wait(&semaphore) != 0) require(errno == EINTR, "sem_wait");
}

template <typename Ready>
void wait_bell(bell_layout& bell, u32 spins, Ready ready) {
  for (u32 i = 0; i < spins; ++i) {
    if (ready()) return;
    pause_cpu();
  }
  for (u32 i = 0; i < habit.yields; ++i) {
    if (ready()) return;
    ::sched_yield();
  }
  for (;;) {
    bell.asleep.store(1, memory_order_relaxed);
    fence_sleeper();  // pairs with: fence_publisher
    if (ready()) {
      if (bell.asleep.exchange(0) == 0) wait_semaphore(bell.semaphore);  // a post is on its way
      return;
    }
    wait_semaphore(bell.semaphore);
    if (ready()) return;
  }
}

// ---- the parts common to both candidates --------------------------------------------------------

struct shape {
  u32 payload = 64;
  u32 slots = window + 64;
  u32 peers = 1;
  u64 gates = ~u64{0};        // the peers for which the publisher waits; the others lose, counted
  bool release_each = false;  // lanes: one atomic per sample instead of one per word of the bitmap
  [[nodiscard]] u32 stride() const { return (payload + 64 + 63) / 64 * 64; }
  [[nodiscard]] bool gated(u32 peer) const { return peer >= 64 || (gates >> peer & 1) != 0; }
};

// Everything that one publisher and its peers share. `lanes` holds one ring, or a lane per peer.
struct wires {
  wires(const shape& wanted, std::size_t lane_bytes, std::size_t answer_bytes, bool one_lane)
      : arena(std::size_t{wanted.stride()} * wanted.slots), home(sizeof(bell_layout)) {
    for (u32 i = 0; i < (one_lane ? 1 : wanted.peers); ++i) lanes.emplace_back(lane_bytes);
    for (u32 i = 0; i < wanted.peers; ++i) {
      answers.emplace_back(answer_bytes);
      bells.emplace_back(sizeof(bell_layout));
      ::sem_init(&bells[i].map<bell_layout>(true)->semaphore, 1, 0);
    }
    ::sem_init(&home.map<bell_layout>(true)->semaphore, 1, 0);
  }
  memory arena, home;
  std::vector<memory> lanes, answers, bells;
};

// Where a message goes: a flat list for the publisher and its mask for the ring's entry.
struct route {
  std::vector<u32> peers;
  u64 mask = 0;
};

// The private ledger: which slots are free, hottest last.
class slots {
 public:
  slots(const wires& shared, const shape& of)
      : stride_(of.stride()), count_(of.slots), arena_(shared.arena.map<std::byte>(true)) {
    for (u32 slot = count_; slot-- > 0;) free_.push_back(slot);
    low_water_ = count_;
  }
  [[nodiscard]] bool empty() const { return free_.empty(); }
  [[nodiscard]] u32 lend() {
    const u32 slot = free_.back();
    free_.pop_back();
    low_water_ = std::min(low_water_, static_cast<u32>(free_.size()));
    return slot;
  }
  void recycle(u32 slot) { free_.push_back(slot); }
  [[nodiscard]] std::byte* at(u32 slot) { return arena_.get() + std::size_t{slot} * stride_; }
  [[nodiscard]] u32 offset(u32 slot) const { return slot * (stride_ / 64); }
  [[nodiscard]] u32 in_use() const { return count_ - static_cast<u32>(free_.size()); }
  [[nodiscard]] u32 low_water() const { return low_water_; }

 private:
  u32 stride_, count_, low_water_ = 0;
  mapped<std::byte> arena_;
  std::vector<u32> free_;
};

class bells {
 public:
  explicit bells(const wires& shared) : home_(shared.home.map<bell_layout>(true)) {
    for (const memory& each : shared.bells) of_.push_back(each.map<bell_layout>(true));
  }
  [[nodiscard]] bell_layout& home() { return *home_; }
  void ring(u32 peer) { ring_bell(*of_[peer]); }

 private:
  mapped<bell_layout> home_;
  std::vector<mapped<bell_layout>> of_;
};

// What a subscriber knows of the arena: enough to refuse an offset that points outside of it.
class window_on_arena {
 public:
  window_on_arena(const wires& shared, const shape& of)
      : stride_(of.stride()),
        bytes_(shared.arena.bytes()),
        at_(shared.arena.map<std::byte>(false)) {}
  [[nodiscard]] const std::byte* at(u32 offset) const {
    const std::size_t byte = std::size_t{offset} * 64;
    require(byte + stride_ <= bytes_, "an offset outside the arena");
    return at_.get() + byte;
  }

 private:
  std::size_t stride_, bytes_;
  mapped<std::byte> at_;
};

// ---- (b) lanes ----------------------------------------------------------------------------------

class lane_sender {
 public:
  lane_sender(const wires& shared, const shape& of)
      : of_(of), ledger(shared, of), bells_(shared), references_(of.slots), peers_(of.peers) {
    for (u32 p = 0; p < of.peers; ++p) {
      peers_[p].lane = shared.lanes[p].map<lane_layout>(true);
      peers_[p].answers = shared.answers[p].map<const answers_layout>(false);
    }
  }

  // A slot is free, and each peer for whom we wait has a credit.
  [[nodiscard]] bool room(const route& to) {
    if (ready(to)) return true;
    reclaim();
    return ready(to);
  }
  [[nodiscard]] bell_layout& before_wait() { return bells_.home(); }

  void push(u32 slot, const route& to) {
    ++references_[slot];  // ours, until every peer has been offered it
    for (const u32 p : to.peers) {
      peer& each = peers_[p];
      if (each.held == window) reclaim(each);  // nobody loses before having been asked
      if (each.held == window) {
        ++each.lost;
        continue;
      }
      const u32 credit = take_credit(each);
      each.slot_of[credit] = slot;
      ++references_[slot];
      const u64 entry = ledger.offset(slot) | u64{credit} << 32 | u64{lap_of(each.tail)} << 48;
      if (each.first_entry == 0) {
        each.first_entry = entry;
        each.first = each.tail % window;
        dirty_.push_back(p);
      } else {
        each.lane->entries[each.tail % window].store(entry, memory_order_relaxed);
      }
      ++each.tail;
    }
    drop_reference(slot);
    if (++pushes_ % 64 == 0) reclaim();
  }

  void commit() {
    for (const u32 p : dirty_) {
      peer& each = peers_[p];
      each.lane->entries[each.first].store(std::exchange(each.first_entry, 0),
                                           memory_order_release);
    }
    fence_publisher();  // pairs with: wait_bell
    for (const u32 p : dirty_) bells_.ring(p);
    dirty_.clear();
  }

  void reclaim() {
    for (peer& each : peers_)
      if (each.held != 0) reclaim(each);
  }
  // The peer is dead: what it held comes home by the private account; its page is not asked.
  void drop(u32 p) {
    for (u32 w = 0; w < window / 64; ++w) settle(peers_[p], w, peers_[p].outstanding[w]);
  }
  [[nodiscard]] u32 held(u32 p) { return peers_[p].held; }
  [[nodiscard]] u64 lost(u32 p) { return peers_[p].lost; }
  [[nodiscard]] static std::size_t private_bytes() { return sizeof(peer); }
  [[nodiscard]] bool caught_up(u32 p) {
    return peers_[p].answers->cursor.load(memory_order_acquire) == peers_[p].tail;
  }

 private:
  struct peer {
    mapped<lane_layout> lane;
    mapped<const answers_layout> answers;
    u64 tail = 0, lost = 0;
    u64 first_entry = 0, first = 0;  // of the batch under way; stored last
    u32 held = 0, next = 0;
    std::array<u64, window / 64> outstanding{}, parity{};
    std::array<u32, window> slot_of{};
  };

  [[nodiscard]] bool ready(const route& to) const {
    if (ledger.empty()) return false;
    for (const u32 p : to.peers)
      if (peers_[p].held == window && of_.gated(p)) return false;
    return true;
  }
  // Next free credit after the last one, so that neighbours in the lane are neighbours in a word.
  [[nodiscard]] static u32 take_credit(peer& from) {
    for (;;) {
      const u32 word = from.next / 64 % (window / 64), bit = from.next % 64;
      const u64 free = ~from.outstanding[word] & (~u64{0} << bit);
      if (free != 0) {
        const u32 found = static_cast<u32>(__builtin_ctzll(free));
        from.outstanding[word] |= u64{1} << found;
        ++from.held;
        from.next = word * 64 + found + 1;
        return word * 64 + found;
      }
      from.next = (word + 1) * 64;
    }
  }
  void reclaim(peer& from) {
    for (u32 w = 0; w < window / 64; ++w) {
      if (from.outstanding[w] == 0) continue;
      const u64 bits = from.answers->bits[w].load(memory_order_acquire);
      settle(from, w, from.outstanding[w] & (bits ^ from.parity[w]));
    }
  }
  void settle(peer& from, u32 word, u64 home) {
    from.outstanding[word] ^= home;
    from.parity[word] ^= home;
    from.held -= static_cast<u32>(__builtin_popcountll(home));
    for (; home != 0; home &= home - 1)
      drop_reference(from.slot_of[word * 64 + static_cast<u32>(__builtin_ctzll(home))]);
  }
  void drop_reference(u32 slot) {
    if (--references_[slot] == 0) ledger.recycle(slot);
  }

  shape of_;

 public:
  slots ledger;

 private:
  bells bells_;
  std::vector<u32> references_;
  std::vector<peer> peers_;
  std::vector<u32> dirty_;
  u64 pushes_ = 0;
};

class lane_receiver {
 public:
  lane_receiver(const wires& shared, const shape& of, u32 me)
      : each_(of.release_each),
        arena_(shared, of),
        lane_(shared.lanes[me].map<const lane_layout>(false)),
        answers_(shared.answers[me].map<answers_layout>(true)) {}

  [[nodiscard]] bool readable() const { return is_ours(load()); }

  // visit(slot memory) returns whether the sample may go home now.
  template <typename Visit>
  u32 drain(Visit visit) {
    u32 count = 0;
    for (u64 entry = load(); count < drain_limit && is_ours(entry); entry = load()) {
      ++count;
      ++cursor_;
      if (visit(arena_.at(static_cast<u32>(entry))))
        release(static_cast<u32>(entry >> 32) % window);
    }
    flush();
    answers_->cursor.store(cursor_, memory_order_release);
    return count;
  }
  [[nodiscard]] u64 lost() const { return 0; }  // the sender counts

 private:
  [[nodiscard]] u64 load() const {
    return lane_->entries[cursor_ % window].load(memory_order_acquire);
  }
  [[nodiscard]] bool is_ours(u64 entry) const { return entry >> 48 == (lap_of(cursor_) & 0xffff); }
  void release(u32 credit) {
    if (credit / 64 != word_) flush();
    word_ = credit / 64;
    pending_ ^= u64{1} << credit % 64;
    if (each_) flush();
  }
  void flush() {
    if (pending_ != 0) answers_->bits[word_].fetch_xor(pending_, memory_order_release);
    pending_ = 0;
  }

  bool each_;
  window_on_arena arena_;
  mapped<const lane_layout> lane_;
  mapped<answers_layout> answers_;
  u64 cursor_ = 0, pending_ = 0;
  u32 word_ = 0;
};

struct lanes_candidate {
  using sender = lane_sender;
  using receiver = lane_receiver;
  static wires wire(const shape& of) {
    return {of, sizeof(lane_layout), sizeof(answers_layout), false};
  }
};

// ---- (a) one ring -------------------------------------------------------------------------------

class ring_sender {
 public:
  ring_sender(const wires& shared, const shape& of)
      : of_(of),
        ledger(shared, of),
        bells_(shared),
        ring_(shared.lanes[0].map<ring_layout>(true)),
        alive_(of.peers, true) {
    for (const memory& each : shared.answers) pins_.push_back(each.map<const pins_layout>(false));
  }

  [[nodiscard]] bool room(const route&) {
    if (ready()) return true;
    reclaim();
    return ready();
  }
  // A peer that sleeps through messages for others still holds up the floor: wake everyone.
  [[nodiscard]] bell_layout& before_wait() {
    for (u32 p = 0; p < of_.peers; ++p) bells_.ring(p);
    return bells_.home();
  }

  void push(u32 slot, const route& to) {
    slot_of_[tail_ % window] = slot;
    ring_layout::entry& entry = ring_->entries[tail_ % window];
    const u64 word = ledger.offset(slot) | u64{lap_of(tail_)} << 32;
    entry.mask.store(to.mask, memory_order_relaxed);
    if (tail_ == published_)
      first_word_ = word;
    else
      entry.offset.store(word, memory_order_release);
    ++tail_;
    to_ring_ |= to.mask;
    if (tail_ % 64 == 0) reclaim();
  }

  void commit() {
    if (tail_ != published_)
      ring_->entries[published_ % window].offset.store(first_word_, memory_order_release);
    published_ = tail_;
    fence_publisher();  // pairs with: wait_bell
    for (u32 p = 0; p < of_.peers; ++p)
      if ((to_ring_ >> p % 64 & 1) != 0) bells_.ring(p);
    to_ring_ = 0;
  }

  // Entries that every gating peer has passed are no longer honoured. Peers for whom we do not
  // wait are overrun when the ring is full, and find out from `floor`.
  void reclaim() {
    u64 floor = tail_;
    for (u32 p = 0; p < of_.peers; ++p)
      if (alive_[p] && of_.gated(p))
        floor = std::min(floor, pins_[p]->cursor.load(memory_order_acquire));
    bool loose = false;
    for (u32 p = 0; p < of_.peers; ++p) loose = loose || (alive_[p] && !of_.gated(p));
    if (loose)  // leave those for whom we do not wait as much of the ring as there is
      floor = std::min(floor, std::max(floor_, tail_ - std::min<u64>(tail_, window - 64)));
    if (floor <= floor_ && deferred_.empty()) return;
    advance(std::max(floor, floor_));
  }
  void drop(u32 p) { alive_[p] = false; }
  [[nodiscard]] u32 held(u32 p) {
    if (!alive_[p]) return 0;
    const u64 from = pins_[p]->from.load(memory_order_acquire);
    const u64 to = pins_[p]->to.load(memory_order_acquire);
    return static_cast<u32>(to > from ? to - from : 0);
  }
  [[nodiscard]] u64 lost(u32) { return 0; }  // only the subscriber can know
  [[nodiscard]] bool caught_up(u32 p) {
    return pins_[p]->cursor.load(memory_order_acquire) == tail_;
  }

 private:
  struct range {
    u64 from, to;
  };
  [[nodiscard]] bool ready() const { return !ledger.empty() && tail_ - floor_ < window; }

  void advance(u64 floor) {
    ring_->floor.store(floor, memory_order_release);
    std::atomic_thread_fence(memory_order_seq_cst);  // pairs with: ring_receiver::pin
    ranges_.clear();
    for (u32 p = 0; p < of_.peers; ++p) {
      if (!alive_[p]) continue;
      const range pinned{pins_[p]->from.load(memory_order_acquire),
                         pins_[p]->to.load(memory_order_acquire)};
      if (pinned.from < pinned.to && pinned.from < floor) ranges_.push_back(pinned);
    }
    const auto pinned = [&](u64 sequence) {
      return std::any_of(ranges_.begin(), ranges_.end(),
                         [&](range r) { return sequence >= r.from && sequence < r.to; });
    };
    std::erase_if(deferred_, [&](const auto& each) {
      const bool home = !pinned(each.first);
      if (home) ledger.recycle(each.second);
      return home;
    });
    for (; floor_ != floor; ++floor_) {
      const u32 slot = slot_of_[floor_ % window];
      if (!ranges_.empty() && pinned(floor_))
        deferred_.emplace_back(floor_, slot);
      else
        ledger.recycle(slot);
    }
  }

  shape of_;

 public:
  slots ledger;

 private:
  bells bells_;
  mapped<ring_layout> ring_;
  std::vector<mapped<const pins_layout>> pins_;
  std::vector<bool> alive_;
  std::array<u32, window> slot_of_{};
  std::vector<std::pair<u64, u32>> deferred_;  // below the floor, still pinned by somebody
  std::vector<range> ranges_;
  u64 tail_ = 0, published_ = 0, floor_ = 0, to_ring_ = 0;
  u64 first_word_ = 0;  // of the batch under way; stored last
};

class ring_receiver {
 public:
  ring_receiver(const wires& shared, const shape& of, u32 me)
      : mask_(u64{1} << me % 64),
        arena_(shared, of),
        ring_(shared.lanes[0].map<const ring_layout>(false)),
        pins_(shared.answers[me].map<pins_layout>(true)) {}

  // An entry of a later lap means that we were overrun; pin() counts it.
  [[nodiscard]] bool readable() const { return lap_at(cursor_) - lap_of(cursor_) < u32{1} << 31; }

  template <typename Visit>
  u32 drain(Visit visit) {
    if (!readable()) return 0;
    const u64 end = pin();
    const u32 count = static_cast<u32>(end - cursor_);
    for (u32 i = 0; i < count; ++i, ++cursor_) {
      if ((batch_[i].second & mask_) == 0) continue;
      if (!visit(arena_.at(batch_[i].first))) held_ = std::min(held_, cursor_);
    }
    pins_->from.store(std::min(held_, cursor_), memory_order_release);
    pins_->cursor.store(cursor_, memory_order_release);
    return count;
  }
  [[nodiscard]] u64 lost() const { return lost_; }

 private:
  [[nodiscard]] u32 lap_at(u64 sequence) const {
    return static_cast<u32>(ring_->entries[sequence % window].offset.load(memory_order_acquire) >>
                            32);
  }
  // Announce, fence, look whether the publisher had already given the range up; copy the entries,
  // look again: below the floor they may have been overwritten while we read.
  [[nodiscard]] u64 pin() {
    for (;;) {
      u64 end = cursor_;
      while (end != cursor_ + drain_limit && lap_at(end) == lap_of(end)) ++end;
      pins_->from.store(std::min(held_, cursor_), memory_order_relaxed);
      pins_->to.store(end, memory_order_relaxed);
      std::atomic_thread_fence(memory_order_seq_cst);  // pairs with: ring_sender::advance
      u64 floor = ring_->floor.load(memory_order_acquire);
      if (floor <= cursor_) {
        for (u64 s = cursor_; s != end; ++s) {
          const ring_layout::entry& entry = ring_->entries[s % window];
          batch_[s - cursor_] = {static_cast<u32>(entry.offset.load(memory_order_relaxed)),
                                 entry.mask.load(memory_order_relaxed)};
        }
        std::atomic_thread_fence(memory_order_acquire);
        floor = ring_->floor.load(memory_order_relaxed);
        if (floor <= cursor_) return end;
      }
      lost_ += floor - cursor_;
      cursor_ = floor;
    }
  }

  u64 mask_;
  window_on_arena arena_;
  mapped<const ring_layout> ring_;
  mapped<pins_layout> pins_;
  u64 cursor_ = 0, held_ = ~u64{0}, lost_ = 0;
  std::array<std::pair<u32, u64>, drain_limit> batch_;
};

struct ring_candidate {
  using sender = ring_sender;
  using receiver = ring_receiver;
  static wires wire(const shape& of) {
    return {of, sizeof(ring_layout), sizeof(pins_layout), true};
  }
};

}  // namespace prototype
