#include "transports/shm/quota.hpp"

#include <algorithm>
#include <array>

namespace transports::shared {
namespace {

using bus::refusal;

struct measure {
  std::uint64_t demand::*amount;
  refusal limit;
};
constexpr std::array<measure, 5> measures{{{&demand::connections, refusal::connections},
                                           {&demand::links, refusal::links},
                                           {&demand::descriptors, refusal::descriptors},
                                           {&demand::address_space, refusal::address_space},
                                           {&demand::memory, refusal::memory}}};

void add(demand& to, const demand& what) noexcept {
  for (const measure& one : measures) to.*one.amount += what.*one.amount;
}

// The first limit that `what` would pass, on top of `used`.
std::optional<refusal> passed(const demand& used, const demand& what,
                              const demand& limit) noexcept {
  for (const measure& one : measures) {
    if (what.*one.amount == 0) continue;
    const std::uint64_t in_use = std::min(used.*one.amount, limit.*one.amount);
    if (what.*one.amount > limit.*one.amount - in_use) return one.limit;
  }
  return std::nullopt;
}

}  // namespace

quota::limits quota::limits_for(std::uint64_t descriptors_max) noexcept {
  // x86-64 gives a process 2^47 bytes of addresses. Half of them for links; of that, half for other
  // users, and a quarter of that for each: 2^43, eight arenas of the largest size.
  constexpr std::uint64_t addresses = 1ULL << 46;
  // Ours, for their blocks and answers: a link of depth 1,024 needs 132 KiB, the deepest one 8 MiB.
  constexpr std::uint64_t memory = 4ULL << 30;
  // 4,096 links: 64 KiB of bookkeeping each are 256 MiB. 128 connections without a hello.
  // What descriptors there are for all, the kernel says.
  return {.node = {128, 4096, UINT64_MAX, addresses, memory},
          .others = {96, 3072, descriptors_max / 2, addresses / 2, memory / 4},
          .user = {32, 1024, descriptors_max / 4, addresses / 8, memory / 64}};
}

quota::account& quota::of(uid_t user) {
  for (account& one : accounts_) {
    if (one.user == user) return one;
  }
  accounts_.push_back({.user = user, .used = {}, .rested_at_ns = 0});
  return accounts_.back();
}

quota::answer quota::ask(uid_t user, const demand& what) {
  const std::lock_guard<std::mutex> alone(mutex_);
  demand all;
  demand others;
  for (const account& one : accounts_) {
    add(all, one.used);
    if (one.user != own_) add(others, one.used);
  }
  account& asking = of(user);
  answer given;
  // Its own limit first: it is the one that names the cause.
  if (user != own_) given.refused = passed(asking.used, what, limits_.user);
  if (!given.refused && user != own_ && passed(others, what, limits_.others)) {
    given.refused = refusal::no_room;
  }
  if (const auto hit = passed(all, what, limits_.node); hit && !given.refused) {
    given.refused = user == own_ ? *hit : refusal::no_room;
  }
  if (given.refused) return given;
  add(asking.used, what);
  given.granted = claim(shared_from_this(), user, what);
  return given;
}

void quota::give_back(uid_t user, const demand& what) noexcept {
  const std::lock_guard<std::mutex> alone(mutex_);
  for (account& one : accounts_) {
    if (one.user != user) continue;
    for (const measure& each : measures) one.used.*each.amount -= what.*each.amount;
  }
}

bool quota::may_begin(uid_t user, std::int64_t now_ns) {
  if (user == own_) return true;
  const std::lock_guard<std::mutex> alone(mutex_);
  // Who has rested and holds nothing needs no account: users come and go, and numbers are many.
  std::erase_if(accounts_, [&](const account& one) {
    const bool holds = std::any_of(measures.begin(), measures.end(),
                                   [&](const measure& each) { return one.used.*each.amount > 0; });
    return !holds && one.rested_at_ns <= now_ns;
  });
  account& asking = of(user);
  const std::int64_t rested_at = std::max(asking.rested_at_ns, now_ns) + handshake_pause_ns;
  if (rested_at - now_ns > handshakes_at_once * handshake_pause_ns) return false;
  asking.rested_at_ns = rested_at;
  return true;
}

demand quota::used_by(uid_t user) const {
  const std::lock_guard<std::mutex> alone(mutex_);
  for (const account& one : accounts_) {
    if (one.user == user) return one.used;
  }
  return {};
}

}  // namespace transports::shared
