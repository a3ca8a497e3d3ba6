#include "bus/route/ledger.hpp"

#include <algorithm>

namespace bus {

std::string_view name_of(loss cause) noexcept {
  switch (cause) {
    case loss::queue_full:
      return "queue_full";
    case loss::overwritten:
      return "overwritten";
    case loss::too_big:
      return "too_big";
    case loss::no_link:
      return "no_link";
    case loss::expired:
      return "expired";
    case loss::decode_error:
      return "decode_error";
    case loss::cut:
      return "cut";
  }
  return "unknown";
}

std::uint64_t scheme_word(std::string_view scheme) noexcept {
  std::uint64_t word = 0;
  for (std::size_t i = std::min(scheme.size(), sizeof word); i > 0; --i) {
    word = word << 8 | static_cast<unsigned char>(scheme[i - 1]);
  }
  return word;
}

std::string scheme_of(std::uint64_t word) {
  std::string scheme;
  // Letters only: the file is a stranger's.
  for (; word != 0; word >>= 8) {
    const char letter = static_cast<char>(word & 0xff);
    scheme += letter >= 'a' && letter <= 'z' ? letter : '?';
  }
  return scheme;
}

const ledger_entry* find_entry(const ledger_reading& ledger, row_kind kind, std::uint32_t number,
                               node_id peer, std::uint64_t other) noexcept {
  for (const ledger_entry& one : ledger.entries) {
    if (one.kind == kind && one.number == number && one.peer == peer && one.other == other) {
      return &one;
    }
  }
  return nullptr;
}

}  // namespace bus
