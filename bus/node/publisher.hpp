// publisher<T>: the one publish call. It numbers, stamps and encodes a message once, straight into
// memory that the subscribers read, and offers it to every link. It never blocks: what a link or a
// subscription had no room for is counted, returned, and made known to the subscriber.
//
// Who wants to wait for subscriptions that block (drop::none) has three ways, as it waits for
// messages:
//
//   readings.publish_wait(r, 5s);                                   blocking
//   while (!readings.has_room()) co_await readings.room();          a coroutine
//   if (readings.has_room()) readings.publish(r);                   as the user's own loop turns
//
// Used from the node's thread; must not outlive its node.
#pragma once

#include "bus/base/clock.hpp"
#include "bus/codec/codec.hpp"
#include "bus/codec/received.hpp"
#include "bus/link/relay.hpp"
#include "bus/node/core.hpp"
#include "bus/node/error.hpp"
#include "bus/node/loop.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <asio/awaitable.hpp>

namespace bus {

// A plain struct in lent memory, to be filled in place and published. Its members are not
// initialised, unless T's own constructor does so. Dropped unpublished, the memory goes home.
template <class T>
class lent {
  static_assert(plain_struct<T>);

 public:
  lent(loan memory) noexcept : memory_(std::move(memory)) { new (memory_.bytes().data()) T; }
  [[nodiscard]] T& operator*() noexcept {
    return *std::launder(reinterpret_cast<T*>(memory_.bytes().data()));
  }
  [[nodiscard]] T* operator->() noexcept { return &**this; }
  // Gives the memory away, as publisher::publish does.
  [[nodiscard]] loan release() && noexcept { return std::move(memory_); }

 private:
  loan memory_;
};

// Messages of equal size in lent memory, to be filled in place and published together. Dropped
// unpublished, the memory goes home.
class lent_batch {
 public:
  struct room {
    std::uint32_t messages = 0;  // at least 1, at most batch::messages_max
    std::uint64_t bytes = 0;     // of each
  };
  // `memory` has room for payload_bytes(wanted).
  lent_batch(loan memory, room wanted) noexcept : memory_(std::move(memory)), room_(wanted) {
    batch::writer table(memory_.bytes().first(payload_bytes(wanted)), wanted.messages);
    for (std::uint32_t i = 0; i < wanted.messages; ++i) static_cast<void>(table.add(wanted.bytes));
  }
  [[nodiscard]] static std::uint64_t payload_bytes(const room& wanted) noexcept {
    return batch::bytes_for_equal(wanted.messages, wanted.bytes);
  }
  [[nodiscard]] std::uint32_t size() const noexcept { return room_.messages; }
  // Requires: index < size().
  [[nodiscard]] std::span<std::byte> operator[](std::uint32_t index) const noexcept {
    return memory_.bytes().subspan(batch::next_place(room_.bytes) * index, room_.bytes);
  }
  [[nodiscard]] const room& about() const noexcept { return room_; }
  [[nodiscard]] loan release() && noexcept { return std::move(memory_); }

 private:
  loan memory_;
  room room_;
};

// What every publisher can, whatever its type: the part that needs no template.
class publisher_base {
 public:
  publisher_base(publisher_base&& other) noexcept
      : core_(std::exchange(other.core_, nullptr)), source_(other.source_) {}
  publisher_base& operator=(publisher_base&& other) noexcept {
    std::swap(core_, other.core_);
    std::swap(source_, other.source_);
    return *this;
  }
  ~publisher_base() {
    if (core_) core_->retire(*source_);
  }

  [[nodiscard]] const std::string& topic() const noexcept { return source_->topic; }
  // Its number within the node, as it stands in frames and ledgers.
  [[nodiscard]] std::uint32_t number() const noexcept { return source_->number; }
  // How many links carry this publisher now, proved by a message that the peer let go of.
  [[nodiscard]] std::size_t matched() const { return core_->confirmed(*source_); }
  // Waits until `links` peers are matched() or the time is over; true if they are. Turns the node.
  bool wait_matched(std::size_t links, std::chrono::nanoseconds timeout) {
    return core_->drive(deadline::after(timeout), 256, [&] { return matched() >= links; });
  }
  // Whether every link has a place for the next message, and every subscription that blocks, unless
  // it was waited for as long as it asked. Cheap enough to ask before each: a publisher that must
  // lose nothing asks, and waits if not.
  [[nodiscard]] bool has_room() const noexcept { return core_->has_room(*source_); }
  // Waits until the slowest link has half of its places free and every subscription that blocks has
  // a place, or the time is over; turns the node.
  bool wait_room(std::chrono::nanoseconds timeout) {
    return core_->wait_room(*source_, deadline::after(timeout));
  }
  // Waits until has_room(), for a coroutine on the node's event loop (see node::context()). False:
  // the time is over, or the publisher has ended; it may end while this waits. Several coroutines
  // may wait, so the one that comes second asks again.
  [[nodiscard]] asio::awaitable<bool> room(
      std::chrono::nanoseconds timeout = std::chrono::nanoseconds::max()) {
    return await_room(*core_, *source_, deadline::after(timeout));
  }
  // Whether a subscription that it meets blocks, so that messages are waited for one by one.
  [[nodiscard]] bool is_gated() const noexcept { return source_->gated != 0; }
  // How many samples the slowest peer has been sent and not yet let go of, among all that this node
  // sends it. Whoever must not lose any waits while this nears node_options::link_depth.
  [[nodiscard]] std::size_t backlog() const noexcept { return core_->backlog(*source_); }
  // Samples published so far: the last sequence.
  [[nodiscard]] std::uint64_t sequence() const noexcept { return source_->head.sequence; }

 protected:
  publisher_base(core& around, publication& source) noexcept : core_(&around), source_(&source) {}

  [[nodiscard]] static published refused(std::error_code why) noexcept { return {.error = why}; }
  // Waits for places; what kept us from publishing in `error`, if anything did.
  [[nodiscard]] published wait_places(std::uint64_t bytes, deadline until) {
    auto waited = core_->wait_places(*source_, bytes, until);
    if (!waited) return refused(errc::closed);  // nothing of ours is left to be touched
    if (waited->blocked != 0) waited->error = errc::timed_out;
    return *waited;
  }
  [[nodiscard]] published wait_places(std::uint64_t bytes, std::chrono::nanoseconds timeout) {
    if (core_->admits(*source_, bytes)) return {};
    return wait_places(bytes, deadline::after(timeout));
  }
  static void add(published& sum, const published& part) noexcept {
    sum.links += part.links;
    sum.taken += part.taken;
    sum.messages += part.messages;
    sum.error = part.error;
    if (sum.blocked == 0) sum.by = part.by;
    sum.blocked += part.blocked;
  }
  published seal(loan filled, std::uint64_t bytes, std::uint16_t flags,
                 std::uint32_t messages = 1) noexcept {
    frame head = core_->next_frame(*source_, flags);
    head.bytes = bytes;
    return core_->send(*source_, std::move(filled).commit(head), messages);
  }

  core* core_;
  publication* source_;
};

template <class T>
class publisher : public publisher_base {
 public:
  using input = typename codec<T>::input;
  using message = std::remove_cvref_t<input>;

  publisher(core& around, publication& source) noexcept : publisher_base(around, source) {}

  // Encodes and sends one message. Does not block. With nobody listening, nothing is encoded.
  // Errors, in the outcome: no_memory (subscribers hold all of it), too_big, bad_message.
  published publish(input one) noexcept {
    core_->in_passing(*source_);
    const auto bytes = codec<T>::size(one);
    if (!bytes) return refused(bytes.error());
    if (source_->routes.empty()) return core_->publish_to_nobody(*source_, *bytes);
    return publish_one(one, *bytes);
  }

  // The same for many, in their order; for raw, a span of spans. They travel in batches, each with
  // one place in a queue, one look at who sleeps and one reference to its memory: several times as
  // many small messages a second. Stops at the first error; `messages` in the outcome tells how
  // many were published before.
  published publish(std::span<const message> messages) noexcept {
    published sum;
    while (!messages.empty() && !sum.error) {
      core_->in_passing(*source_);
      add(sum, publish_some(messages));
    }
    return sum;
  }

  // Waits for those subscriptions that block and have no place, and for memory if subscribers hold
  // all of it, and then publishes; turns the node. Each of them is waited for as long as it asked
  // (subscription_options::block_for), and all at most for `timeout`. When that is over first, the
  // error is timed_out and nothing has happened: nobody got the message, it has no number, and it
  // can be tried again. In a callback, and with a timeout of 0, nothing is waited for. Memory that
  // was given is taken only if it was published. Rethrows what a callback of this node threw
  // meanwhile.
  published publish_wait(input one, std::chrono::nanoseconds timeout) {
    std::optional<deadline> until;  // the clock is read when it has to be
    for (;;) {
      published outcome;
      if (source_->gated != 0) {
        const auto bytes = codec<T>::size(one);
        if (!bytes) return refused(bytes.error());
        if (!core_->admits(*source_, *bytes)) {
          if (!until) until = deadline::after(timeout);
          outcome = wait_places(*bytes, *until);
        }
      }
      if (!outcome.error) outcome = publish(one);
      if (outcome.error != errc::no_memory) return outcome;
      // Nothing has happened yet.
      if (!until) until = deadline::after(timeout);
      const std::error_code missing = core_->wait_memory(*source_, *codec<T>::size(one), *until);
      if (missing) return refused(missing);
    }
  }

  // Memory for one T, where subscribers read it. Throws bus::error (no_memory) when subscribers
  // hold all that this node may lend.
  [[nodiscard]] lent<T> loan() requires plain_struct<T> {
    auto memory = core_->lend(*source_, sizeof(T));
    if (!memory) {
      throw error(memory.error(), "no memory to lend for " + std::to_string(sizeof(T)) +
                                      " bytes of topic '" + topic() +
                                      "': " + memory.error().message());
    }
    return lent<T>(std::move(*memory));
  }
  published publish(lent<T>&& filled) noexcept requires plain_struct<T> {
    core_->in_passing(*source_);
    return seal(std::move(filled).release(), sizeof(T), codec<T>::frame_flags);
  }
  published publish_wait(lent<T>&& filled,
                         std::chrono::nanoseconds timeout) requires plain_struct<T> {
    const published waited = wait_places(sizeof(T), timeout);
    return waited.error ? waited : publish(std::move(filled));
  }

  // Memory for `bytes` raw bytes, to be filled and published. Errors: no_memory, too_big.
  [[nodiscard]] result<bus::loan> loan(
      std::uint64_t bytes) noexcept requires std::is_same_v<T, raw> {
    return core_->lend(*source_, bytes);
  }
  // The first `bytes` of the loan. Requires: bytes <= filled.bytes().size().
  published publish(bus::loan&& filled,
                    std::uint64_t bytes) noexcept requires std::is_same_v<T, raw> {
    core_->in_passing(*source_);
    return seal(std::move(filled), bytes, 0);
  }
  published publish_wait(bus::loan&& filled, std::uint64_t bytes,
                         std::chrono::nanoseconds timeout) requires std::is_same_v<T, raw> {
    const published waited = wait_places(bytes, timeout);
    return waited.error ? waited : publish(std::move(filled), bytes);
  }

  // Memory for a batch of raw messages of equal size. Errors: no_memory, too_big (also for more
  // than batch::messages_max messages, or none).
  [[nodiscard]] result<lent_batch> loan(
      lent_batch::room wanted) noexcept requires std::is_same_v<T, raw> {
    if (wanted.messages == 0 || wanted.messages > batch::messages_max) {
      return unexpected(errc::too_big);
    }
    auto memory = core_->lend(*source_, lent_batch::payload_bytes(wanted));
    if (!memory) return unexpected(memory.error());
    return lent_batch(std::move(*memory), wanted);
  }
  published publish(lent_batch&& filled) noexcept requires std::is_same_v<T, raw> {
    core_->in_passing(*source_);
    const lent_batch::room about = filled.about();
    if (source_->gated != 0) {
      published sum;
      for (std::uint32_t i = 0; i < about.messages && !sum.error; ++i) {
        add(sum, publish(std::span<const std::byte>(filled[i])));
      }
      return sum;
    }
    return seal(std::move(filled).release(), lent_batch::payload_bytes(about), frame_flag::batch,
                about.messages);
  }

  // Publishes a message that came to us as it is, without a copy: for relays and bridges, with a
  // publisher of the message's own type (node::advertise(topic, type)). It stays lent to us until
  // those who take it have let go of it. Subscribers on this host get one copy for all of them.
  // Errors, in the outcome: no_memory, too_big.
  published forward(const received<raw>& heard) noexcept requires std::is_same_v<T, raw> {
    core_->in_passing(*source_);
    const std::uint64_t bytes = heard.bytes().size();
    if (source_->routes.empty()) return core_->publish_to_nobody(*source_, bytes);
    frame head = core_->next_frame(*source_, heard.head().flags);
    head.bytes = bytes;
    sample ours = relay(heard.whole(), head);
    if (!ours) return refused(errc::no_memory);
    return core_->send(*source_, std::move(ours));
  }

  // Memory for an attachment: fill binary(), then publish it with its message. Errors: no_memory,
  // too_big.
  [[nodiscard]] result<attachment_loan> loan(
      attachment_loan::room wanted) noexcept requires detail::is_attached<T> {
    const auto bytes = attachment_loan::bytes_for(wanted);
    if (!bytes) return unexpected(bytes.error());
    auto memory = core_->lend(*source_, *bytes);
    if (!memory) return unexpected(memory.error());
    return attachment_loan::adopt(std::move(*memory), wanted.binary_bytes);
  }
  // Errors, in the outcome: too_big (the message does not fit behind the binary part), bad_message.
  template <class Message>
  published publish(attachment_loan&& filled,
                    const Message& words) noexcept requires std::is_same_v<T, attached<Message>> {
    core_->in_passing(*source_);
    auto sealed = filled.commit(words, core_->next_frame(*source_, codec<T>::frame_flags));
    if (!sealed) return refused(sealed.error());
    return core_->send(*source_, std::move(*sealed));
  }
  template <class Message>
  published publish_wait(
      attachment_loan&& filled, const Message& words,
      std::chrono::nanoseconds timeout) requires std::is_same_v<T, attached<Message>> {
    const auto bytes = attachment_loan::bytes_for(
        {.binary_bytes = filled.binary().size(), .message_bytes_max = words.ByteSizeLong()});
    const published waited = wait_places(bytes.value_or(std::uint64_t{0}), timeout);
    return waited.error ? waited : publish(std::move(filled), words);
  }

 private:
  // As many from the front as make one batch; takes them off `messages`. Where somebody blocks, one
  // by one: places are counted in messages.
  published publish_some(std::span<const message>& messages) noexcept {
    const std::size_t most =
        source_->gated != 0 ? 1 : std::min<std::size_t>(messages.size(), batch::messages_max);
    std::uint64_t end = 0;
    std::uint32_t count = 0;
    std::uint64_t wanted = 0;  // of the last one looked at
    for (; count < most; ++count) {
      const auto bytes = codec<T>::size(messages[count]);
      if (!bytes && count == 0) return refused(bytes.error());
      if (!bytes) break;
      wanted = *bytes;
      const std::uint64_t longer = batch::next_place(end) + wanted;
      if (count > 0 && batch::bytes_for(longer, count + 1) > batch::bytes_usual) break;
      end = longer;
    }
    const auto some = messages.first(count);
    messages = messages.subspan(count);
    if (source_->routes.empty()) return core_->publish_to_nobody(*source_, end, count);
    if (count == 1) return publish_one(some.front(), end);
    const std::uint64_t whole = batch::bytes_for(end, count);
    auto memory = core_->lend(*source_, whole);
    if (!memory) return refused(memory.error());
    batch::writer into(memory->bytes().first(whole), count);
    for (const message& one : some) codec<T>::encode(one, into.add(*codec<T>::size(one)));
    return seal(std::move(*memory), whole, codec<T>::frame_flags | frame_flag::batch, count);
  }
  published publish_one(input one, std::uint64_t bytes) noexcept {
    if (std::byte* const place = core_->claim(*source_, bytes)) {
      codec<T>::encode(one, {place, static_cast<std::size_t>(bytes)});
      return core_->commit(*source_, bytes, codec<T>::frame_flags);
    }
    auto memory = core_->lend(*source_, bytes);
    if (!memory) return refused(memory.error());
    codec<T>::encode(one, memory->bytes().first(bytes));
    return seal(std::move(*memory), bytes, codec<T>::frame_flags);
  }
};

}  // namespace bus
