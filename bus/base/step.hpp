// A step is a named place in the code, just before an effect that another process can see: a store
// into shared memory, a wakeup, a descriptor handed over, a name in the bus directory. Between two
// steps there is at most one such effect, or one look at such memory, so that whoever may act at
// every step has seen all that can happen. One mechanism serves three uses:
//
//   crash     OMNIBUS_CRASH_AT=name:n kills the process at the n-th passing of that step
//   schedule  tests/model makes each step the point where another actor may run
//   cover     tests/fault kills at every name of the list below, and fails if one is never passed
//
// Steps are taken in test builds. Where the option OMNIBUS_STEPS is off, as in the preset release,
// step() is empty and its argument a constant: no instruction is left (tests/model shows it).
//
// A name that is not in the list does not compile. Names say room, operation and effect.
#pragma once

#include "bus/base/step_switch.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bus {

// All of them. Each has one place in the code, and is passed before what is said here.
inline constexpr std::array step_names = std::to_array<std::string_view>({
    // --- bus/link: the bell
    "bell.make.magic",      // the page becomes valid
    "bell.arm.word",        // the sleep is declared
    "bell.arm.unfenced",    // senders shall fence again
    "bell.arm.barriers",    // a barrier on every processor, declared but not yet asleep
    "bell.let_unfenced",    // senders need not fence
    "bell.disarm.word",     // the declaration is taken back
    "bell.disarm.swallow",  // a wakeup that came meanwhile is swallowed
    "bell.wait.sleep",      // the semaphore is waited for
    "bell.drain.word",      // the event loop is awake
    "bell.ring.look",       // a sender has published, and looks whether somebody sleeps
    "bell.wake.look",       // it looks how
    "bell.wake.post",       // the semaphore is posted
    "bell.wake.signal",     // the thread is signalled
    "bell.wake.event",      // the eventfd is written to
    "bell.wake.mark",       // woken, not yet marked as awake
    // --- bus/link: the loan
    "loan.commit.frame",  // the payload is whole, and gets its frame
    // --- transports/shm: memory and slots
    "memory.create",    // a memfd is created
    "memory.reserve",   // pages are put behind it
    "memory.seal",      // it is sealed
    "memory.hand_out",  // a descriptor for a peer is opened
    "arena.take",       // a slot was found, and gets its owner
    "arena.home",       // a slot goes home
    // --- transports/shm: lanes
    "lane.make.head",       // the lane is initialised
    "lane.push.offset",     // an entry gets its offset
    "lane.push.mark",       // the entry becomes valid
    "lane.cell.fill",       // a cell gets its frame, and its payload or where that is
    "lane.cell.mark",       // the cell becomes valid
    "lane.ask.want_room",   // the sender says whether it waits for room
    "lane.scan.bits",       // a word of answers is read
    "lane.scan.credit",     // one sample of a live peer goes home
    "lane.scan.cells",      // the count of cells read is looked at
    "lane.reclaim.credit",  // one sample of a dead peer goes home
    "answers.make.head",    // the answers are initialised
    "lane.take.entry",      // a valid entry's credit is read
    "lane.take.offset",     // and its offset
    "lane.take.frame",      // its frame is read
    "lane.take.reference",  // a valid cell that refers to a slot is read
    "lane.take.value",      // a valid cell with its payload is read
    "lane.take.accept",     // a sample in a slot is handed over
    "lane.report.cells",    // cells that were read go home
    "lane.tell.cells",      // the same while more is being read
    "lane.release.cell",    // the receiver forgets the sample
    "lane.release.bit",     // its credit is sent home
    "lane.release.look",    // the receiver looks whether the sender waits for room
    // --- transports/shm: the handshake
    "socket.bind",     // the name appears in the bus directory
    "socket.listen",   // others may connect
    "socket.remove",   // the name goes
    "socket.connect",  // a sender calls
    "note.send",       // a note and its descriptors are sent
    "note.receive",    // a note is read
    "link.adopt",      // a receiver maps what a sender offers
    "link.reading",    // welcomed, a sender's lane is read from now on
    "link.open",       // a sender has opened the answers, and sends from now on
    "link.shutdown",   // a sender says that nothing more will come
    "link.fence",      // an older link of the same sender is ended
    // --- bus/node: the bus directory
    "ledger.create",           // the file exists, without a name
    "ledger.reserve",          // locked, it gets its pages
    "ledger.name",             // and its name
    "ledger.header",           // it becomes valid
    "ledger.row",              // a row becomes valid
    "card.draft",              // a draft of a card (or links, schema) is created
    "card.write",              // the draft is filled
    "card.rename",             // it takes its name
    "topics.create",           // the topics file is there, and empty
    "topics.append",           // it tells of more, or of fewer
    "card.call",               // those who wait at a pipe are called
    "card.remove",             // the node's files go
    "node.publish.published",  // the ledger says: published
    "node.publish.offer",      // the links are offered it
});

// The place of a name in step_names. Made of literals only: an unknown one does not compile.
class step_name {
 public:
  // NOLINTNEXTLINE(google-explicit-constructor): a literal is a name.
  consteval step_name(const char* name) {
    while (step_names[number_] != name) ++number_;  // past the end: not a constant expression
  }
  [[nodiscard]] constexpr std::size_t number() const noexcept { return number_; }
  [[nodiscard]] constexpr std::string_view text() const noexcept { return step_names[number_]; }

 private:
  std::size_t number_ = 0;
};

// --- where steps are taken (bus/base/step.cpp; not there otherwise)

// Hears of each step that the calling thread passes.
using step_listener = void (*)(step_name passed);
// From now on, for this thread; nullptr: nobody. Returns who it was before.
step_listener listen_to_steps(step_listener heard) noexcept;

// Kills this process at a passing of a step: "name:n", as in OMNIBUS_CRASH_AT; n counts from 1,
// over all threads and from now on. An empty text: at none. False: no such name, or no number.
[[nodiscard]] bool crash_at(std::string_view where) noexcept;

// The part of step() that is a call.
void pass_step(step_name passed) noexcept;

inline void step(step_name passed) noexcept {
  if constexpr (steps_are_taken) pass_step(passed);
}

}  // namespace bus
