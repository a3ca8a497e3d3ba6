// Does not compile: each build of it, with another REFUSED, shows what the compiler says of a type
// that cannot travel. codec_refused.cmake holds the sentences that it must say.
#include "bus/codec/codec.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct with_virtual {
  virtual ~with_virtual() = default;
};
struct alignas(128) too_wide {
  char value;
};

[[maybe_unused]] constexpr bus::codec<REFUSED> refused{};
