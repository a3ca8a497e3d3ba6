// The four things that this room uses of libzmq's C interface, with owners: context, socket,
// message, monitor. Nothing here throws or blocks, except the context's destructor.
//
// (cppzmq is not used: it throws where we return, and its namespace would be ::zmq.)
#pragma once

#include "bus/base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <zmq.h>

namespace transports::zeromq {

// One I/O thread. Outlives its sockets; its destructor waits for their linger.
class context {
 public:
  [[nodiscard]] static bus::result<context> make(int sockets_max);
  context() noexcept = default;
  context(context&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  context& operator=(context&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~context();
  [[nodiscard]] explicit operator bool() const noexcept { return handle_ != nullptr; }
  [[nodiscard]] void* handle() const noexcept { return handle_; }

 private:
  void* handle_ = nullptr;
};

class message {
 public:
  message() noexcept { ::zmq_msg_init(&raw_); }
  message(message&& other) noexcept : message() { ::zmq_msg_move(&raw_, &other.raw_); }
  message& operator=(message&& other) noexcept {
    if (this != &other) ::zmq_msg_move(&raw_, &other.raw_);
    return *this;
  }
  message(const message&) = delete;
  message& operator=(const message&) = delete;
  ~message() { ::zmq_msg_close(&raw_); }

  // Room for `bytes`, to be filled; false: no memory.
  [[nodiscard]] bool allocate(std::size_t bytes) noexcept;
  // Refers to `place` without a copy. `release(hint)` is called once, on libzmq's thread or on
  // ours, when libzmq needs it no more. False: no memory, and it will not be called.
  [[nodiscard]] bool refer(std::span<const std::byte> place, void (*release)(void*, void*),
                           void* hint) noexcept;

  [[nodiscard]] std::span<std::byte> bytes() noexcept;
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept;
  // More parts of the same message follow.
  [[nodiscard]] bool more() const noexcept { return ::zmq_msg_more(&raw_) != 0; }
  // The descriptor of the connection that it came from, as a monitor names it; -1 if none.
  [[nodiscard]] int connection() const noexcept;
  [[nodiscard]] zmq_msg_t* raw() noexcept { return &raw_; }

 private:
  mutable zmq_msg_t raw_;
};

enum class part : bool { last, more };

class socket {
 public:
  [[nodiscard]] static bus::result<socket> make(const context& within, int type);
  socket() noexcept = default;
  socket(socket&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  socket& operator=(socket&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~socket() { close(); }

  [[nodiscard]] explicit operator bool() const noexcept { return handle_ != nullptr; }
  void close() noexcept;
  // Requires: an option that libzmq knows and a value that it allows.
  void set(int option, int value) noexcept;
  void set(int option, std::int64_t value) noexcept;
  [[nodiscard]] bus::result<void> bind(const std::string& endpoint) noexcept;
  [[nodiscard]] bus::result<void> connect(const std::string& endpoint) noexcept;
  [[nodiscard]] std::string last_endpoint() const;
  // Edge-triggered: see readable().
  [[nodiscard]] int descriptor() const noexcept;
  // Whether receive() would succeed. After it said no, and until the next call on this socket, the
  // descriptor becomes readable when that changes.
  [[nodiscard]] bool readable() noexcept;
  // False: nothing was sent, the message is still ours. Sends or takes a whole message's worth of
  // commands from libzmq's thread, and so can swallow an edge of descriptor().
  [[nodiscard]] bool send(message& one, part position = part::last) noexcept;
  [[nodiscard]] bool send(std::span<const std::byte> copied, part position = part::last) noexcept;
  // False: nothing is there. The same promise about the descriptor as readable().
  [[nodiscard]] bool receive(message& into) noexcept;
  [[nodiscard]] void* handle() const noexcept { return handle_; }

 private:
  void* handle_ = nullptr;
};

// What libzmq's thread tells of a socket's connections.
class monitor {
 public:
  struct event {
    int what = 0;   // one of ZMQ_EVENT_*
    int value = 0;  // a descriptor or an errno
  };
  // Watches `watched` for `events`. The queue has no limit: libzmq's thread waits for a full one,
  // and with it every link. An event takes about 100 bytes.
  [[nodiscard]] static bus::result<monitor> make(const context& within, socket& watched, int events,
                                                 const std::string& name);
  monitor() noexcept = default;
  monitor(monitor&&) noexcept = default;
  monitor& operator=(monitor&&) noexcept = default;

  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(events_); }
  // Before `watched` is closed, or libzmq's thread would wait for a reader that is gone.
  void stop(socket& watched) noexcept;
  [[nodiscard]] int descriptor() const noexcept { return events_.descriptor(); }
  [[nodiscard]] bool next(event& into) noexcept;

 private:
  socket events_;
};

}  // namespace transports::zeromq
