#include "transports/pipe/intake.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace transports::pipes {
namespace {

// As much as a pipe usually holds. A release of any length needs no more than one run of it.
constexpr std::size_t buffer_bytes = 64 << 10;
// From here on a second read costs less than a second copy.
constexpr std::uint64_t large_bytes = 16 << 10;
// Read in one go: what is handed out soon leaves memory for the next that is still in the cache.
constexpr std::uint64_t receive_bytes = 64 << 10;

}  // namespace

bus::result<bool> intake::receive(ends& from, listener& to, std::size_t most) {
  std::size_t told = 0;
  bool was_emptied = false;
  const std::uint64_t enough = bytes_ + receive_bytes;
  for (;;) {
    auto parsed = parse(to, most, told);
    if (!parsed) return bus::unexpected(parsed.error());
    if (told >= most) return true;
    if (was_emptied) return false;
    if (told > 0 && bytes_ >= enough) return true;
    const auto filled = fill(from);
    if (!filled) return bus::unexpected(filled.error());
    was_emptied = !*filled;
  }
}

// Reads once. False: the pipe is empty now.
bus::result<bool> intake::fill(ends& from) {
  if (!buffer_) buffer_ = std::make_unique_for_overwrite<std::byte[]>(buffer_bytes);
  if (begin_ > 0) std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
  end_ -= std::exchange(begin_, 0);
  std::array<iovec, series_max + 1> into;
  std::size_t pieces = 0;
  std::size_t missing = 0;
  bool is_all = true;
  if (at_ == part::payloads) {
    std::uint64_t there = filled_;
    for (const announced& one : announced_) {
      is_all = missing < receive_bytes;
      if (!is_all) break;
      const auto rest = one.payload().subspan(std::min<std::uint64_t>(there, one.frame.bytes));
      there -= one.frame.bytes - rest.size();
      if (!rest.empty()) into[pieces++] = {rest.data(), rest.size()};
      missing += rest.size();
    }
  }
  std::size_t room = 0;
  if (is_all) {
    // Behind large payloads only the next heads are read here: if others follow, they go straight
    // to where they belong.
    const std::size_t up_to =
        expected_heads_ > 0 ? expected_heads_ * sizeof(message_layout) : buffer_bytes;
    room = up_to > end_ ? up_to - end_ : sizeof(message_layout);
    into[pieces++] = {buffer_.get() + end_, room};
  }
  const auto got = from.read(std::span(into).first(pieces));
  if (!got) return bus::unexpected(got.error());
  const std::size_t to_payloads = std::min(*got, missing);
  filled_ += to_payloads;
  end_ += *got - to_payloads;
  bytes_ += *got;
  return *got == missing + room;
}

bus::result<void> intake::parse(listener& to, std::size_t most, std::size_t& told) {
  while (told < most) {
    bus::result<bool> went = false;
    switch (at_) {
      case part::hello:
        went = parse_hello(to);
        break;
      case part::head:
        went = parse_head(to, told);
        break;
      case part::runs:
        went = parse_runs(to);
        break;
      case part::payloads:
        went = parse_payload(to, told);
        break;
    }
    if (!went) return bus::unexpected(went.error());
    if (!*went) break;
  }
  return {};
}

bus::result<bool> intake::parse_hello(listener& to) {
  hello_layout hello;
  const auto bytes = buffered();
  if (bytes.empty()) return false;
  std::memcpy(&hello, bytes.data(), std::min(bytes.size(), sizeof hello));
  // A stranger may say less than a hello, and wait.
  if (bytes.size() < offsetof(hello_layout, node)) return false;
  if (hello.magic != hello_layout::magic_value) return bus::unexpected(bus::errc::bad_message);
  if (hello.version != hello_layout::current_version) {
    return bus::unexpected(bus::errc::incompatible);
  }
  if (bytes.size() < sizeof hello) return false;
  begin_ += sizeof hello;
  at_ = part::head;
  auto greeted = to.greeted(hello);
  if (!greeted) return bus::unexpected(greeted.error());
  return true;
}

bus::result<bool> intake::parse_head(listener& to, std::size_t& told) {
  const auto bytes = buffered();
  if (bytes.size() < sizeof(head_layout)) return false;
  const auto head = read<head_layout>(bytes);
  if (head.reserved != 0 || head.reserved_too != 0) return bus::unexpected(bus::errc::bad_message);
  const auto kind = static_cast<word>(head.kind);
  // Behind a head whose payload is to come, only another one may stand.
  if (!announced_.empty() && kind != word::message && kind != word::more) {
    return bus::unexpected(bus::errc::bad_message);
  }
  switch (kind) {
    case word::message:
    case word::more:
      return parse_message(to, head);
    case word::release:
      // Whoever returns nothing, again and again, would keep us reading for ever.
      if (head.value == 0) return bus::unexpected(bus::errc::bad_message);
      begin_ += sizeof head;
      runs_left_ = head.value;
      at_ = part::runs;
      return true;
    case word::bye: {
      begin_ += sizeof head;
      ++told;
      auto parted = to.parted();
      if (!parted) return bus::unexpected(parted.error());
      return true;
    }
  }
  return bus::unexpected(bus::errc::bad_message);
}

bus::result<bool> intake::parse_message(listener& to, const head_layout& head) {
  const auto bytes = buffered();
  if (bytes.size() < sizeof(message_layout)) return false;
  if (announced_.size() == series_max) return bus::unexpected(bus::errc::bad_message);
  const bus::frame frame = read<message_layout>(bytes).frame;
  auto memory = to.announced(frame, head.value);
  if (!memory) return bus::unexpected(memory.error());
  announced_.push_back({std::move(*memory), frame, head.value});
  announced_bytes_ += frame.bytes;
  begin_ += sizeof(message_layout);
  if (static_cast<word>(head.kind) == word::message) {
    at_ = part::payloads;
    const bool is_large = std::exchange(announced_bytes_, 0) >= large_bytes;
    expected_heads_ = is_large ? announced_.size() : 0;
  }
  return true;
}

bus::result<bool> intake::parse_runs(listener& to) {
  if (runs_left_ == 0) {
    at_ = part::head;
    return true;
  }
  const auto bytes = buffered();
  if (bytes.size() < sizeof(bus::credit_run)) return false;
  begin_ += sizeof(bus::credit_run);
  --runs_left_;
  const auto run = read<bus::credit_run>(bytes);
  if (run.count == 0) return bus::unexpected(bus::errc::bad_message);
  auto released = to.released(run);
  if (!released) return bus::unexpected(released.error());
  return true;
}

bus::result<bool> intake::parse_payload(listener& to, std::size_t& told) {
  announced& first = announced_.front();
  const std::uint64_t all = first.frame.bytes;
  if (filled_ < all) {
    const auto here = buffered().first(std::min(end_ - begin_, all - filled_));
    if (!here.empty()) std::memcpy(first.payload().data() + filled_, here.data(), here.size());
    begin_ += here.size();
    filled_ += here.size();
  }
  if (filled_ < all) return false;
  filled_ -= all;
  ++told;
  announced whole = std::move(announced_.front());
  announced_.pop_front();
  if (announced_.empty()) at_ = part::head;
  to.arrived(std::move(whole.memory), whole.frame, whole.credit);
  return true;
}

}  // namespace transports::pipes
