// An explanation as lines for people.
#include "bus/route/explain.hpp"

#include <array>
#include <cstdio>

namespace bus {
namespace {

std::string one_decimal(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f", value);
  return text.data();
}

std::string cost_of(std::uint64_t ns) {
  if (ns < 1'000) return std::to_string(ns) + " ns";
  if (ns < 1'000'000) return one_decimal(static_cast<double>(ns) / 1e3) + " us";
  return one_decimal(static_cast<double>(ns) / 1e6) + " ms";
}

void pad(std::string& line, std::size_t columns) {
  // At least two blanks, so that a long word does not run into the next.
  line.append(line.size() + 2 > columns ? 2 : columns - line.size(), ' ');
}

std::string who(const explanation::party& one) {
  std::string text = one.node_name.empty() ? "node" : one.node_name;
  text += " (" + to_hex(one.node.value);
  if (one.pid != 0) text += ", pid " + std::to_string(one.pid);
  text += one.here ? ")" : ", elsewhere)";
  return one.on_behalf_of.empty() ? text : text + " for its child " + one.on_behalf_of;
}

std::string type_of(const explanation::party& one) {
  return one.type_hash == 0 ? one.type : one.type + ' ' + to_hex(one.type_hash);
}

void add_path(std::string& text, const explanation::path& one) {
  text += '\n' + who(one.from) + " -> " + who(one.to) + '\n';
  for (const auto& step : one.steps) {
    std::string line = "  " + step.name;
    pad(line, 13);
    line += name_of(step.how);
    pad(line, 22);
    text += line + step.words + '\n';
    if (step.name != "link") continue;
    for (const auto& candidate : one.candidates) {
      std::string tried = "    " + std::string(candidate.chosen ? "* " : "  ") + candidate.scheme;
      pad(tried, 14);
      tried += cost_of(candidate.cost_ns);
      pad(tried, 24);
      tried += candidate.verdict;
      if (!candidate.address.empty()) tried += "  [" + candidate.address + ']';
      text += tried + '\n';
    }
  }
  text += "  last sent " + std::to_string(one.sent) + ", last received " +
          (one.received_known ? std::to_string(one.received) : "unknown");
  if (const auto* const won = one.winner()) {
    text += ", by " + won->scheme + " at an estimated " + cost_of(won->cost_ns) + " for 1 KiB";
  }
  text += '\n';
  for (std::size_t i = 0; i < loss_count; ++i) {
    if (one.lost[i] == 0) continue;
    text += "  the subscription has lost " + std::to_string(one.lost[i]) + ": " +
            std::string(name_of(static_cast<loss>(i))) + '\n';
  }
  if (!one.fix.empty()) text += "  fix: " + one.fix + '\n';
}

}  // namespace

std::string_view name_of(explanation::state how) noexcept {
  switch (how) {
    case explanation::state::flowing:
      return "flowing";
    case explanation::state::matched:
      return "matched";
    case explanation::state::broken:
      return "broken";
  }
  return "unknown";
}

std::string_view name_of(explanation::mark how) noexcept {
  switch (how) {
    case explanation::mark::ok:
      return "ok";
    case explanation::mark::warning:
      return "warning";
    case explanation::mark::broken:
      return "BROKEN";
    case explanation::mark::unknown:
      return "unknown";
  }
  return "unknown";
}

std::string to_text(const explanation& told) {
  std::string text = told.topic + ": " + std::string(name_of(told.how));
  if (told.how == explanation::state::matched) text += ", nothing has been published since";
  text += '\n';
  if (!told.broken.empty()) text += "first broken step: " + told.broken + '\n';
  if (!told.fix.empty()) text += "fix: " + told.fix + '\n';
  for (const auto& one : told.publishers) {
    text += "publisher     " + who(one) + "  " + one.name + "  " + type_of(one) + '\n';
  }
  for (const auto& one : told.subscriptions) {
    text += "subscription  " + who(one) + "  " + one.name + "  " + type_of(one) + '\n';
  }
  for (const auto& one : told.paths) add_path(text, one);
  if (!told.notes.empty()) text += '\n';
  for (const auto& note : told.notes) text += "note: " + note + '\n';
  return text;
}

}  // namespace bus
