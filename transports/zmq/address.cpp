#include "transports/zmq/address.hpp"

#include <algorithm>
#include <charconv>
#include <memory>

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

namespace transports::zeromq {
namespace {

constexpr std::string_view tcp = "tcp://";
constexpr std::size_t host_bytes_max = 253;  // of a host name, by RFC 1035

bool is_ipv4(const std::string& host) {
  in_addr parsed{};
  return ::inet_pton(AF_INET, host.c_str(), &parsed) == 1;
}

bool is_name(std::string_view host) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.';
  };
  const auto outer = [&](char c) { return allowed(c) && c != '-' && c != '.'; };
  return !host.empty() && host.size() <= host_bytes_max && outer(host.front()) &&
         outer(host.back()) && std::all_of(host.begin(), host.end(), allowed);
}

// "tcp://HOST:PORT" in two; the port is 0 for "*".
bus::result<endpoint> split(std::string_view text) {
  if (!text.starts_with(tcp)) return bus::unexpected(bus::errc::bad_address);
  text.remove_prefix(tcp.size());
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bus::unexpected(bus::errc::bad_address);
  endpoint found;
  found.host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (port == "*") return found;
  const auto [end, failed] = std::from_chars(port.data(), port.data() + port.size(), found.port);
  if (failed != std::errc{} || end != port.data() + port.size() || found.port == 0) {
    return bus::unexpected(bus::errc::bad_address);
  }
  return found;
}

}  // namespace

std::string endpoint::text() const {
  return std::string(tcp) + host + ":" + (port == 0 ? "*" : std::to_string(port));
}

bool endpoint::is_loopback() const {
  in_addr parsed{};
  return ::inet_pton(AF_INET, host.c_str(), &parsed) == 1 && (ntohl(parsed.s_addr) >> 24) == 127;
}

bus::result<endpoint> parse_listen(std::string_view text) {
  auto found = split(text);
  if (!found) return found;
  if (found->host == "localhost") found->host = "127.0.0.1";
  if (found->host == "0.0.0.0") found->host = "*";
  if (found->host != "*" && !is_ipv4(found->host)) {
    return bus::unexpected(bus::errc::bad_address);
  }
  return found;
}

bus::result<std::vector<std::string>> parse_where(std::string_view address) {
  const std::size_t colon = address.find(':');
  if (colon == std::string_view::npos) return bus::unexpected(bus::errc::bad_address);
  if (address.substr(0, colon) != scheme) return bus::unexpected(bus::errc::unsupported);
  address.remove_prefix(colon + 1);
  std::vector<std::string> found;
  for (;;) {
    const std::size_t comma = address.find(',');
    auto one = split(address.substr(0, comma));
    if (!one || one->port == 0 || !is_name(one->host)) {
      return bus::unexpected(bus::errc::bad_address);
    }
    if (found.size() == candidates_max) return bus::unexpected(bus::errc::bad_address);
    found.push_back(one->text());
    if (comma == std::string_view::npos) return found;
    address.remove_prefix(comma + 1);
  }
}

std::vector<std::string> candidates(const endpoint& bound) {
  if (bound.host != "*") return {bound.text()};
  std::vector<std::string> found;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) == 0) {
    const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, ::freeifaddrs);
    for (const ifaddrs* one = list; one && found.size() + 1 < candidates_max; one = one->ifa_next) {
      if (!one->ifa_addr || one->ifa_addr->sa_family != AF_INET) continue;
      if ((one->ifa_flags & IFF_UP) == 0 || (one->ifa_flags & IFF_LOOPBACK) != 0) continue;
      char text[INET_ADDRSTRLEN] = {};
      const void* const at = &reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr;
      if (::inet_ntop(AF_INET, at, text, sizeof text)) {
        found.push_back(endpoint{text, bound.port}.text());
      }
    }
  }
  found.push_back(endpoint{"127.0.0.1", bound.port}.text());
  return found;
}

}  // namespace transports::zeromq
