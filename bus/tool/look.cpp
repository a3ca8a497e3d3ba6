#include "bus/tool/look.hpp"

#include "bus/node/qos.hpp"
#include "bus/tool/console.hpp"

namespace bus::tool {

std::string directory_of(const common_options& where) {
  return where.directory.empty() ? default_directory() : where.directory;
}

rendezvous visit(const common_options& where) {
  const std::string path = directory_of(where);
  auto opened = rendezvous::visit(path);
  if (opened) return std::move(*opened);
  if (opened.error() == errc::not_found) {
    throw failure(exit_code::not_so, "there is no bus directory " + path +
                                         ": start a node, or set OMNIBUS_DIR to where one runs");
  }
  const bool denied = opened.error() == errc::denied;
  throw failure(
      denied ? exit_code::denied : exit_code::not_so,
      "cannot read the bus directory " + path + ": " + opened.error().message() +
          (denied ? "; run as its owner, or let its owner share it by a group (chmod 2770)"
                  : "; set OMNIBUS_DIR to a directory"));
}

census look(const common_options& where) {
  const std::string path = directory_of(where);
  if (auto opened = rendezvous::visit(path); !opened && opened.error() == errc::not_found) {
    census nobody;
    nobody.directory = path;
    return nobody;
  }
  return take_census(visit(where));
}

std::string type_text(const wire::Advertisement& words) {
  return words.type().name().empty() ? "raw" : clean(words.type().name());
}

std::string type_text(const wire::Interest& words) {
  return words.has_type() ? clean(words.type().name()) : "any";
}

std::string_view life_text(liveness life) noexcept {
  switch (life) {
    case liveness::alive:
      return "alive";
    case liveness::dead:
      return "dead";
    case liveness::unknown:
      return "unknown";
  }
  return "unknown";
}

std::string place_text(const wire::Card& card) {
  for (const std::string& address : card.addresses()) {
    const auto tcp = address.find("tcp://");
    if (tcp == std::string::npos) continue;
    return clean(address.substr(tcp, address.find(',', tcp) - tcp));
  }
  return "calls us";
}

std::string name_text(const node_report& one) {
  return one.card_error ? "?" : clean(one.card.name());
}

}  // namespace bus::tool
