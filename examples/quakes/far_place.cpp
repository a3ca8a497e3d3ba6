#include "examples/quakes/far_place.hpp"

#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

namespace demo {
namespace {

// Runs `ip` with these arguments, in the network namespace of the calling thread, and waits for it.
void ip(std::vector<std::string> arguments) {
  std::string line = "ip";
  for (const std::string& one : arguments) line += " " + one;
  arguments.insert(arguments.begin(), "ip");
  std::vector<char*> pointers;
  pointers.reserve(arguments.size() + 1);
  for (std::string& one : arguments) pointers.push_back(one.data());
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t silence;
  ::posix_spawn_file_actions_init(&silence);
  ::posix_spawn_file_actions_addopen(&silence, 2, "/dev/null", O_WRONLY, 0);
  pid_t child = -1;
  const int failed = ::posix_spawnp(&child, "ip", &silence, nullptr, pointers.data(), environ);
  ::posix_spawn_file_actions_destroy(&silence);
  if (failed != 0) throw std::runtime_error("there is no command ip (Debian: iproute2)");
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0) throw std::runtime_error("'" + line + "' failed");
}

// 198.18.0.0/15 is set aside for such uses (RFC 2544); each process id gets four addresses of it.
std::string address(unsigned last) {
  const unsigned subnet = static_cast<unsigned>(::getpid()) % 32768U * 4U;
  const unsigned whole = (198U << 24) + (18U << 16) + subnet + last;
  return fmt::format("{}.{}.{}.{}", whole >> 24, (whole >> 16) & 255U, (whole >> 8) & 255U,
                     whole & 255U);
}

// Makes the namespace and the cable. The calling thread stays in it, and should end.
bus::fd make_namespace(const std::string& cable) {
  if (::unshare(CLONE_NEWNET) != 0) {
    throw std::runtime_error(fmt::format("no rights for one ({})", std::strerror(errno)));
  }
  bus::fd made(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!made) throw std::runtime_error("/proc/thread-self/ns/net cannot be opened");
  ip({"link", "set", "lo", "up"});
  ip({"link", "add", "far0", "type", "veth", "peer", "name", cable, "netns",
      std::to_string(::getpid())});
  ip({"address", "add", address(2) + "/30", "dev", "far0"});
  ip({"link", "set", "far0", "up"});
  return made;
}

far_place across_namespaces() {
  const std::string cable = fmt::format("obus{}", ::getpid());
  far_place made;
  std::exception_ptr failure;
  // A namespace belongs to a thread: this one goes there and does not come back.
  std::thread([&] {
    try {
      made.network = make_namespace(cable);
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
  ip({"address", "add", address(1) + "/30", "dev", cable});
  ip({"link", "set", cable, "up"});
  made.near_listen = "tcp://" + address(1) + ":*";
  made.far_listen = "tcp://" + address(2) + ":7400";
  made.words = fmt::format(
      "in a network namespace of its own, over veth {} <-> {}; insecure: nothing on this wire is "
      "encrypted, and it does not leave the machine",
      address(1), address(2));
  return made;
}

std::uint16_t free_port() {
  const bus::fd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof where;
  if (::bind(probe.get(), reinterpret_cast<sockaddr*>(&where), length) != 0 ||
      ::getsockname(probe.get(), reinterpret_cast<sockaddr*>(&where), &length) != 0) {
    throw std::runtime_error("no free port on loopback");
  }
  return ntohs(where.sin_port);
}

}  // namespace

far_place make_far_place(bool try_namespace) {
  std::string why = "as asked";
  if (try_namespace) {
    try {
      return across_namespaces();
    } catch (const std::exception& failure) {
      why = std::string("no network namespace: ") + failure.what();
    }
  }
  far_place made;
  made.near_listen = "tcp://127.0.0.1:*";
  made.far_listen = fmt::format("tcp://127.0.0.1:{}", free_port());
  made.words = "over loopback TCP, with a bus directory of its own (" + why + ")";
  return made;
}

}  // namespace demo
