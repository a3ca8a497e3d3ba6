// The only one whom a child that is locked in can meet: a node of its own, in no bus directory,
// within the node of its parent and turned by it. It stands with one foot in each world and passes
// on what the child is allowed, both ways; the rest it refuses, counts and explains.
//
//   the bus -- parent's node == gateway [ its node ] -- pipes -- the child's node
//
// The child sees the gateway's card, and so learns of exactly those topics and wishes that are
// allowed to it: what it cannot see it cannot ask for. The parent's node publishes and subscribes
// in the child's stead, as its card says (on_behalf_of).
//
// Nothing is passed on that nobody wants: the gateway subscribes to the child's topic when the
// parent's publisher of it has a route, so that "matched" means the same on both sides.
#pragma once

#include "bus/node/allow.hpp"
#include "bus/node/conveyor.hpp"
#include "bus/node/core.hpp"
#include "bus/node/overseer.hpp"
#include "bus/node/supervised.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bus {

class gateway final : public overseer, public conveyor::owner {
 public:
  // Throws bus::error for a bad pattern or path in `rights`, and if the node within cannot be.
  gateway(core& outside, allow rights, std::string program);
  ~gateway();
  gateway(const gateway&) = delete;
  gateway& operator=(const gateway&) = delete;

  // Starts the child, and again as its policy says. Errors: as child_process::start().
  [[nodiscard]] result<std::shared_ptr<supervised>> start(child_plan plan, restart when);
  [[nodiscard]] const std::shared_ptr<supervised>& child() const noexcept { return child_; }

  // --- the parent's node turns it
  // Readable when attend() has something to do. Its bell is rung by nobody: pipes call by
  // descriptors.
  [[nodiscard]] int handle() const noexcept { return inside_->control_handle(); }
  void attend() noexcept;
  // Returns how many messages came from the child.
  std::size_t turn(std::size_t budget) noexcept;
  // True: safe to sleep on handle().
  [[nodiscard]] bool arm() noexcept;
  void disarm() noexcept { inside_->disarm(); }

  // What was refused, for the parent's links file.
  void describe(wire::Links& links) const;
  // How much, and what was passed on; of this life, or of the last one if there is none.
  [[nodiscard]] const ledger_row& row() const noexcept { return *row_; }
  // One line for each thing that was refused, up to some number.
  [[nodiscard]] std::vector<std::string> refusals() const;

 private:
  // A publisher of the child's, and ours of the same topic.
  struct offer {
    publication* ours = nullptr;
    bool is_on_card = true;
    std::unique_ptr<flow> passing = nullptr;
    loss cause = loss::queue_full;  // of what will not come, when nothing is passed on any more
  };
  using refusal_key = std::pair<std::string, std::string>;  // verb and name

  [[nodiscard]] bool met(const wire::Introduce& words) override;
  void lost(node_id peer) override;
  [[nodiscard]] bool admits(node_id from, const wire::Attach& words) override;
  void turned_away(std::uint64_t messages) noexcept override;
  void complete(wire::Introduce& words) const override;

  flow* joined(const conveyor& by, const source_event& about) noexcept override;
  void left(const conveyor& by, source_key which) noexcept override;
  void passed(const core& to) noexcept override;
  void thrown_away() noexcept override { turned_away(1); }
  void due() noexcept override { due_ = true; }

  void review(const wire::Introduce& words);
  void take_off_card(node_id peer) noexcept;
  void withdraw_unlisted(node_id peer);
  void begin_life(node_id child);
  void keep_schemas(const wire::Introduce& words);
  [[nodiscard]] type_info type_of(const wire::Type& words) const;
  void review_offers(const wire::Card& card);
  void review_wishes(const wire::Card& card);
  void listen();
  void work() noexcept;
  void withdraw(std::map<source_key, offer>::iterator at);
  flow* join_offer(const source_event& about);
  flow* join_inward(const source_event& about);
  void leave_offer(source_key which, const conveyor& by);
  void leave_inward(source_key which, const conveyor& by);
  [[nodiscard]] bool is_outward(const conveyor& one) const noexcept;
  [[nodiscard]] std::string why_not(const std::vector<std::string>& allowed) const;
  void refuse(std::string_view verb, const std::string& name, std::string reason,
              std::size_t counter);
  [[nodiscard]] bool is_at_rest() const noexcept;

  core& outside_;
  allow rights_;
  std::string program_;
  std::unique_ptr<core> inside_;
  std::shared_ptr<supervised> child_;
  node_id peer_{};  // the child's node
  wire::Kin kin_;
  ledger_row* row_ = nullptr;
  std::map<refusal_key, std::string> refused_;
  std::set<std::uint64_t> refused_ever_;          // hashes of the same, so that each counts once
  std::map<std::uint64_t, std::string> schemas_;  // of the child's types, proved by their hash
  std::size_t schemas_bytes_ = 0;

  std::map<source_key, offer> offers_;
  std::map<std::string, std::unique_ptr<conveyor>> outward_;  // by topic
  std::map<source_key, std::unique_ptr<flow>> inward_flows_;
  std::map<std::string, std::unique_ptr<conveyor>> inward_;  // by what is wanted, and how
  bool is_new_life_ = false;
  std::unique_ptr<wire::Introduce> news_;  // of the child, to be looked at
  std::vector<node_id> lost_;
  bool due_ = false;
  bool in_turn_ = false;
};

}  // namespace bus
