// A plain struct travels as itself. With loan() it is made where the subscribers will read it: a
// picture of one mebibyte crosses without being copied once.
#include "bus/bus.hpp"
#include "transports/standard.hpp"

#include <array>
#include <cstdint>
#include <cstdio>
#include <thread>

using namespace std::chrono_literals;

namespace {

struct image {
  std::uint32_t width;
  std::uint32_t height;
  std::array<std::uint8_t, 1 << 20> pixels;
};

void expose(image& picture) {
  picture.width = picture.height = 1024;
  for (std::size_t i = 0; i < picture.pixels.size(); ++i) {
    picture.pixels[i] = static_cast<std::uint8_t>(i % 251);
  }
}

void publish() {
  bus::node node({.name = "camera", .transports = transports::standard()});
  auto images = node.advertise<image>("camera/front");
  if (!images.wait_matched(1, 10s)) return;
  auto picture = images.loan();
  expose(*picture);
  images.publish(std::move(picture));
}

}  // namespace

int main() {
  bus::node node({.name = "screen", .transports = transports::standard()});
  auto images = node.subscribe<image>("camera/*");
  std::jthread camera(publish);
  const auto picture = images.take(10s);
  if (!picture) return 1;
  // Read in place; the memory goes home when `picture` ends, here after the camera has gone.
  std::uint64_t sum = 0;
  for (const std::uint8_t pixel : (*picture)->pixels) sum += pixel;
  std::printf("%u x %u pixels, sum %lu\n", (*picture)->width, (*picture)->height, sum);
  return 0;
}
