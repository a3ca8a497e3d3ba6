#include "tests/unit/escape_target.hpp"

#include <array>
#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include <fcntl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace tests {

using bus::fd;

target::target() {
  directory_ = "/tmp/omnibus-escapes-XXXXXX";
  if (!::mkdtemp(directory_.data())) throw std::runtime_error("no scratch directory");
  directory_.copy(layout_.directory.data(), layout_.directory.size() - 1);
  layout_.parent = ::getpid();
  layout_.secret_at = reinterpret_cast<std::uint64_t>(secret_.data());
  layout_.shared_memory = ::shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
  ::mkdir((directory_ + "/mounted").c_str(), 0700);
  listen();
  open_terminal();
  sigset_t ours;
  ::sigemptyset(&ours);
  for (int i = 0; i < signals_max; ++i) ::sigaddset(&ours, signal_number(i));
  ::pthread_sigmask(SIG_BLOCK, &ours, nullptr);
  signals_ = fd(::signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK));
  told_ = fd(::memfd_create("target", MFD_CLOEXEC));
  const target_layout whole = layout_;
  if (::pwrite(told_.get(), &whole, sizeof whole, 0) != sizeof whole) {
    throw std::runtime_error("no target");
  }
  restore();
}

target::~target() {
  ::shmctl(layout_.shared_memory, IPC_RMID, nullptr);
  for (const char* name : {"secret", "victim", "moved", "away", "empty", "made", "linked",
                           "pointer", "stream", "datagrams"}) {
    ::unlink((directory_ + "/" + name).c_str());
  }
  for (const char* name : {"/room", "/mounted", ""}) ::rmdir((directory_ + name).c_str());
}

void target::restore() {
  for (const char* name : {"made", "linked", "pointer", "away"}) {
    ::unlink((directory_ + "/" + name).c_str());
  }
  ::rmdir((directory_ + "/room").c_str());
  for (const char* name : {"secret", "victim", "moved", "empty"}) {
    const std::string path = directory_ + "/" + name;
    const fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    if (::pwrite(file.get(), "s", 1, 0) != 1) throw std::runtime_error("cannot write " + path);
  }
  static_cast<void>(signals_received());
}

int target::signals_received() {
  int count = 0;
  signalfd_siginfo one{};
  while (::read(signals_.get(), &one, sizeof one) == sizeof one) ++count;
  return count;
}

void target::listen() {
  const auto add = [&](int family, int type, const auto& address, std::size_t size) {
    fd socket(::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto* where = reinterpret_cast<const sockaddr*>(&address);
    if (::bind(socket.get(), where, static_cast<socklen_t>(size)) != 0 ||
        (type == SOCK_STREAM && ::listen(socket.get(), 64) != 0)) {
      throw std::runtime_error("cannot listen");
    }
    sockaddr_in bound{};
    socklen_t room = sizeof bound;
    ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &room);
    sockets_.push_back(std::move(socket));
    return bound.sin_port;
  };
  sockaddr_un address = address_of(directory_ + "/stream");
  add(AF_UNIX, SOCK_STREAM, address, sizeof address);
  address = address_of(directory_ + "/datagrams");
  add(AF_UNIX, SOCK_DGRAM, address, sizeof address);
  const std::string name = "omnibus-escapes-" + std::to_string(::getpid());
  name.copy(layout_.abstract.data(), layout_.abstract.size() - 1);
  const std::size_t size = abstract_address(name.c_str(), address);
  add(AF_UNIX, SOCK_STREAM, address, size);
  layout_.tcp = add(AF_INET, SOCK_STREAM, loopback_address(0), sizeof(sockaddr_in));
  layout_.udp = add(AF_INET, SOCK_DGRAM, loopback_address(0), sizeof(sockaddr_in));
}

void target::open_terminal() {
  terminal_master_ = fd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  std::array<char, 64> name{};
  if (!terminal_master_ || ::grantpt(terminal_master_.get()) != 0 ||
      ::unlockpt(terminal_master_.get()) != 0 ||
      ::ptsname_r(terminal_master_.get(), name.data(), name.size()) != 0) {
    throw std::runtime_error("no terminal");
  }
  terminal_ = fd(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
}

}  // namespace tests
