// Children: the kernel tells of their ends by their handles, among the node's other descriptors.
#include "bus/node/core.hpp"
#include "bus/node/gateway.hpp"

#include <algorithm>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bus {

namespace {

bool has_ended(const fd& process) noexcept {
  pollfd end{.fd = process.get(), .events = POLLIN, .revents = 0};
  return ::poll(&end, 1, 0) == 1;
}

}  // namespace

// One life of a child: with a way to us that no other process has, where a transport makes such.
result<child_process> core::start_child(child_plan plan, bool keeps_books) {
  int first = STDERR_FILENO + 1;
  for (const auto& [ours, theirs] : plan.descriptors) first = std::max(first, theirs + 1);
  fd books;
  if (keeps_books) {
    auto made = make_books();
    struct stat about {};
    if (!made || ::fstat(made->get(), &about) != 0) return unexpected(last_system_error());
    books = std::move(*made);
    plan.environment.push_back(std::string(books_variable) + "=" + std::to_string(first) + "@" +
                               std::to_string(about.st_ino));
    plan.descriptors.emplace_back(books.get(), first++);
  }
  invitation way;
  for (const auto& one : transports_) {
    if (!one->about().invites) continue;
    auto made = one->invite(first, !overseer_);
    if (!made) return unexpected(made.error());
    way = std::move(*made);
    plan.environment.push_back(std::string(parent_variable) + "=" + way.their_address);
    break;
  }
  for (const fd& one : way.theirs) plan.descriptors.emplace_back(one.get(), first++);
  auto started = child_process::start(plan);
  if (!started) return started;
  if (books)
    books_.push_back({std::move(books), fd(::fcntl(started->handle(), F_DUPFD_CLOEXEC, 0))});
  if (way.our_address.empty()) return started;
  way.theirs.clear();
  for (fd& one : way.ours) static_cast<void>(one.release());
  call(way.our_address);
  return started;
}

result<std::shared_ptr<supervised>> core::look_after(child_plan plan, restart when,
                                                     bool keeps_books) {
  auto made = std::make_shared<supervised>(
      [this, keeps_books, plan = std::move(plan)] { return start_child(plan, keeps_books); }, when);
  if (auto started = made->start(steady_ns()); !started) return unexpected(started.error());
  watch(made->handle(), from_child);
  children_.push_back(made);
  return made;
}

result<ledger_reading> core::books_of(node_id child) const {
  for (const kept_books& one : books_) {
    auto books = read_ledger(one.file);
    if (books && books->node == child) return books;
  }
  return unexpected(errc::not_found);
}

void core::forget_books(node_id child) noexcept {
  std::erase_if(books_, [child](const kept_books& one) {
    const auto books = read_ledger(one.file);
    return books && books->node == child;
  });
}

result<std::shared_ptr<supervised>> core::lock_in(child_plan plan, restart when, allow rights) {
  const std::string& path = plan.command.front();
  auto made = std::make_unique<gateway>(*this, std::move(rights), path.substr(path.rfind('/') + 1));
  auto started = made->start(std::move(plan), when);
  if (!started) return started;
  watch(made->handle(), from_gateway);
  gateways_.push_back(std::move(made));
  return started;
}

const gateway* core::gateway_of(const supervised& one) const noexcept {
  const auto at = std::find_if(gateways_.begin(), gateways_.end(),
                               [&](const auto& each) { return each->child().get() == &one; });
  return at == gateways_.end() ? nullptr : at->get();
}

bill_of_transports core::bill_for_children() const {
  bill_of_transports bill;
  for (const transport_maker& maker : options_.transports) {
    const bool invites = std::any_of(traits_.begin(), traits_.end(), [&](const traits& about) {
      return about.scheme == maker.scheme && about.invites;
    });
    if (invites) bill.push_back(maker);
  }
  return bill;
}

void core::let_go(const std::shared_ptr<supervised>& one) noexcept {
  if (is_forked()) return;
  std::erase(children_, one);
  std::erase_if(gateways_, [&](const auto& each) { return each->child() == one; });
}

// Some descriptor has called, or the time. The kernel forgets a handle as it is closed.
void core::look_after_children() noexcept {
  if (children_.empty()) return;
  const std::int64_t now = steady_ns();
  try {
    // A copy: whoever is told that one is over may let go of another.
    for (const auto& one : std::vector(children_)) {
      if (one->step(now)) watch(one->handle(), from_child);
    }
  } catch (...) {
    complain("a child runs whose end will not be heard: no memory to watch it");
  }
  // Of those who never had a node there is nothing to read.
  std::erase_if(books_, [](const kept_books& one) {
    return has_ended(one.process) && !read_ledger(one.file);
  });
}

std::optional<exit_status> core::wait_end(supervised& one, deadline until) {
  if (in_pump_) {
    one.wait(until);
  } else {
    drive(until, usual_budget, [&] { return one.is_over(); });
  }
  return one.is_over() ? one.last_end() : std::nullopt;
}

}  // namespace bus
