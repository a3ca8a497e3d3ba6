// Who plugs pairs of pipes into parties, as bus::spawn does with a parent and its child: real
// pipes, and each party takes its ends on its own thread. A party is reached at "pipe:party/<id>".
#pragma once

#include "tests/contract/world.hpp"
#include "transports/pipe/pipe.hpp"

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace contract {

// Two ends of two pipes, before somebody has taken them.
struct loose_ends {
  bus::fd in;
  bus::fd out;
};

[[nodiscard]] inline std::pair<loose_ends, loose_ends> make_pair_of_pipes() {
  int there[2];
  int back[2];
  must(::pipe2(there, O_CLOEXEC) == 0 && ::pipe2(back, O_CLOEXEC) == 0, "pipe2");
  return std::pair(loose_ends{bus::fd(back[0]), bus::fd(there[1])},
                   loose_ends{bus::fd(there[0]), bus::fd(back[1])});
}

// Hands the ends to a transport; the outbox, or why it did not take them.
[[nodiscard]] inline bus::result<std::unique_ptr<bus::outbox>> plug(bus::transport& into,
                                                                    loose_ends ends,
                                                                    bus::node_id peer = {},
                                                                    bool lends_pages = false) {
  const auto address = transports::pipe_address(
      {.in = ends.in.get(), .out = ends.out.get(), .lends_pages = lends_pages});
  if (!address) return bus::unexpected(address.error());
  auto plugged = into.connect(peer, *address);
  if (plugged) {
    static_cast<void>(ends.in.release());
    static_cast<void>(ends.out.release());
  }
  return plugged;
}

class switchboard {
 public:
  // Where a party finds the ends that others have made for it.
  struct desk {
    bus::fd bell{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    std::mutex guard;
    std::deque<loose_ends> waiting;  // guarded by guard

    void put(loose_ends ends) {
      const std::lock_guard lock(guard);
      waiting.push_back(std::move(ends));
      const std::uint64_t one = 1;
      must(::write(bell.get(), &one, sizeof one) == sizeof one, "eventfd");
    }
    [[nodiscard]] std::deque<loose_ends> take() {
      const std::lock_guard lock(guard);
      std::uint64_t count = 0;
      static_cast<void>(!::read(bell.get(), &count, sizeof count));
      return std::exchange(waiting, {});
    }
    [[nodiscard]] bool is_empty() {
      const std::lock_guard lock(guard);
      return waiting.empty();
    }
  };

  std::shared_ptr<desk> enter(const std::string& name) {
    const std::lock_guard lock(guard_);
    return desks_[name] = std::make_shared<desk>();
  }
  void leave(const std::string& name) {
    const std::lock_guard lock(guard_);
    desks_.erase(name);
  }
  std::shared_ptr<desk> find(const std::string& name) {
    const std::lock_guard lock(guard_);
    const auto at = desks_.find(name);
    return at == desks_.end() ? nullptr : at->second;
  }

 private:
  std::mutex guard_;
  std::map<std::string, std::shared_ptr<desk>> desks_;  // by address; guarded by guard_
};

// A transport of pipes into which the switchboard plugs.
class switched final : public bus::transport, private bus::inbox {
 public:
  switched(std::shared_ptr<switchboard> by, bool lends_pages, const bus::transport_setup& setup,
           std::unique_ptr<bus::transport> pipes)
      : board_(std::move(by)),
        lends_pages_(lends_pages),
        where_("pipe:party/" + bus::to_hex(setup.id.value)),
        desk_(board_->enter(where_)),
        pipes_(std::move(pipes)),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    watch(desk_->bell.get());
  }
  ~switched() override { board_->leave(where_); }

  [[nodiscard]] const bus::traits& about() const noexcept override { return pipes_->about(); }
  [[nodiscard]] std::string where() const override { return where_; }
  [[nodiscard]] bus::inbox& arrivals() noexcept override { return *this; }
  [[nodiscard]] bus::result<bus::loan> lend(std::uint64_t bytes) noexcept override {
    return pipes_->lend(bytes);
  }
  [[nodiscard]] bus::result<std::unique_ptr<bus::outbox>> connect(
      bus::node_id peer, const std::string& address) override {
    if (!address.starts_with("pipe:party/")) return pipes_->connect(peer, address);
    if (auto open = pipes_->connect(peer, "pipe:")) return open;
    const auto theirs = board_->find(address);
    if (!theirs) return bus::unexpected(bus::errc::not_found);
    auto [here, there] = make_pair_of_pipes();
    theirs->put(std::move(there));
    auto plugged = plug(*pipes_, std::move(here), peer, lends_pages_);
    watch_inbox();
    return plugged;
  }

 private:
  std::size_t poll(std::size_t budget, bus::sink& into) noexcept override {
    return pipes_->arrivals().poll(budget, into);
  }
  void attend(bus::sink& into) noexcept override {
    for (loose_ends& one : desk_->take()) {
      // The way that comes with the pair is not needed: who wants one asks for it by "pipe:".
      static_cast<void>(plug(*pipes_, std::move(one), {}, lends_pages_));
    }
    watch_inbox();
    pipes_->arrivals().attend(into);
  }
  [[nodiscard]] int wait_handle() noexcept override { return epoll_.get(); }
  // The inbox has a descriptor once it has a pair.
  void watch_inbox() {
    const int handle = is_watched_ ? -1 : pipes_->arrivals().wait_handle();
    if (handle < 0) return;
    watch(handle);
    is_watched_ = true;
  }
  void watch(int descriptor) {
    epoll_event event{};
    event.events = EPOLLIN;
    must(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor, &event) == 0, "epoll_ctl");
  }
  [[nodiscard]] bool arm() noexcept override {
    return pipes_->arrivals().arm() && desk_->is_empty();
  }
  void disarm() noexcept override { pipes_->arrivals().disarm(); }

  std::shared_ptr<switchboard> board_;
  bool lends_pages_;
  std::string where_;
  std::shared_ptr<switchboard::desk> desk_;
  std::unique_ptr<bus::transport> pipes_;
  bus::fd epoll_;
  bool is_watched_ = false;
};

[[nodiscard]] inline bus::transport_maker switched_pipes(std::shared_ptr<switchboard> by,
                                                         bool lends_pages) {
  return {"pipe",
          [by, lends_pages](
              const bus::transport_setup& setup) -> bus::result<std::unique_ptr<bus::transport>> {
            auto pipes = transports::pipe().make(setup);
            if (!pipes) return bus::unexpected(pipes.error());
            return std::unique_ptr<bus::transport>(
                std::make_unique<switched>(by, lends_pages, setup, std::move(*pipes)));
          }};
}

}  // namespace contract
