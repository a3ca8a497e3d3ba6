// Addresses of this room: what the user lets us listen to, and what others are told.
//
//   listen:  tcp://HOST:PORT      HOST is *, localhost or an IPv4 address; PORT is 1-65535 or *
//   where:   zmq:tcp://HOST:PORT[,tcp://HOST:PORT]...    candidates, to be tried one by one
//
// Only IPv4 is spoken. Host names are allowed in `where` only; libzmq's thread resolves them.
#pragma once

#include "bus/base/result.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace transports::zeromq {

inline constexpr std::string_view scheme = "zmq";
// A candidate takes up to its deadline: more of them would be a way to keep us busy.
inline constexpr std::size_t candidates_max = 16;

struct endpoint {
  std::string host;        // "*" or dotted digits, or a name where allowed
  std::uint16_t port = 0;  // 0: any free one
  [[nodiscard]] std::string text() const;
  [[nodiscard]] bool is_loopback() const;
};

// Errors: bad_address.
[[nodiscard]] bus::result<endpoint> parse_listen(std::string_view text);
// Errors: unsupported (another scheme), bad_address.
[[nodiscard]] bus::result<std::vector<std::string>> parse_where(std::string_view address);
// How others reach what is bound there: itself, or for "*" each IPv4 address of each interface that
// is up, loopback last.
[[nodiscard]] std::vector<std::string> candidates(const endpoint& bound);

}  // namespace transports::zeromq
