#include "bus/route/ledger.hpp"

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
