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
#include "bus/node/core.hpp"
#include "bus/node/error.hpp"
#include "bus/node/loop.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
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
  // How many samples the slowest peer has been sent and not yet let go of, among all that this node
  // sends it. Whoever must not lose any waits while this nears node_options::link_depth.
  [[nodiscard]] std::size_t backlog() const noexcept { return core_->backlog(*source_); }
  // Samples published so far: the last sequence.
  [[nodiscard]] std::uint64_t sequence() const noexcept { return source_->head.sequence; }

 protected:
  publisher_base(core& around, publication& source) noexcept : core_(&around), source_(&source) {}

  [[nodiscard]] static published refused(std::error_code why) noexcept {
    return {.links = 0, .taken = 0, .error = why};
  }
  // Waits for places; what kept us from publishing in `error`, if anything did.
  [[nodiscard]] published wait_places(std::chrono::nanoseconds timeout) {
    if (source_->gated == 0) return {};
    auto waited = core_->wait_places(*source_, deadline::after(timeout));
    if (!waited) return refused(errc::closed);  // nothing of ours is left to be touched
    if (waited->blocked != 0) waited->error = errc::timed_out;
    return *waited;
  }
  published seal(loan filled, std::uint64_t bytes, std::uint16_t flags) noexcept {
    frame head = core_->next_frame(*source_, flags);
    head.bytes = bytes;
    return core_->send(*source_, std::move(filled).commit(head));
  }

  core* core_;
  publication* source_;
};

template <class T>
class publisher : public publisher_base {
 public:
  using input = typename codec<T>::input;

  publisher(core& around, publication& source) noexcept : publisher_base(around, source) {}

  // Encodes and sends one message. Does not block. With nobody listening, nothing is encoded.
  // Errors, in the outcome: no_memory (subscribers hold all of it), too_big, bad_message.
  published publish(input message) noexcept {
    core_->in_passing(*source_);
    const auto bytes = codec<T>::size(message);
    if (!bytes) return refused(bytes.error());
    if (source_->routes.empty()) {
      core_->publish_to_nobody(*source_, *bytes);
      return {};
    }
    auto memory = core_->lend(*source_, *bytes);
    if (!memory) return refused(memory.error());
    codec<T>::encode(message, memory->bytes().first(*bytes));
    return seal(std::move(*memory), *bytes, codec<T>::frame_flags);
  }

  // Waits for those subscriptions that block and have no place, and then publishes; turns the node.
  // Each of them is waited for as long as it asked (subscription_options::block_for), and all at
  // most for `timeout`. When that is over first, the error is timed_out and nothing has happened:
  // nobody got the message, it has no number, and it can be tried again. In a callback, and with a
  // timeout of 0, nothing is waited for. Memory that was given is taken only if it was published.
  // Rethrows what a callback of this node threw meanwhile.
  published publish_wait(input message, std::chrono::nanoseconds timeout) {
    const published waited = wait_places(timeout);
    return waited.error ? waited : publish(message);
  }

  // Memory for one T, where subscribers read it. Throws bus::error (no_memory) when subscribers
  // hold all that this node may lend.
  [[nodiscard]] lent<T> loan() requires plain_struct<T> {
    auto memory = core_->lend(*source_, sizeof(T));
    if (!memory) throw error(memory.error(), "no memory to lend for topic '" + topic() + "'");
    return lent<T>(std::move(*memory));
  }
  published publish(lent<T>&& filled) noexcept requires plain_struct<T> {
    core_->in_passing(*source_);
    return seal(std::move(filled).release(), sizeof(T), codec<T>::frame_flags);
  }
  published publish_wait(lent<T>&& filled,
                         std::chrono::nanoseconds timeout) requires plain_struct<T> {
    const published waited = wait_places(timeout);
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
    const published waited = wait_places(timeout);
    return waited.error ? waited : publish(std::move(filled), bytes);
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
                    const Message& message) noexcept requires std::is_same_v<T, attached<Message>> {
    core_->in_passing(*source_);
    auto sealed = filled.commit(message, core_->next_frame(*source_, codec<T>::frame_flags));
    if (!sealed) return refused(sealed.error());
    return core_->send(*source_, std::move(*sealed));
  }
  template <class Message>
  published publish_wait(
      attachment_loan&& filled, const Message& message,
      std::chrono::nanoseconds timeout) requires std::is_same_v<T, attached<Message>> {
    const published waited = wait_places(timeout);
    return waited.error ? waited : publish(std::move(filled), message);
  }
};

}  // namespace bus
