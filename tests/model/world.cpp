#include "tests/model/world.hpp"

#include "bus/base/step.hpp"
#include "tests/model/kernel.hpp"
#include "tests/model/probe.hpp"
#include "tests/model/region.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

namespace model {
namespace {

using transports::shared::arena;
using transports::shared::lane_in;
using transports::shared::lane_out;
using transports::shared::probe;

constexpr std::size_t bell_bytes = 192;

// Of the world that there is, outside of it.
std::vector<std::byte>& first_state() {
  static std::vector<std::byte> bytes;
  return bytes;
}

// Neither is part of the state.
world* listening = nullptr;
points pausing = points::all;

// Stores that make something readable or free, and looks that find it so. All else happens where
// nobody else looks, as the account shows: a slot, an entry, a cell is written before its mark and
// never while a live subscriber may read it, so filling and reading it commute with all that others
// do; and a death there is, to them, a death at the next effect.
bool can_be_seen(std::string_view step) {
  constexpr std::array lanes = std::to_array<std::string_view>(
      {"lane.push.mark", "lane.cell.mark", "lane.ask.want_room", "lane.scan.bits",
       "lane.scan.cells", "lane.report.cells", "lane.release.bit", "lane.release.look"});
  return step.starts_with("bell.") || std::find(lanes.begin(), lanes.end(), step) != lanes.end();
}

void on_step(bus::step_name passed) {
  if (!fiber::is_running()) return;
  // Whoever looks for a peer that waits has just answered it.
  if (passed.text() == "lane.release.look") listening->has_answered();
  if (pausing == points::all || can_be_seen(passed.text())) {
    fiber::pause(passed.text());
  }
}

}  // namespace

// --- processes

bell_page::bell_page(const bus::bell& of) {
  auto keys = of.keys();
  BUS_CHECK(keys.has_value());
  void* const at =
      ::mmap(nullptr, bell_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, keys->page.get(), 0);
  BUS_CHECK(at != MAP_FAILED);
  page_ = static_cast<bus::bell_layout*>(at);
  region::include({static_cast<std::byte*>(at), bell_bytes});
}

bell_page::~bell_page() {
  if (page_) ::munmap(page_, bell_bytes);
}

bool bell_page::is_posted() const noexcept {
  // Relaxed: all actors are one thread.
  return page_->permit.load(std::memory_order_relaxed) != 0;
}

bool process::is_rung() const noexcept {
  if (home->about().sleep == sleep_by::semaphore) return page.is_posted();
  pollfd event{doorbell->descriptors()[1], POLLIN, 0};
  return ::poll(&event, 1, 0) == 1;
}

void process::arm() noexcept {
  if (home->about().sleep == sleep_by::semaphore) return doorbell->arm_semaphore();
  doorbell->arm_descriptors();
}

void process::sleep(condition until) noexcept {
  fiber::wait("asleep", until);
  fiber::forget_calls();
  if (!is_rung()) return doorbell->disarm();  // the kernel's news woke it
  if (home->about().sleep == sleep_by::semaphore) {
    if (!doorbell->wait(bus::deadline::now())) home->fail("a posted semaphore did not wake");
    return;
  }
  doorbell->drain(doorbell->descriptors()[1]);
  doorbell->disarm();
}

// --- making it

world* world::make(const plan& of) {
  BUS_CHECK(of.publishers <= each_max && of.subscribers <= each_max && of.holds < each_max);
  region::reset();
  start_kernel(of.depth);
  world* made = nullptr;
  {
    const region::opened here;
    made = new world(of);
  }
  listening = made;
  bus::listen_to_steps(on_step);
  first_state().clear();
  for (const auto span : region::spans()) {
    first_state().insert(first_state().end(), span.begin(), span.end());
  }
  return made;
}

world::world(const plan& of) : plan_(of) {
  publishers_.resize(plan_.publishers);
  subscribers_.resize(plan_.subscribers);
  if (plan_.keepers) keepers_.resize(plan_.subscribers);
  for (unsigned s = 0; s < plan_.subscribers; ++s) make_subscriber(s);
  for (unsigned p = 0; p < plan_.publishers; ++p) make_publisher(p);
  for (unsigned p = 0; p < plan_.publishers; ++p) {
    for (unsigned s = 0; s < plan_.subscribers; ++s) connect(p, s);
  }
  begin();
}

world::~world() {
  bus::listen_to_steps(nullptr);
  listening = nullptr;
}

namespace {

void prepare(process& one, bool late) {
  auto made = bus::bell::make();
  BUS_CHECK(made.has_value());
  one.doorbell = std::move(*made);
  one.page = bell_page(*one.doorbell);
  if (late) bus::probe::start_late(*one.doorbell);
}

// Without the thread: the model has but one, and signals would reach the wrong actor.
bus::bell_keys keys_of(const process& one) {
  auto keys = one.doorbell->keys();
  BUS_CHECK(keys.has_value());
  keys->thread.reset();
  return std::move(*keys);
}

}  // namespace

void world::make_publisher(unsigned which) {
  publisher& made = publishers_[which];
  prepare(made, plan_.counters_late);
  auto slots = arena::make(plan_.slots * slot_bytes);
  BUS_CHECK(slots.has_value());
  made.slots = std::move(*slots);
  // All slots have been used before, so that nothing is made while states are counted.
  std::vector<bus::loan> all;
  for (unsigned i = 0; i < plan_.slots; ++i) {
    auto fresh = made.slots->carve(arena::class_for(lend_bytes));
    BUS_CHECK(fresh.has_value());
    std::byte* const frame = (*fresh)->payload - sizeof(bus::frame);
    if (i == 0) slots_at_[which] = frame - made.slots->offset_of(**fresh);
    region::include({frame, sizeof(bus::frame) + payload_bytes});
    all.emplace_back(**fresh);
  }
  const arena::returning cheaply(*made.slots);
  all.clear();
}

void world::make_subscriber(unsigned which) { prepare(subscribers_[which], plan_.counters_late); }

void world::connect(unsigned from, unsigned to) {
  publisher& sender = publishers_[from];
  subscriber& receiver = subscribers_[to];
  auto out = lane_out::make(plan_.depth);
  BUS_CHECK(out.has_value());
  auto lane = out->hand_out();
  auto payloads = sender.slots->hand_out();
  BUS_CHECK(lane.has_value() && payloads.has_value());
  const bool is_told = plan_.wrong != mistake::no_doorbell;
  auto in = lane_in::make({.sender = {node_of(from)},
                           .depth = plan_.depth,
                           .arena_bytes = sender.slots->bytes_max(),
                           .arena = std::move(*payloads),
                           .lane = std::move(*lane),
                           .bell = keys_of(sender),
                           .doorbell = is_told ? receiver.doorbell.get() : nullptr});
  BUS_CHECK(in.has_value());
  auto answers = (*in)->hand_out();
  BUS_CHECK(answers.has_value());
  const auto opened = out->open(*answers);
  BUS_CHECK(opened.has_value());
  if (plan_.counters_late) probe::start_late(*out, **in);
  links_[from][to].entries = probe::entries_read(**in);
  links_[from][to].cells = probe::cells_reported(**in);
  sender.lanes.push_back(std::move(*out));
  receiver.lanes.push_back(std::move(*in));
  auto bell = bus::ringer::open(keys_of(receiver));
  BUS_CHECK(bell.has_value());
  sender.bells.push_back(std::move(*bell));
}

points world::paused_at() noexcept { return pausing; }

void world::restart(points at) noexcept {
  pausing = at;
  const std::byte* from = first_state().data();
  for (const auto span : region::spans()) {
    std::memcpy(span.data(), from, span.size());
    from += span.size();
  }
  begin();
}

void world::begin() noexcept {
  const auto start = [&](actor& one, unsigned number, unsigned stack, fiber::body live,
                         void* self) {
    one.home = this;
    one.number = number;
    one.run.begin(stack, live, self);
  };
  unsigned stack = 0;
  for (unsigned p = 0; p < plan_.publishers; ++p) {
    start(publishers_[p], p, stack++, publisher::live, &publishers_[p]);
  }
  for (unsigned s = 0; s < plan_.subscribers; ++s) {
    start(subscribers_[s], s, stack++, subscriber::live, &subscribers_[s]);
  }
  for (unsigned k = 0; k < keepers_.size(); ++k) {
    start(keepers_[k], k, stack++, keeper::live, &keepers_[k]);
  }
  for (unsigned i = 0; i < processes(); ++i) {
    // A wakeup of the last execution, which is the kernel's and not in our memory.
    std::uint64_t count = 0;
    static_cast<void>(!::read(process_of(i).doorbell->descriptors()[1], &count, sizeof count));
  }
}

// --- going on

process& world::process_of(unsigned which) noexcept {
  if (which < plan_.publishers) return publishers_[which];
  return subscribers_[which - plan_.publishers];
}

actor& world::actor_of(unsigned which) noexcept {
  if (which < processes()) return process_of(which);
  return keepers_[which - processes()];
}

const fiber& world::run_of(unsigned which) const noexcept {
  return const_cast<world*>(this)->actor_of(which).run;
}

std::string world::name_of(unsigned which) const {
  if (which < plan_.publishers) return "publisher " + std::to_string(which + 1);
  if (which < processes()) return "subscriber " + std::to_string(which - plan_.publishers + 1);
  return "keeper " + std::to_string(which - processes() + 1);
}

bool world::is_at(unsigned which, std::string_view place) const noexcept {
  return run_of(which).place() == place;
}

// A fiber that waited for a mutex would keep everybody waiting: its mate, which has it, goes first.
bool world::can_go(unsigned which) const noexcept {
  if (!run_of(which).can_go()) return false;
  if (!plan_.keepers || which < plan_.publishers) return true;
  if (!is_at(which, "lane.release.look") && !is_at(which, "keeps")) return true;
  const subscriber& owner = subscribers_[(which - plan_.publishers) % plan_.subscribers];
  return std::none_of(owner.lanes.begin(), owner.lanes.end(),
                      [](const lane_in::owner& lane) { return probe::is_ringing(*lane); });
}

void world::resume(unsigned which) noexcept {
  running_ = &actor_of(which);
  process* const whose = which < processes() ? &process_of(which) : nullptr;
  probe::here() = whose ? whose->here : nullptr;
  running_->run.resume();
  arena* const here = std::exchange(probe::here(), nullptr);
  if (whose) whose->here = here;
}

void world::kill(unsigned which) noexcept {
  process_of(which).run.drop();
  if (which >= plan_.publishers && plan_.keepers) keepers_[which - plan_.publishers].run.drop();
}

bool world::is_over() const noexcept {
  for (unsigned i = 0; i < actors(); ++i) {
    if (!run_of(i).ended() && !run_of(i).dropped()) return false;
  }
  return true;
}

}  // namespace model
