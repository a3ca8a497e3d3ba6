// Finds what stands for a topic by its name: things that keep their topic in a member `topic`. They
// are found by the hash of the name, and then compared in full; so what is passed over on the way
// costs no look at its name, which among a million names is a cache miss each.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string_view>
#include <unordered_map>

namespace bus {

template <class T>
class topic_index {
 public:
  // `one` stays where it is, and keeps its topic, until remove().
  void add(T& one) { all_.emplace(hash(one.topic), &one); }
  void remove(const T& one) noexcept {
    const auto [first, last] = all_.equal_range(hash(one.topic));
    const auto at =
        std::find_if(first, last, [&](const auto& each) { return each.second == &one; });
    if (at != last) all_.erase(at);
  }
  // Calls visit(T&) for all of this topic. It may neither add nor remove any.
  template <class Visitor>
  void for_each(std::string_view topic, Visitor&& visit) const {
    const auto [first, last] = all_.equal_range(hash(topic));
    for (auto at = first; at != last; ++at) {
      if (at->second->topic == topic) visit(*at->second);
    }
  }

 private:
  [[nodiscard]] static std::size_t hash(std::string_view topic) noexcept {
    return std::hash<std::string_view>()(topic);
  }

  std::unordered_multimap<std::size_t, T*> all_;
};

}  // namespace bus
