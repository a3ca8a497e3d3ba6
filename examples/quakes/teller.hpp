// The publishing half of "at least once": a teller remembers what it has told, calls the roll of it
// four times a second, and tells again whatever somebody misses. What the bus cannot promise to a
// dead process, the two ends settle between themselves, by keys.
#pragma once

#include "bus/bus.hpp"
#include "examples/quakes/feed.hpp"
#include "examples/quakes/words.pb.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>

namespace demo {

template <class T>
class teller {
 public:
  // Both outlive the teller.
  teller(bus::node& node, asio::io_context& context, const std::string& source)
      : node_(node),
        source_(source),
        timer_(context),
        rolls_(node.advertise<Roll>("replay/roll/" + source)),
        agains_(node.subscribe<Again>("replay/again/" + source,
                                      [this](const auto& again) { tell_again(*again); })) {}

  // Makes a topic known before there is anything to say on it.
  void open(const std::string& topic) {
    if (!topics_.contains(topic)) topics_.emplace(topic, node_.advertise<T>(topic));
  }
  // How many subscribers every topic has reached at least.
  [[nodiscard]] std::size_t matched() const {
    std::size_t least = topics_.empty() ? 0 : SIZE_MAX;
    for (const auto& [topic, one] : topics_) least = std::min(least, one.matched());
    return least;
  }
  void tell(const T& message) {
    remember(message);
    publish(message);
  }
  // Told by an earlier incarnation of us.
  void remember(const T& message) { told_.emplace(key_of(message), message); }

  // From now on the roll is called.
  void call_roll() {
    constexpr auto between_rolls = std::chrono::milliseconds(250);
    Roll roll;
    roll.set_source(source_);
    for (const auto& [key, message] : told_) roll.add_keys(key);
    // One that does not get through is followed by the next.
    static_cast<void>(rolls_.publish(roll));
    timer_.expires_after(between_rolls);
    timer_.async_wait([this](std::error_code cancelled) {
      if (!cancelled) call_roll();
    });
  }

  [[nodiscard]] std::size_t told() const noexcept { return told_.size(); }
  [[nodiscard]] std::uint64_t retold() const noexcept { return retold_; }
  [[nodiscard]] std::uint64_t refused() const noexcept { return refused_; }

 private:
  void publish(const T& message) {
    const std::string topic = topic_of(message);
    open(topic);
    if (!topics_.at(topic).publish(message)) ++refused_;
  }
  void tell_again(const Again& again) {
    for (const std::string& key : again.keys()) {
      const auto known = told_.find(key);
      if (known == told_.end()) continue;
      ++retold_;
      publish(known->second);
    }
  }

  bus::node& node_;
  std::string source_;
  asio::steady_timer timer_;
  std::map<std::string, T> told_;
  std::map<std::string, bus::publisher<T>> topics_;
  bus::publisher<Roll> rolls_;
  bus::listener agains_;
  std::uint64_t retold_ = 0;
  std::uint64_t refused_ = 0;
};

}  // namespace demo
