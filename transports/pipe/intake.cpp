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
  std::array<iovec, 2> into;
  std::size_t pieces = 0;
  std::size_t missing = 0;
  if (payload_) {
    const auto rest = payload_->bytes().first(frame_.bytes).subspan(filled_);
    missing = rest.size();
    into[pieces++] = {rest.data(), missing};
  }
  // Behind a large payload only the next head is read here: if another one follows, it goes
  // straight to where it belongs.
  const std::size_t up_to = expects_large_ ? sizeof(message_layout) : buffer_bytes;
  const std::size_t room = up_to > end_ ? up_to - end_ : sizeof(message_layout);
  into[pieces++] = {buffer_.get() + end_, room};
  const auto got = from.read(std::span(into).first(pieces));
  if (!got) return bus::unexpected(got.error());
  const std::size_t to_payload = std::min(*got, missing);
  filled_ += to_payload;
  end_ += *got - to_payload;
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
      case part::payload:
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
  switch (static_cast<word>(head.kind)) {
    case word::message: {
      if (bytes.size() < sizeof(message_layout)) return false;
      frame_ = read<message_layout>(bytes).frame;
      credit_ = head.value;
      auto memory = to.announced(frame_, credit_);
      if (!memory) return bus::unexpected(memory.error());
      payload_.emplace(std::move(*memory));
      filled_ = 0;
      expects_large_ = frame_.bytes >= large_bytes;
      begin_ += sizeof(message_layout);
      at_ = part::payload;
      return true;
    }
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
  const auto here = buffered().first(std::min(end_ - begin_, frame_.bytes - filled_));
  if (!here.empty()) std::memcpy(payload_->bytes().data() + filled_, here.data(), here.size());
  begin_ += here.size();
  filled_ += here.size();
  if (filled_ < frame_.bytes) return false;
  at_ = part::head;
  ++told;
  bus::loan whole = std::move(*payload_);
  payload_.reset();
  to.arrived(std::move(whole), frame_, credit_);
  return true;
}

}  // namespace transports::pipes
