#include "bus/tool/framing.hpp"

#include "bus/tool/verb.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include <CLI/CLI.hpp>

namespace bus::tool {

frame_head head_of_frame(std::size_t bytes) noexcept {
  frame_head made;
  for (std::size_t i = 0; i < made.size(); ++i) {
    made[i] = static_cast<std::byte>(bytes >> (8 * i) & 0xffU);
  }
  return made;
}

void framing_options::check() const {
  const int chosen = static_cast<int>(lines) + static_cast<int>(nul) + static_cast<int>(frames) +
                     static_cast<int>(chunks.has_value());
  if (chosen > 1) {
    throw failure(exit_code::usage, "take one of --lines, --nul, --chunks and --frames");
  }
  if (chunks && (*chunks == 0 || *chunks > piece_bytes_max)) {
    throw failure(exit_code::usage, "--chunks " + std::to_string(*chunks) +
                                        ": a chunk has at least 1 byte and at most " +
                                        std::to_string(piece_bytes_max));
  }
}

framing framing_options::how() const noexcept {
  if (nul) return framing::nul;
  if (chunks) return framing::chunks;
  return frames ? framing::frames : framing::lines;
}

void add_framing(CLI::App& parser, framing_options& into) {
  parser.add_flag("--lines", into.lines, "A message is a line, with its newline (the default)");
  parser.add_flag("--nul", into.nul, "A message ends with the byte 0, as of find -print0");
  parser.add_option("--chunks", into.chunks, "A message is what comes, at most so many bytes");
  parser.add_flag("--frames", into.frames,
                  "A message follows its length: 4 bytes, little-endian; also for --in");
}

cutter::cutter(const framing_options& options, std::size_t longest)
    : how_(options.how()), longest_(options.chunks.value_or(longest)), bytes_(2 * block_bytes) {}

std::span<std::byte> cutter::room() {
  if (begin_ == end_) begin_ = looked_ = end_ = 0;
  if (bytes_.size() - end_ < block_bytes && begin_ != 0) {
    std::memmove(bytes_.data(), bytes_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    looked_ -= begin_;
    begin_ = 0;
  }
  if (bytes_.size() - end_ < block_bytes) bytes_.resize(2 * bytes_.size());
  return std::span(bytes_).subspan(end_, std::min(bytes_.size() - end_, block_bytes));
}

std::span<const std::byte> cutter::take(std::size_t bytes) noexcept {
  const auto piece = std::span<const std::byte>(bytes_).subspan(begin_, bytes);
  begin_ += bytes;
  looked_ = std::max(looked_, begin_);
  return piece;
}

std::optional<std::span<const std::byte>> cutter::next() noexcept {
  if (how_ == framing::lines) return next_until('\n');
  if (how_ == framing::nul) return next_until('\0');
  if (how_ == framing::frames) return next_frame();
  if (begin_ == end_) return std::nullopt;
  return take(std::min(end_ - begin_, longest_));
}

std::optional<std::span<const std::byte>> cutter::next_until(char last) noexcept {
  const std::size_t limit = std::min(end_, begin_ + longest_);
  const void* const found = std::memchr(bytes_.data() + looked_, last, limit - looked_);
  if (found) {
    const auto at = static_cast<std::size_t>(static_cast<const std::byte*>(found) - bytes_.data());
    return take(at + 1 - begin_);
  }
  looked_ = limit;
  if (limit - begin_ == longest_) return take(longest_);
  return std::nullopt;
}

std::optional<std::span<const std::byte>> cutter::next_frame() noexcept {
  constexpr std::size_t head_bytes = std::tuple_size_v<frame_head>;
  if (broken_ || end_ - begin_ < head_bytes) return std::nullopt;
  std::size_t length = 0;
  for (std::size_t i = 0; i < head_bytes; ++i) {
    length |= std::to_integer<std::size_t>(bytes_[begin_ + i]) << (8 * i);
  }
  broken_ = length > frame_bytes_max;
  if (broken_ || end_ - begin_ < head_bytes + length) return std::nullopt;
  return take(head_bytes + length).subspan(head_bytes);
}

std::optional<std::span<const std::byte>> cutter::rest() noexcept {
  if (begin_ == end_) return std::nullopt;
  broken_ = broken_ || how_ == framing::frames;
  if (broken_) return std::nullopt;
  return take(end_ - begin_);
}

}  // namespace bus::tool
