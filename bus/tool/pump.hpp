// What a program writes, on its way to a topic: read as it comes, cut into messages, published. It
// reads no further than the topic has room, so that the program waits in its own write().
#pragma once

#include "bus/tool/framing.hpp"
#include "bus/tool/outlet.hpp"
#include "bus/tool/stream_end.hpp"

#include <functional>
#include <span>

#include <asio/awaitable.hpp>

namespace bus::tool {

struct pump_plan {
  stream_end& from;
  outlet& to;
  framing_options how = {};
  // Gets the bytes as well, as they come. False: nobody wants them any more, and so the program is
  // not read any further, as if its output had gone there alone.
  std::function<asio::awaitable<bool>(std::span<const std::byte>)> pass_on = {};
};
// Pumps until the stream is over, and closes it. False: it was in frames, and did not keep to them.
[[nodiscard]] asio::awaitable<bool> pump(pump_plan plan);

}  // namespace bus::tool
