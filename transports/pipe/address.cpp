#include "transports/pipe/address.hpp"

#include <charconv>

namespace transports::pipes {
namespace {

// Takes a number from the front of `text`.
template <class Number>
std::optional<Number> take_number(std::string_view& text) {
  Number number{};
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failed != std::errc{} || number < Number{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

bool take(std::string_view& text, std::string_view expected) {
  if (!text.starts_with(expected)) return false;
  text.remove_prefix(expected.size());
  return true;
}

std::optional<end_name> take_end(std::string_view& text) {
  const auto descriptor = take_number<int>(text);
  if (!descriptor) return std::nullopt;
  if (!take(text, "@")) return end_name{.descriptor = *descriptor, .pipe = 0};
  const auto pipe = take_number<std::uint64_t>(text);
  if (!pipe || *pipe == 0) return std::nullopt;
  return end_name{.descriptor = *descriptor, .pipe = *pipe};
}

}  // namespace

bus::result<std::optional<pair_name>> parse(std::string_view address) {
  if (!take(address, scheme) || !take(address, ":")) return bus::unexpected(bus::errc::unsupported);
  if (address.empty()) return std::optional<pair_name>();
  const auto in = take_end(address);
  if (!in || !take(address, ",")) return bus::unexpected(bus::errc::bad_address);
  const auto out = take_end(address);
  if (!out) return bus::unexpected(bus::errc::bad_address);
  const bool lends_pages = take(address, ",pages");
  if (!address.empty()) return bus::unexpected(bus::errc::bad_address);
  return std::optional(pair_name{.in = *in, .out = *out, .lends_pages = lends_pages});
}

}  // namespace transports::pipes
