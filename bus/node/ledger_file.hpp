// The node's ledger as a file in the bus directory: mapped, so that counting costs a store and
// reading needs nobody's help; locked for the node's life, so that a free lock proves its death. A
// child that the process forks does not share the lock.
//
// The file is reserved before it is mapped, so that a full disk is an error here and no SIGBUS
// later. It grows by doubling inside an address range that is reserved once: a row never moves.
#pragma once

#include "bus/base/fd.hpp"
#include "bus/base/ids.hpp"
#include "bus/base/result.hpp"
#include "bus/route/ledger.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace bus {

// Reads somebody's ledger. Errors: not_found, denied, incompatible, corrupt.
[[nodiscard]] result<ledger_reading> read_ledger(int directory, node_id node);
// The same of an open file. Errors: incompatible; corrupt, also where nothing is written yet.
[[nodiscard]] result<ledger_reading> read_ledger(const fd& books);

class ledger_file {
 public:
  // Creates and locks `<node>.ledger` under the directory descriptor; -1: in memory, where nobody
  // else sees it. Errors: no_space, denied, exists, or the kernel's.
  [[nodiscard]] static result<std::unique_ptr<ledger_file>> create(int directory, node_id node);
  // The same in a file that somebody who will read it has made for us, empty: see make_books().
  [[nodiscard]] static result<std::unique_ptr<ledger_file>> keep_in(fd&& books, node_id node);
  // Leaves the file; rendezvous removes it. Other processes keep what they have mapped.
  ~ledger_file();
  ledger_file(const ledger_file&) = delete;
  ledger_file& operator=(const ledger_file&) = delete;

  // Somebody removed the file, or its directory: goes on in a new one under this directory. All
  // rows stay where they are, with what they count. Nothing happens if the file is there. Errors:
  // as create(); then the old one goes on.
  [[nodiscard]] result<void> move_to(int directory);

  // A zeroed row. When the file system is full or the range is used up, a row in private memory:
  // the counting goes on, but nobody else sees it, and `overflowed()` says so.
  [[nodiscard]] ledger_row& take(row_kind kind, std::uint32_t number, node_id peer = {},
                                 std::uint64_t other = 0);
  void release(ledger_row& row) noexcept;
  // What it says now. Errors: as read_ledger().
  [[nodiscard]] result<ledger_reading> reading() const { return read_ledger(file_); }
  [[nodiscard]] bool overflowed() const noexcept { return !private_rows_.empty(); }
  // The row's number in the file, plus 1; 0 for a private one.
  [[nodiscard]] std::uint32_t number_of(const ledger_row& row) const noexcept;

 private:
  ledger_file() = default;
  [[nodiscard]] std::error_code begin(node_id node);
  [[nodiscard]] bool grow() noexcept;
  [[nodiscard]] ledger_row* rows() const noexcept;
  [[nodiscard]] node_id node() const noexcept;

  fd file_;
  std::byte* map_ = nullptr;
  std::uint32_t capacity_ = 0;
  std::vector<ledger_row*> free_;
  std::vector<std::unique_ptr<ledger_row>> private_rows_;
};

// An empty file in memory, for the ledger of a process that is given it. Errors: the kernel's.
[[nodiscard]] result<fd> make_books() noexcept;

// Whether the node's lock is held. A missing file is a dead node.
[[nodiscard]] bool is_alive(int directory, node_id node) noexcept;

}  // namespace bus
