// What it costs to lock a child in: its start, and the system calls that it makes then.
//
//   bench_confinement [STARTS]     medians; 200 starts of each kind, in turns
#include "bus/base/child_process.hpp"
#include "bus/base/clock.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

namespace {

using bus::child_plan;
using bus::child_process;
using bus::confinement;
using bus::wall;

struct kind {
  std::string_view name;
  std::optional<confinement> confined;
  std::vector<double> starts_us = {};  // until start() returns
  std::vector<double> lives_us = {};   // and until the program has ended
};

double median(std::vector<double> all) {
  std::sort(all.begin(), all.end());
  return all[all.size() / 2];
}

bool run(kind& one) {
  const std::int64_t before = bus::steady_ns();
  auto child = child_process::start({.command = {"/bin/true"}, .confined = one.confined});
  const std::int64_t started = bus::steady_ns();
  if (!child || !child->wait().succeeded()) return false;
  one.starts_us.push_back(static_cast<double>(started - before) / 1e3);
  one.lives_us.push_back(static_cast<double>(bus::steady_ns() - before) / 1e3);
  return true;
}

template <class Call>
double per_call_ns(Call call) {
  constexpr int calls = 200'000;
  const std::int64_t before = bus::steady_ns();
  for (int i = 0; i < calls; ++i) call();
  return static_cast<double>(bus::steady_ns() - before) / calls;
}

// In the child. The filter allows the first always, the kernel asks it about the others each time.
int print_calls() {
  std::array<double, 9> of_getppid{};
  std::array<double, 9> of_fcntl{};
  std::array<double, 9> of_sendto{};
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()) != 0) return 1;
  for (std::size_t i = 0; i < of_getppid.size(); ++i) {
    of_getppid[i] = per_call_ns([] { static_cast<void>(::getppid()); });
    of_fcntl[i] = per_call_ns([] { static_cast<void>(::fcntl(0, F_GETFD)); });
    of_sendto[i] = per_call_ns([&] { static_cast<void>(::send(pair[0], "", 0, 0)); });
  }
  fmt::print("  getppid {:.0f} ns, fcntl {:.0f} ns, send {:.0f} ns\n",
             median({of_getppid.begin(), of_getppid.end()}),
             median({of_fcntl.begin(), of_fcntl.end()}),
             median({of_sendto.begin(), of_sendto.end()}));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "calls") return print_calls();
  const long starts = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 200;
  std::vector<kind> kinds = {
      {"not locked in", std::nullopt},
      {"locked in", confinement{}},
      {"without a mount namespace", confinement{.without = {wall::mount_namespace}}},
      {"without a network namespace", confinement{.without = {wall::network_namespace}}},
      {"without Landlock", confinement{.without = {wall::landlock}}},
      {"by Landlock and seccomp alone",
       confinement{.without = {wall::user_namespace, wall::mount_namespace, wall::network_namespace,
                               wall::ipc_namespace}}},
  };
  // The first one compiles the filters.
  const std::int64_t before = bus::steady_ns();
  kind first{"the first one", confinement{}};
  if (!run(first)) return 1;
  fmt::print("the first one {:.1f} ms\n", static_cast<double>(bus::steady_ns() - before) / 1e6);
  for (long i = 0; i < starts; ++i) {
    for (kind& one : kinds) {
      if (!run(one)) return 1;
    }
  }
  for (const kind& one : kinds) {
    fmt::print("{}: start {:.2f} ms, life {:.2f} ms\n", one.name, median(one.starts_us) / 1e3,
               median(one.lives_us) / 1e3);
  }
  std::fflush(stdout);
  for (const bool is_confined : {false, true}) {
    child_plan plan{.command = {"/proc/self/exe", "calls"}};
    if (is_confined) plan.confined = confinement{};
    auto child = child_process::start(plan);
    if (!child || !child->wait().succeeded()) return 1;
  }
  return 0;
}
