// "Which file, and how do two processes agree on it?" The bus directory: every node puts its card
// there by rename, its topics in a file that grows, its ledger under a lock that the kernel drops
// at death, and its schemas by content.
//
// "How does B know?" inotify says which card changed, then that card is read; after an overflow,
// all are read again. A user may have few inotify instances (128 on many machines): a node that
// gets none puts a named pipe into waiting/, and whoever changes a card writes its number there.
// Nothing polls, but for who waits at a pipe in a directory that is open to others: that it was
// closed to them, nobody tells it.
//
// Somebody may remove the directory under a live bus, or move it away. The kernel does not tell of
// that while we hold it open; it tells of our own files, which go first, and then we look: renew().
// What a file says is data from a stranger: its size is bounded,
// a symbolic link is not followed, and a card that does not decode is passed over.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/ids.hpp"
#include "bus/base/result.hpp"
#include "schemas/bus/card.pb.h"
#include "schemas/bus/links.pb.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bus {

// A card that appeared or changed, or, without a card, one that went away.
struct card_change {
  node_id node;
  std::optional<wire::Card> card;
};

class rendezvous {
 public:
  // Makes the directory (0700) if it is missing, for the node `self`. Errors: denied (it belongs to
  // somebody else, or others may write to it), no_space, or the kernel's.
  [[nodiscard]] static result<rendezvous> open(const std::string& path, node_id self);
  // No directory: nobody is there, what is written is dropped, and nothing ever changes.
  [[nodiscard]] static rendezvous nowhere(node_id self);
  // Only to read: makes nothing and watches nothing, so changes() has nothing to say. Whose
  // directory it is, is not asked. Errors: not_found, denied, or the kernel's.
  [[nodiscard]] static result<rendezvous> visit(const std::string& path);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  // -1 if this is nowhere.
  [[nodiscard]] int directory() const noexcept { return directory_.get(); }
  // Begins to watch it: by inotify, or at a pipe if there is no instance left. Before changes(),
  // and after the node's ledger is there, whose lock proves whose pipe it is. Errors: the kernel's.
  [[nodiscard]] result<void> begin_watching();
  // Readable when changes() has something to say; level-triggered. -1: it never has.
  [[nodiscard]] int wait_handle() const noexcept { return watch_.get(); }

  // What changed since the last call; the first call tells all that is there. Cards of dead nodes
  // are not told. Reads files; does not wait.
  [[nodiscard]] std::vector<card_change> changes();

  // Whether somebody else has removed or moved away the directory or files of ours in it, as far as
  // changes() has heard. Nobody tells who waits at a pipe: that one looks, with two system calls.
  [[nodiscard]] bool is_disturbed() const noexcept;
  // Whether the directory's mode or group may have changed since the last call. Who waits at a pipe
  // does not hear of it, and looks at all that it had admitted while is_open_to_others().
  [[nodiscard]] bool policy_changed() noexcept { return std::exchange(policy_changed_, false); }
  // Whether anybody but its owner may come in; also when that cannot be seen.
  [[nodiscard]] bool is_open_to_others() const noexcept;
  // Opens what the path names now, or makes it again, with the checks of open(). True: it is
  // another directory, without a file of ours, and wait_handle() is another one; changes() tells
  // all that is there. Errors: as open(); nothing has changed then.
  [[nodiscard]] result<bool> renew();

  // Whether we wait at a pipe, since the kernel had no inotify instance left.
  [[nodiscard]] bool waits_at_pipe() const noexcept { return pipe_bytes_ != 0; }

  // Replaces our own files as a whole. Errors: no_space, denied, or the kernel's.
  [[nodiscard]] result<void> write_card(const wire::Card& card);
  [[nodiscard]] result<void> write_links(const wire::Links& links);
  // Records of wire::TopicChange, each with its length before it. Errors: too_big (more than
  // anybody reads), corrupt (the file to append to is none of ours), or as above. After one,
  // append_topics() may have left a torn file.
  [[nodiscard]] result<void> write_topics(const std::string& records);
  [[nodiscard]] result<void> append_topics(const std::string& records);
  // Schemas are named by their hash, so a second writer writes the same bytes.
  [[nodiscard]] result<void> write_schema(std::uint64_t hash, const std::string& schema);
  [[nodiscard]] result<std::string> read_schema(std::uint64_t hash) const;
  // Without what it publishes.
  [[nodiscard]] result<wire::Card> read_card(node_id node) const;
  // Adds that, if the node has a file for it. What was being written at its end is left out.
  [[nodiscard]] result<void> add_topics(wire::Card& to) const;
  [[nodiscard]] result<wire::Card> read_whole_card(node_id node) const;
  [[nodiscard]] result<wire::Links> read_links(node_id node) const;
  // All nodes with a card here, dead ones included.
  [[nodiscard]] std::vector<node_id> nodes() const;
  // Removes every file of a node. Requires: it is ours, or proved dead.
  void remove(node_id node) noexcept;

 private:
  rendezvous() = default;
  [[nodiscard]] result<void> watch() noexcept;
  [[nodiscard]] result<void> wait_at_pipe();
  [[nodiscard]] bool is_where_it_was() const noexcept;
  [[nodiscard]] bool is_own(std::string_view name) const noexcept;
  void read_watch(std::vector<node_id>& touched);
  void read_pipe(std::vector<node_id>& touched);
  void call_those_who_wait(node_id changed) const noexcept;
  [[nodiscard]] result<void> replace(const std::string& name, const std::string& bytes);
  [[nodiscard]] result<std::string> read(const std::string& name) const;

  std::string path_;
  node_id self_;
  fd directory_;
  fd watch_;  // inotify, or the pipe
  std::size_t pipe_bytes_ = 0;
  bool scan_due_ = true;
  bool disturbed_ = false;
  bool policy_changed_ = false;
};

}  // namespace bus
