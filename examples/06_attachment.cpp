// A message with a large binary part: the part is filled in place and read in place, the message
// beside it is protobuf, and both arrive as one.
#include "bus/bus.hpp"
#include "schemas/demo/quake.pb.h"
#include "transports/standard.hpp"

#include <algorithm>
#include <cstdio>
#include <thread>

using namespace std::chrono_literals;

namespace {

using waveform = bus::attached<demo::Quake>;

void publish() {
  bus::node node({.name = "seismograph", .transports = transports::standard()});
  auto waveforms = node.advertise<waveform>("waveforms/ci");
  if (!waveforms.wait_matched(1, 10s)) return;
  auto memory = waveforms.loan({.binary_bytes = 100'000, .message_bytes_max = 1000});
  if (!memory) return;
  std::ranges::fill(memory->binary(), std::byte{7});
  demo::Quake quake;
  quake.set_id("ci37868143");
  waveforms.publish(std::move(*memory), quake);
}

}  // namespace

int main() {
  bus::node node({.name = "analyst", .transports = transports::standard()});
  auto waveforms = node.subscribe<waveform>("waveforms/**");
  std::jthread seismograph(publish);
  const auto one = waveforms.take(10s);
  if (!one) return 1;
  const auto sevens = std::ranges::count(one->binary(), std::byte{7});
  std::printf("%s with %td bytes of waveform\n", one->message().id().c_str(), sevens);
  return sevens == 100'000 ? 0 : 1;
}
