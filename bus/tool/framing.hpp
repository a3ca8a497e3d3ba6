// Framing: how the bytes of a program are cut into messages. Cutting takes nothing away and adds
// nothing: the messages of lines, nul and chunks, one behind the other, are the stream, byte for
// byte, whatever it holds and wherever it ends. Only frames have something around them in the
// stream that is not in the message, which the other end puts around them again.
//
//   lines    to the newline, and with it; what comes after the last newline is a message, too
//   nul      to the byte 0, and with it
//   chunks   the bytes as they come, at most so many
//   frames   a length in 4 bytes, little-endian, and so many bytes: these alone are the message
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace CLI {
class App;
}

namespace bus::tool {

enum class framing : std::uint8_t { lines, nul, chunks, frames };

// A longer piece of lines, nul and chunks is several messages. As many as a link may hold (1,024)
// are then what a node may lend (1 GiB).
inline constexpr std::size_t piece_bytes_max = 1UL << 20;
// A frame cannot be several messages. A guess: an image without compression has room.
inline constexpr std::size_t frame_bytes_max = 64UL << 20;

using frame_head = std::array<std::byte, 4>;
[[nodiscard]] frame_head head_of_frame(std::size_t bytes) noexcept;

struct framing_options {
  bool lines = false;
  bool nul = false;
  bool frames = false;
  std::optional<std::uint64_t> chunks;

  // Throws failure (usage) when it is more than one, or a chunk that cannot be.
  void check() const;
  [[nodiscard]] framing how() const noexcept;
};
void add_framing(CLI::App& parser, framing_options& into);

// A stream on its way to be messages. What next() and rest() give is good until room().
class cutter {
 public:
  // A piece that is longer than `longest` is several. Requires: options.check() did not throw.
  explicit cutter(const framing_options& options, std::size_t longest = piece_bytes_max);

  // Where the next bytes of the stream are to be put, block_bytes or more; and how many were.
  [[nodiscard]] std::span<std::byte> room();
  void filled(std::size_t bytes) noexcept { end_ += bytes; }
  // The next whole message; nothing: there is none yet.
  [[nodiscard]] std::optional<std::span<const std::byte>> next() noexcept;
  // The stream is over: what is left of it, after next() gave nothing. A part of a frame is none.
  [[nodiscard]] std::optional<std::span<const std::byte>> rest() noexcept;
  // A frame was longer than it may be, or the stream was over in the middle of one.
  [[nodiscard]] bool is_broken() const noexcept { return broken_; }

  // As much as a near cache holds twice.
  static constexpr std::size_t block_bytes = 128UL << 10;

 private:
  [[nodiscard]] std::span<const std::byte> take(std::size_t bytes) noexcept;
  [[nodiscard]] std::optional<std::span<const std::byte>> next_until(char last) noexcept;
  [[nodiscard]] std::optional<std::span<const std::byte>> next_frame() noexcept;

  framing how_;
  std::size_t longest_;
  std::vector<std::byte> bytes_;
  std::size_t begin_ = 0;
  std::size_t looked_ = 0;  // up to here there is no end of a piece
  std::size_t end_ = 0;
  bool broken_ = false;
};

}  // namespace bus::tool
