// bus::node: one participant of the bus. It publishes, subscribes and waits; it chooses the
// transport of each link by itself.
//
// A node belongs to one thread: all calls on it and on what it made come from there; threads talk
// by the bus, each with a node of its own. It lives on the user's io_context
// (node_options::context), or on its own: then take(), wait_matched(), run() and publish() turn it.
#pragma once

#include "bus/node/publisher.hpp"
#include "bus/node/qos.hpp"
#include "bus/node/subscriber.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace bus {

class node {
 public:
  // Throws bus::error, whose text names what is wrong and what to do.
  explicit node(node_options options);
  // Waits at most a second for peers that are behind, and another one where what they have not read
  // would die with us. Requires: its publishers and subscribers are gone.
  ~node();
  node(node&&) noexcept;
  node& operator=(node&&) noexcept;

  [[nodiscard]] node_id id() const noexcept;
  [[nodiscard]] const std::string& name() const noexcept;
  [[nodiscard]] const std::string& directory() const noexcept;

  // A publisher of T on `topic`. Throws bus::error (bad_name).
  template <class T>
  [[nodiscard]] publisher<T> advertise(const std::string& topic) {
    return publisher<T>(*core_, core_->advertise(topic, codec<T>::type()));
  }
  // Raw bytes of a type that is known by its schema only: for tools and relays.
  [[nodiscard]] publisher<raw> advertise(const std::string& topic, const type_info& type) {
    return publisher<raw>(*core_, core_->advertise(topic, type));
  }

  // Everything that matches `pattern` and carries a T; for raw, everything. Throws bus::error
  // (bad_name).
  template <class T>
  [[nodiscard]] subscriber<T> subscribe(const std::string& pattern,
                                        subscription_options options = {}) {
    return subscriber<T>(*core_, core_->subscribe(pattern, type_of<T>(), options, {}));
  }
  // The same, to a callback that gets each message as `const received<T>&`, on the node's thread.
  // An exception comes out of the call that turned the node.
  template <class T, std::invocable<const received<T>&> Callback>
  [[nodiscard]] listener subscribe(const std::string& pattern, Callback callback,
                                   subscription_options options = {}) {
    auto shelf = std::make_shared<arena_shelf>();
    // The callback needs its own subscription's books, which exist only after subscribe().
    auto books = std::make_shared<std::weak_ptr<subscription>>();
    auto made =
        core_->subscribe(pattern, type_of<T>(), options,
                         [shelf, books, callback = std::move(callback)](sample&& arrived) mutable {
                           const auto own = books->lock();
                           auto decoded = received<T>::from(std::move(arrived), *shelf);
                           if (!decoded) {
                             if (own) own->spoil();
                             return;
                           }
                           if (own) own->settle();
                           callback(std::as_const(*decoded));
                         });
    *books = made;
    return listener(*core_, std::move(made));
  }

  // Why messages of `topic` do or do not arrive, as `bus why` tells it; to_text() shows it.
  // Reads the bus directory, and blocks for nothing else.
  [[nodiscard]] explanation why(const std::string& topic) const;

  // Turns the node until stop(), for callbacks; or until the time is over.
  void run();
  void run_for(std::chrono::nanoseconds timeout);
  // Ends run(); from a callback, or from another thread.
  void stop() noexcept;

  // The event loop on which coroutines wait: the user's, or one of the node's own, made at the
  // first call and then turned by run().
  [[nodiscard]] asio::io_context& context();

  [[nodiscard]] core& inside() noexcept { return *core_; }

 private:
  template <class T>
  [[nodiscard]] static const type_info* type_of() {
    // A raw subscriber takes every type, as tools do.
    if constexpr (std::is_same_v<T, raw>) return nullptr;
    return &codec<T>::type();
  }

  struct own_loop;
  std::unique_ptr<own_loop> loop_;
  std::unique_ptr<core> core_;
  std::unique_ptr<loop_driver> driver_;
};

}  // namespace bus
